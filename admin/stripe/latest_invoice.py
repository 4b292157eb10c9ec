"""Which of a subscription's invoices says whether it is paid for: the newest that asks for something they have.

Changing a plan makes an invoice of its own. Where the change waits for its payment (`pending_update`) that invoice is open
while they still have, and have paid for, what they had before; when it isn't paid in time Stripe voids it, and the
change never happens. Neither says anything of what they have. The void invoice of a change that *is* in force, such as
one by a debit that came back, does: it was never paid (docs.stripe.com/billing/subscriptions/pending-updates).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.fields import Json, child, entries, identifier, merchant_id, whole

if TYPE_CHECKING:
    from admin.stripe.budget import Priority
    from admin.stripe.client import Failure
    from policies.facts import SubscriptionFact

OF_A_CHANGE: Final = "subscription_update"


async def status_of_latest(
    gateway: StripeGateway,
    fact: SubscriptionFact,
    invoices: Iterable[Json],
    priority: Priority,
    *,
    is_change_pending: bool,
) -> str | Failure | None:
    """The status of the newest of `invoices`, newest first, that counts; None where none of them does."""
    for invoice in invoices:
        status = identifier(invoice.get("status")) or "unreadable"
        if invoice.get("billing_reason") == OF_A_CHANGE:
            if status == "open" and is_change_pending:
                is_change_pending = False  # there is never more than one: an older one is of a change in force
                continue
            if status == "void":
                in_force = await _is_in_force(gateway, fact, invoice, priority)
                if isinstance(in_force, StripeUnavailable | StripeRefused):
                    return in_force
                if not in_force:
                    continue
        return status
    return None


async def _is_in_force(
    gateway: StripeGateway, fact: SubscriptionFact, invoice: Json, priority: Priority
) -> bool | Failure:
    """Whether they have anything that this invoice of a change charges for. What can't be read counts as had."""
    listed = child(invoice, "lines")
    lines = [line for line in entries(listed, "data") if isinstance(line, Mapping)]
    invoice_id = identifier(invoice.get("id"))
    if listed.get("has_more") is True and invoice_id is not None:
        answer = await gateway.list_all(f"{path('invoices', invoice_id)}/lines", {}, priority=priority)
        if isinstance(answer, StripeUnavailable | StripeRefused):
            return answer
        lines = list(answer)
    # The other lines give back what is left of what they had before.
    charged = [(_price_of(line), whole(line, "quantity")) for line in lines if (whole(line, "amount") or 0) > 0]
    had = {(item.price, item.quantity) for item in fact.items}
    return not charged or any(price is None or (price, quantity) in had for price, quantity in charged)


def _price_of(line: Json) -> str | None:
    """`pricing.price_details.price` since API 2025-03-31, `price` before it, `plan` from the beginning."""
    pricing = child(child(line, "pricing"), "price_details")
    return merchant_id(pricing.get("price")) or merchant_id(line.get("price")) or merchant_id(line.get("plan"))
