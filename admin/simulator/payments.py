"""Money that is taken and given back: charges, refunds, disputes.

It decides what may be refunded or disputed. It must never touch a subscription or invoice: a refund or dispute changes
no status, as with Stripe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from admin.simulator.entities_money import Charge, Dispute, InvoicePayment, Refund
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from admin.simulator.clock import SimulatedClock
    from admin.simulator.entities import Invoice
    from admin.simulator.entities_money import ChargeStatus, DisputeStatus
    from admin.simulator.journal import Journal
    from admin.simulator.store import Store

REFUND_REASONS: Final = ("duplicate", "fraudulent", "requested_by_customer")
DISPUTE_REASONS: Final = (
    "credit_not_processed", "duplicate", "fraudulent", "general", "product_not_received", "product_unacceptable",
    "subscription_canceled", "unrecognized",
)  # fmt: skip


class Payments:
    """Takes money and gives it back."""

    def __init__(self, store: Store, clock: SimulatedClock, journal: Journal) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal

    @property
    def _now(self) -> int:
        return int(self._clock.now())

    def expect(self, invoice: Invoice) -> None:
        """A finalized invoice of more than nothing is to be paid by a payment of its own."""
        if invoice.amount_due == 0:
            return
        intent = self._store.new_id("pi")
        payment = InvoicePayment(
            self._store.new_id("inpay"), invoice.id, invoice.currency, invoice.amount_due, self._now, intent
        )
        self._store.invoice_payments[payment.id] = payment

    def charge(self, invoice: Invoice, status: ChargeStatus) -> None:
        """One attempt, or the end of one that was pending. Nothing is charged for an invoice of nothing."""
        payment = self._payment_of(invoice)
        if payment is None:
            return
        if status == "succeeded" and self.end_pending(invoice, status):
            payment.status, payment.paid_at = "paid", self._now
            return
        charge = Charge(
            id=self._store.new_id("ch"),
            customer=invoice.customer,
            invoice=invoice.id,
            payment_intent=payment.payment_intent,
            currency=invoice.currency,
            amount=payment.amount,
            created=self._now,
            status=status,
        )
        self._store.charges[charge.id] = charge
        if status == "succeeded":
            payment.status, payment.paid_at = "paid", self._now

    def end_pending(self, invoice: Invoice, status: ChargeStatus) -> bool:
        """The debit that is under way ends so; whether there was one."""
        pending = [one for one in self._store.charges_of(invoice.id) if one.status == "pending"]
        for one in pending:
            one.status = status
        return bool(pending)

    def forgo(self, invoice: Invoice) -> None:
        """Nothing will be taken for this invoice by card: it was paid elsewhere, or is void."""
        self.end_pending(invoice, "failed")
        payment = self._payment_of(invoice)
        if payment is not None:
            payment.status, payment.canceled_at = "canceled", self._now

    def refund(self, charge: Charge, amount: int | None, reason: str | None, metadata: dict[str, str]) -> Refund:
        """Give back `amount`, by default what is left of the charge."""
        left = charge.amount - charge.amount_refunded
        if charge.status != "succeeded":
            raise ApiError(400, f"Charge {charge.id} did not succeed, so it can't be refunded.", param="charge")
        if left == 0:
            raise ApiError(
                400, f"Charge {charge.id} has already been refunded.", code="charge_already_refunded", param="charge"
            )
        if any(not one.is_inquiry for one in self._store.disputes_of(charge.id)):
            raise ApiError(
                400, f"Charge {charge.id} has been charged back; cannot issue a refund.", code="charge_disputed"
            )
        wanted = left if amount is None else amount
        if not 0 < wanted <= left:
            raise ApiError(
                400, f"Refund amount ({wanted}) is greater than unrefunded amount on charge ({left})", param="amount"
            )
        refund = Refund(
            id=self._store.new_id("re"),
            charge=charge.id,
            payment_intent=charge.payment_intent,
            customer=charge.customer,
            currency=charge.currency,
            amount=wanted,
            created=self._now,
            reason=reason,
            metadata=metadata,
        )
        self._store.refunds[refund.id] = refund
        self._journal.say("refund.created", refund)
        with self._journal.changing("charge.refunded", charge):
            charge.amount_refunded += wanted
        return refund

    def dispute(self, charge: Charge, status: DisputeStatus, reason: str) -> Dispute:
        """The cardholder's bank wants the money back, or asks first (`warning_needs_response`)."""
        if charge.status != "succeeded":
            raise ApiError(400, f"Charge {charge.id} did not succeed, so it can't be disputed.", param="charge")
        if any(one.is_open or not one.is_inquiry for one in self._store.disputes_of(charge.id)):
            raise ApiError(400, f"Charge {charge.id} is disputed already.", param="charge")
        dispute = Dispute(
            id=self._store.new_id("dp"),
            charge=charge.id,
            payment_intent=charge.payment_intent,
            currency=charge.currency,
            amount=charge.amount,
            created=self._now,
            reason=reason,
            status=status,
        )
        self._store.disputes[dispute.id] = dispute
        charge.disputed = True
        self._journal.say("charge.dispute.created", dispute)
        return dispute

    def close(self, dispute: Dispute, status: DisputeStatus) -> None:
        """The bank has decided; an inquiry can only end as `warning_closed`."""
        if not dispute.is_open:
            raise ApiError(400, f"This dispute is already {dispute.status}.")
        if dispute.is_inquiry != status.startswith("warning_"):
            ends = "warning_closed" if dispute.is_inquiry else "won or lost"
            raise ApiError(400, f"This dispute is {dispute.status}; it can end as {ends}.", param="status")
        with self._journal.changing("charge.dispute.closed", dispute):
            dispute.status = status

    def last_paid(self, subscription: str) -> Charge | None:
        """The charge that paid the newest paid invoice of a subscription."""
        for invoice in reversed(self._store.invoices_of(subscription)):
            paid = [one for one in self._store.charges_of(invoice.id) if one.status == "succeeded"]
            if invoice.status == "paid" and paid:
                return paid[-1]
        return None

    def _payment_of(self, invoice: Invoice) -> InvoicePayment | None:
        open_ones = (one for one in self._store.payments_of(invoice.id) if one.status == "open")
        return next(open_ones, None)
