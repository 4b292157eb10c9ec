"""The life of one invoice: draft, open, and then paid, void or uncollectible.

It decides when an invoice may move and what is charged. It must never touch a subscription: what an invoice's fate means
for that is `billing`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from admin.simulator.entities import Invoice
from admin.simulator.payments import Payments
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from admin.simulator.clock import SimulatedClock
    from admin.simulator.entities import Customer, Line, Subscription
    from admin.simulator.journal import Journal
    from admin.simulator.store import Store

DEBIT_SECONDS = 5 * 86400
"""How long a bank debit takes before it is there, or comes back."""

AfterFinalFailure = Literal["canceled", "unpaid", "past_due", "paused"]


Outcome = Literal["paid", "pending", "failed"]
DEBITS = ("debit", "debit_bounces")


@dataclass(slots=True)
class Settings:
    """What Stripe's Dashboard would hold. `retry_days` are the gaps between attempts after the first one fails."""

    after_final_failure: AfterFinalFailure = "canceled"
    retry_days: tuple[float, ...] = (3, 5, 7)
    draft_seconds: int = 3600


class Invoicing:
    """Makes invoices and moves them through their states."""

    def __init__(self, store: Store, clock: SimulatedClock, journal: Journal) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        self.payments = Payments(store, clock, journal)

    def draft(
        self, subscription: Subscription, reason: str, lines: Sequence[Line], *, finalizes_in: int | None
    ) -> Invoice:
        """A new draft for `subscription`; it is finalized by itself after `finalizes_in` seconds, or by hand if None."""
        now = int(self._clock.now())
        invoice = Invoice(
            id=self._store.new_id("in"),
            customer=subscription.customer,
            subscription=subscription.id,
            currency=subscription.currency,
            created=now,
            billing_reason=reason,
            lines=list(lines),
            period_start=min((line.period_start for line in lines), default=now),
            period_end=max((line.period_end for line in lines), default=now),
            metadata=dict(subscription.metadata),
            collection_method=subscription.collection_method,
            auto_advance=finalizes_in is not None,
            finalizes_at=now + finalizes_in if finalizes_in is not None else None,
        )
        invoice.amount_due = max(0, invoice.total)
        self._store.invoices[invoice.id] = invoice
        subscription.latest_invoice = invoice.id
        self._journal.say("invoice.created", invoice)
        return invoice

    def finalize(self, invoice: Invoice, *, days_until_due: int | None = None) -> None:
        """A draft becomes open, with a number; the customer's credit is used up first."""
        if invoice.status != "draft":
            raise ApiError(
                400,
                "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
                code="invoice_not_editable",
            )
        now = int(self._clock.now())
        customer = self._store.customers[invoice.customer]
        customer.invoices += 1
        invoice.number = f"{customer.id[-8:].upper()}-{customer.invoices:04d}"
        invoice.starting_balance = customer.balance
        due = invoice.total + customer.balance
        customer.balance = min(0, due)
        invoice.ending_balance = customer.balance
        invoice.amount_due = max(0, due)
        invoice.status = "open"
        invoice.finalized_at = now
        invoice.finalizes_at = None
        if invoice.collection_method == "send_invoice":
            invoice.due_date = now + (days_until_due or 30) * 86400
        else:
            invoice.next_payment_attempt = now if invoice.auto_advance else None
        self.payments.expect(invoice)
        self._journal.say("invoice.finalized", invoice)

    def attempt(self, invoice: Invoice) -> Outcome:
        """Charge an open invoice once."""
        customer = self._store.customers[invoice.customer]
        if invoice.amount_due == 0 or (customer.card == "works" and not customer.deleted):
            self.settle(invoice)
            return "paid"
        invoice.attempts += 1
        invoice.next_payment_attempt = None
        if customer.card in DEBITS and not customer.deleted:
            self.payments.charge(invoice, "pending")
            invoice.settles_at = int(self._clock.now()) + DEBIT_SECONDS
            invoice.bounces = customer.card == "debit_bounces"
            return "pending"
        if customer.card == "fails":
            self.payments.charge(invoice, "failed")
        return "failed"

    def end_debit(self, invoice: Invoice) -> bool:
        """A debit that was under way is there, or comes back; True when the invoice is paid now."""
        if not invoice.bounces:
            self.settle(invoice)
            return True
        invoice.settles_at = None
        self.payments.end_pending(invoice, "failed")
        return False

    def settle(self, invoice: Invoice, *, out_of_band: bool = False) -> None:
        """An open or uncollectible invoice is paid; `out_of_band` is by something other than a charge."""
        if invoice.status not in ("open", "uncollectible"):
            raise ApiError(400, f"Invoice is {invoice.status}, so it can't be paid.", code="invoice_not_editable")
        if out_of_band:
            self.payments.forgo(invoice)
        else:
            self.payments.charge(invoice, "succeeded")
        invoice.attempts += int(invoice.settles_at is None)  # a debit was counted when it began
        invoice.settles_at = None
        invoice.status = "paid"
        invoice.paid_at = int(self._clock.now())
        invoice.next_payment_attempt = None
        self._journal.say("invoice.paid", invoice)
        self._journal.say("invoice.payment_succeeded", invoice)

    def void(self, invoice: Invoice) -> None:
        """An open or uncollectible invoice counts no more."""
        if invoice.status not in ("open", "uncollectible"):
            raise ApiError(
                400,
                f"You can only void open or uncollectible invoices; this one is {invoice.status}.",
                code="invoice_not_editable",
            )
        self.payments.forgo(invoice)
        invoice.settles_at = None
        invoice.status = "void"
        invoice.voided_at = int(self._clock.now())
        invoice.next_payment_attempt = None
        invoice.auto_advance = False
        self._journal.say("invoice.voided", invoice)

    def give_up(self, invoice: Invoice) -> None:
        """An open invoice is marked uncollectible: bad debt."""
        if invoice.status != "open":
            raise ApiError(
                400,
                f"You can only mark open invoices uncollectible; this one is {invoice.status}.",
                code="invoice_not_editable",
            )
        invoice.status = "uncollectible"
        invoice.uncollectible_at = int(self._clock.now())
        invoice.next_payment_attempt = None
        invoice.auto_advance = False
        self._journal.say("invoice.marked_uncollectible", invoice)

    def stop_collecting(self, subscription: Subscription) -> None:
        """Nothing of an ended subscription is finalized or charged by itself any more."""
        for invoice in self._store.invoices_of(subscription.id):
            if invoice.status in ("draft", "open"):
                with self._journal.changing("invoice.updated", invoice):
                    invoice.auto_advance = False
                    invoice.finalizes_at = None
                    invoice.next_payment_attempt = None

    def decline(self, customer: Customer) -> ApiError:
        """The answer to a request that needed a payment now."""
        message = (
            "This customer has no attached payment source or default payment method."
            if customer.card == "none"
            else "Your card was declined."
        )
        return ApiError(402, message, code="card_declined", kind="card_error", decline_code="generic_decline")
