"""What became of the money: asked of Stripe only where an option of gateway.yaml wants it known.

It decides which calls that takes for one subscription: one for its invoices, and for refunds and disputes the payments
of the last paid one and their charges (since API 2025-03-31 an invoice no longer names its charge). It must never take
an unreadable answer for a payment: a look that can't be finished is a `Failed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.fields import Json, child, entries, identifier, reference
from admin.stripe.latest_invoice import OF_A_CHANGE, status_of_latest
from policies.entitlement import PAYING

if TYPE_CHECKING:
    from admin.stripe.budget import Priority
    from admin.stripe.client import Failure
    from policies.facts import SubscriptionFact
    from policies.schema import Billing

RECENT_INVOICES: Final = 10
_CONCERNED: Final = PAYING | {"past_due"}
_NOT_TAKEN_BACK: Final = frozenset({"won", "prevented"})
_INQUIRY: Final = "warning_"
"""An inquiry of the bank: no money has moved, and most end there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What more than its subscriptions is asked of a customer. Each costs calls, so nothing is by default."""

    invoices: bool = False
    refunds: bool = False
    disputes: bool = False
    features: bool = False

    @classmethod
    def of(cls, billing: Billing) -> Wanted:
        """What the options of gateway.yaml need."""
        return cls(
            invoices=billing.require_paid_invoice,
            refunds=billing.revoke_on_refund,
            disputes=billing.revoke_on_dispute,
            features=billing.features_from == "stripe",
        )


@dataclass(frozen=True, slots=True)
class MovedOn:
    """Its newest invoice is another than the subscription named: something was billed between the two answers."""


async def with_payments(
    gateway: StripeGateway,
    fact: SubscriptionFact,
    wanted: Wanted,
    priority: Priority,
    named: str | None = None,
    *,
    is_change_pending: bool = False,
) -> SubscriptionFact | Failure | MovedOn:
    """`fact` with what is wanted of its invoices, if the newest is the `named` one.

    While `is_change_pending`, the newest may be for what they don't have yet.
    """
    if fact.status not in _CONCERNED or not (wanted.invoices or wanted.refunds or wanted.disputes):
        return fact
    # Newest first, as all of Stripe's lists.
    query = {"subscription": fact.id, "limit": RECENT_INVOICES}
    page = await gateway.get("/v1/invoices", query, priority=priority)
    if isinstance(page, StripeUnavailable | StripeRefused):
        return page
    invoices = [entry for entry in entries(page, "data") if isinstance(entry, Mapping)]
    if named is not None and invoices and identifier(invoices[0].get("id")) != named:
        return MovedOn()
    status = await status_of_latest(gateway, fact, invoices, priority, is_change_pending=is_change_pending)
    last_paid = _last_paid(invoices)
    if page.get("has_more") is True and (status is None or last_paid is None):
        every = await gateway.list_all("/v1/invoices", {"subscription": fact.id}, priority=priority)
        if isinstance(every, StripeUnavailable | StripeRefused):
            return every
        status = await status_of_latest(gateway, fact, every, priority, is_change_pending=is_change_pending)
        last_paid = _last_paid(every)
    if isinstance(status, StripeUnavailable | StripeRefused):
        return status
    fact = replace(fact, latest_invoice=status)
    invoice_id = None if last_paid is None else identifier(last_paid.get("id"))
    if invoice_id is None or not (wanted.refunds or wanted.disputes):
        return fact
    charges = await _charges_of(gateway, invoice_id, priority)
    if isinstance(charges, StripeUnavailable | StripeRefused):
        return charges
    # Partly refunded is still paid for; of several payments all must have gone back.
    refunded = bool(charges) and all(charge.get("refunded") is True for charge in charges)
    disputed = await _any_disputed(gateway, charges, priority) if wanted.disputes else False
    if isinstance(disputed, StripeUnavailable | StripeRefused):
        return disputed
    return replace(fact, refunded=refunded, disputed=disputed)


async def features_of(gateway: StripeGateway, stripe_customer: str, priority: Priority) -> tuple[str, ...] | Failure:
    """The lookup keys of every feature that Stripe's Entitlements grant now: the event's own list is cut at ten."""
    query = {"customer": stripe_customer}
    listed = await gateway.list_all("/v1/entitlements/active_entitlements", query, priority=priority)
    if isinstance(listed, StripeUnavailable | StripeRefused):
        return listed
    keys = (entry.get("lookup_key") for entry in listed)
    return tuple(sorted({key for key in keys if isinstance(key, str) and 0 < len(key) <= 80 and key.isprintable()}))


def _last_paid(invoices: Iterable[Json]) -> Json | None:
    """The newest that was paid, save for changes of plan that asked for nothing: what they have was paid for before."""
    paid = (one for one in invoices if one.get("status") == "paid")
    return next((one for one in paid if one.get("billing_reason") != OF_A_CHANGE or one.get("amount_due") != 0), None)


async def _charges_of(gateway: StripeGateway, invoice_id: str, priority: Priority) -> list[Json] | Failure:
    payments = await gateway.list_all("/v1/invoice_payments", {"invoice": invoice_id}, priority=priority)
    if isinstance(payments, StripeUnavailable | StripeRefused):
        return payments
    found: list[Json] = []
    for entry in payments:
        payment = child(entry, "payment")
        intent, charge = reference(payment.get("payment_intent")), reference(payment.get("charge"))
        if intent is not None:
            listed = await gateway.list_all("/v1/charges", {"payment_intent": intent}, priority=priority)
            if isinstance(listed, StripeUnavailable | StripeRefused):
                return listed
            found += (one for one in listed if one.get("status") == "succeeded")  # failed attempts are charges, too
        elif charge is not None:
            answer = await gateway.get(path("charges", charge), priority=priority)
            if isinstance(answer, StripeUnavailable | StripeRefused):
                return answer
            found.append(answer)
    return found


async def _any_disputed(gateway: StripeGateway, charges: list[Json], priority: Priority) -> bool | Failure:
    for charge in charges:
        charge_id = identifier(charge.get("id"))
        # `disputed` stays true of a dispute that was won.
        if charge.get("disputed") is not True or charge_id is None:
            continue
        disputes = await gateway.list_all("/v1/disputes", {"charge": charge_id}, priority=priority)
        if isinstance(disputes, StripeUnavailable | StripeRefused):
            return disputes
        statuses = [identifier(dispute.get("status")) or "" for dispute in disputes]
        if any(status not in _NOT_TAKEN_BACK and not status.startswith(_INQUIRY) for status in statuses):
            return True
    return False
