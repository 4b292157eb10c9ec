"""The life of a subscription: begun, charged, renewed, past due, paused, canceled.

It decides which status follows from which payment, and says every change as an event. It must never roll a period or
end a subscription at any other moment than the one it was due (`schedule` calls it then, with the clock held).
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from admin.simulator.entities import Line
from admin.simulator.invoicing import DEBITS, Invoicing, Settings
from admin.simulator.periods import end_of_period
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.simulator.clock import SimulatedClock
    from admin.simulator.entities import Customer, Invoice, Item, Status, Subscription
    from admin.simulator.journal import Journal
    from admin.simulator.store import Store

INCOMPLETE_SECONDS = 23 * 3600
TRIAL_NOTICE_SECONDS = 3 * 86400


class Billing:
    """What happens to subscriptions, whoever asked for it: the API, a page, or the clock."""

    def __init__(self, store: Store, clock: SimulatedClock, journal: Journal) -> None:
        self.store = store
        self.settings = Settings()
        self.invoicing = Invoicing(store, clock, journal)
        self._clock = clock
        self._journal = journal
        self.on_debit_ended: Callable[[Invoice], None] = lambda _invoice: None

    @property
    def now(self) -> int:
        """Whole simulated seconds, as Stripe counts."""
        return int(self._clock.now())

    # Beginning

    def begin(self, subscription: Subscription, *, paid_already: bool, charge: bool) -> None:
        """Take a new subscription into the books with its first invoice.

        `paid_already`: Checkout made it after the payment, so it is never seen `incomplete`. Otherwise it is charged at
        once, unless `charge` is false (`payment_behavior=default_incomplete`).
        """
        self.store.subscriptions[subscription.id] = subscription
        if subscription.trial_end is not None:
            subscription.status = "trialing"
        elif paid_already or subscription.collection_method == "send_invoice":
            subscription.status = "active"
        lines = [self.line(item, free=subscription.status == "trialing") for item in subscription.items]
        invoice = self.invoicing.draft(subscription, "subscription_create", lines, finalizes_in=0)
        if not paid_already:
            self._journal.say("customer.subscription.created", subscription)
        self.invoicing.finalize(invoice, days_until_due=subscription.days_until_due)
        if paid_already:
            if self.store.customers[subscription.customer].card not in DEBITS or invoice.amount_due == 0:
                self.invoicing.settle(invoice)
            self._journal.say("customer.subscription.created", subscription)
            if invoice.status == "open":  # a debit is under way: active, and not paid yet
                self.collect(invoice)
        elif invoice.amount_due == 0 or (charge and subscription.collection_method == "charge_automatically"):
            self.collect(invoice)
        else:
            invoice.next_payment_attempt = None

    # Payments

    def collect(self, invoice: Invoice) -> bool:
        """Finalize if need be, charge once, and let the subscription follow. True when paid."""
        if invoice.status == "draft":
            self.invoicing.finalize(invoice)
        if invoice.status not in ("open", "uncollectible"):
            raise ApiError(400, f"Invoice is {invoice.status}, so it can't be paid.", code="invoice_not_editable")
        match self.invoicing.attempt(invoice):
            case "paid":
                self.after_payment(invoice)
                return True
            case "pending":
                # As Stripe does with methods that take days: nothing is withheld meanwhile.
                subscription = self.store.subscriptions[invoice.subscription]
                if subscription.status == "incomplete":
                    self._to(subscription, "active")
            case "failed":
                self._after_failure(invoice)
        return False

    def end_debit(self, invoice: Invoice) -> None:
        """A debit is there, or came back. The first one that comes back is void, and the subscription stays active."""
        if self.invoicing.end_debit(invoice):
            self.after_payment(invoice)
        elif invoice.billing_reason == "subscription_create":
            self._journal.say("invoice.payment_failed", invoice)
            self.invoicing.void(invoice)
        else:
            self._after_failure(invoice)
        self.on_debit_ended(invoice)

    def pay_now(self, invoice: Invoice) -> bool:
        """A payment that somebody asked for: beyond the first it never counts as one of the automatic retries."""
        if invoice.status == "draft":
            self.invoicing.finalize(invoice)
        planned, attempts = invoice.next_payment_attempt, invoice.attempts
        if invoice.settles_at is not None:
            raise ApiError(400, "A debit for this invoice is under way; it takes days.")
        outcome = self.invoicing.attempt(invoice) if invoice.status in ("open", "uncollectible") else "failed"
        if outcome == "paid":
            self.after_payment(invoice)
        if outcome != "failed":
            return True
        if invoice.status not in ("open", "uncollectible"):
            raise ApiError(400, f"Invoice is {invoice.status}, so it can't be paid.", code="invoice_not_editable")
        invoice.next_payment_attempt, invoice.attempts = planned, max(1, attempts)
        self._journal.say("invoice.payment_failed", invoice)
        return False

    def after_payment(self, invoice: Invoice) -> None:
        """The subscription after one of its invoices was paid."""
        subscription = self.store.subscriptions[invoice.subscription]
        pending = subscription.pending_update
        if pending is not None and pending.invoice == invoice.id:
            with self._journal.changing("customer.subscription.pending_update_applied", subscription):
                subscription.items, subscription.pending_update = pending.items, None
        if subscription.status == "paused" and _resumes(subscription, invoice):
            self.unpause(subscription)
        if subscription.status == "incomplete":
            self._to(subscription, "active")
        self.follow_invoices(subscription)

    def follow_invoices(self, subscription: Subscription) -> None:
        """Leave `past_due` or `unpaid` once the latest finalized invoice that is not void is no longer owed."""
        if subscription.status not in ("past_due", "unpaid"):
            return
        counting = [one for one in self.store.invoices_of(subscription.id) if one.status not in ("draft", "void")]
        if not counting or counting[-1].status in ("paid", "uncollectible"):
            self._to(subscription, "active")

    def _after_failure(self, invoice: Invoice) -> None:
        subscription = self.store.subscriptions[invoice.subscription]
        gaps = self.settings.retry_days
        retries = subscription.status in ("active", "trialing", "past_due") and invoice.auto_advance
        if retries and invoice.attempts <= len(gaps):
            invoice.next_payment_attempt = self.now + int(gaps[invoice.attempts - 1] * 86400)
        self._journal.say("invoice.payment_failed", invoice)
        if not retries:
            return
        if subscription.status != "past_due":
            self._to(subscription, "past_due")
        if invoice.next_payment_attempt is not None:
            return
        match self.settings.after_final_failure:
            case "canceled":
                self.cancel(subscription, reason="payment_failed")
            case "unpaid":
                self._to(subscription, "unpaid")
            case "paused":
                self.pause(subscription, "final_payment_failure")
            case "past_due":
                pass

    # Time

    def renew(self, subscription: Subscription) -> None:
        """Roll every item whose period has ended, and bill the next one; the charge follows an hour later."""
        now = self.now
        due = [item for item in subscription.items if item.period_end <= now]
        trial_over = subscription.status == "trialing"
        card = self.store.customers[subscription.customer].card
        if trial_over and card == "none" and subscription.missing_payment_method != "create_invoice":
            if subscription.missing_payment_method == "pause":
                self.pause(subscription, "trial_end_without_payment_method")
            else:
                self.cancel(subscription, reason=None)
            return
        with self._journal.changing("customer.subscription.updated", subscription):
            if trial_over:
                subscription.status = "active"
                subscription.anchor = now
            for item in due:
                if trial_over:
                    item.anchor = now
                self._roll(item, now if trial_over else item.period_end)
            unpaid = subscription.status == "unpaid"
            lines = [self.line(item) for item in due] + self._owed(subscription)
            self.invoicing.draft(
                subscription, "subscription_cycle", lines, finalizes_in=None if unpaid else self.settings.draft_seconds
            )

    def finalize_due(self, invoice: Invoice) -> None:
        """A draft whose hour is over: finalized, or put aside where collection is paused."""
        subscription = self.store.subscriptions[invoice.subscription]
        pause = subscription.pause_collection
        if pause is not None and pause.behavior == "keep_as_draft":
            invoice.auto_advance, invoice.finalizes_at = False, None
            return
        self.invoicing.finalize(invoice, days_until_due=subscription.days_until_due)
        if pause is not None:
            (self.invoicing.void if pause.behavior == "void" else self.invoicing.give_up)(invoice)
            self.follow_invoices(subscription)
        elif invoice.amount_due == 0 or invoice.collection_method == "charge_automatically":
            self.collect(invoice)

    def overdue(self, invoice: Invoice) -> None:
        """An invoice that was sent and not paid by its date."""
        subscription = self.store.subscriptions[invoice.subscription]
        self._journal.say("invoice.overdue", invoice)
        if subscription.status == "active":
            self._to(subscription, "past_due")

    def announce_trial_end(self, subscription: Subscription) -> None:
        """Three days before, or at once when the trial is shorter."""
        subscription.trial_end_announced = True
        self._journal.say("customer.subscription.trial_will_end", subscription)

    def expire_incomplete(self, subscription: Subscription) -> None:
        """The first payment did not come within 23 hours."""
        for invoice in self.store.invoices_of(subscription.id):
            if invoice.status == "open":
                self.invoicing.void(invoice)
        self._to(subscription, "incomplete_expired")

    def drop_pending_update(self, subscription: Subscription) -> None:
        """A change that was not paid in time never happens."""
        pending = subscription.pending_update
        with self._journal.changing("customer.subscription.pending_update_expired", subscription):
            subscription.pending_update = None
        if pending is not None and self.store.invoices[pending.invoice].status == "open":
            self.invoicing.void(self.store.invoices[pending.invoice])
            self.follow_invoices(subscription)  # a void invoice counts no more: the one before it tells the status

    # Ending and pausing

    def plan_end(self, subscription: Subscription, at: int | None, *, at_period_end: bool = False) -> None:
        """Name or take back the moment at which the subscription will end."""
        with self._journal.changing("customer.subscription.updated", subscription):
            self.set_planned_end(subscription, at, at_period_end=at_period_end)

    def set_planned_end(self, subscription: Subscription, at: int | None, *, at_period_end: bool) -> None:
        """As `plan_end`, within a change that is said elsewhere. `canceled_at` is when it was asked for."""
        subscription.cancel_at = at
        subscription.cancel_at_period_end = at_period_end
        subscription.canceled_at = self.now if at is not None else None
        subscription.cancellation_reason = "cancellation_requested" if at is not None else None

    def cancel(self, subscription: Subscription, *, reason: str | None = "cancellation_requested") -> None:
        """End it now. Its items keep the period that was paid for, which is still in the future."""
        now = self.now
        subscription.status = "canceled"
        subscription.ended_at = now
        if subscription.canceled_at is None:
            subscription.canceled_at = now
        subscription.cancellation_reason = reason
        subscription.pending_update = None
        subscription.paused_at = subscription.paused_by = None
        self.invoicing.stop_collecting(subscription)
        self._journal.say("customer.subscription.deleted", subscription)

    def delete_customer(self, customer: Customer) -> None:
        """Whatever runs ends at once; a stump of the customer is left."""
        for subscription in self.store.subscriptions_of(customer.id):
            if not subscription.ended:
                self.cancel(subscription)
        self._journal.say("customer.deleted", customer)
        customer.deleted = True

    def pause(self, subscription: Subscription, why: str) -> None:
        """Service stops: status `paused`, and the period ends here."""
        with self._journal.changing("customer.subscription.updated", subscription):
            subscription.status = "paused"
            subscription.paused_at = self.now
            subscription.paused_by = why
            for item in subscription.items:
                item.period_end = max(item.period_start, min(item.period_end, self.now))
        self.invoicing.stop_collecting(subscription)
        self._journal.say("customer.subscription.paused", subscription)

    def resume(self, subscription: Subscription, *, wait_for_payment: bool) -> None:
        """Bill a new period from now on. Until it is paid it stays paused, unless `wait_for_payment` is false."""
        with self._journal.changing("customer.subscription.updated", subscription):
            for item in subscription.items:
                self._restart(item)
            subscription.anchor = self.now
            lines = [self.line(item) for item in subscription.items] + self._owed(subscription)
            invoice = self.invoicing.draft(subscription, "subscription_update", lines, finalizes_in=0)
        if not wait_for_payment:
            self.unpause(subscription)
        self.collect(invoice)

    def unpause(self, subscription: Subscription) -> None:
        """Status `active` again, with the period that was paid for, which the pause had cut short."""
        with self._journal.changing("customer.subscription.updated", subscription):
            for item in subscription.items:
                item.period_end = self.period_from(item.price, item.anchor, item.period_start)
            subscription.status = "active"
            subscription.paused_at = subscription.paused_by = None
        self._journal.say("customer.subscription.resumed", subscription)

    # Shared arithmetic

    def period_from(self, item_price: str, anchor: int, after: int) -> int:
        """The end of the period of `item_price` that is running just after `after`."""
        price = self.store.prices[item_price]
        if price.interval is None:
            raise ApiError(
                400, f"The price {price.id} is one-time; a subscription needs a recurring one.", param="price"
            )
        return end_of_period(anchor, after, price.interval, price.interval_count)

    def _roll(self, item: Item, start: int) -> None:
        item.period_start = start
        item.period_end = self.period_from(item.price, item.anchor, start)

    def _restart(self, item: Item) -> None:
        item.anchor = self.now
        self._roll(item, self.now)

    def line(self, item: Item, *, free: bool = False) -> Line:
        """What an item costs for its period."""
        price = self.store.prices[item.price]
        name = self.store.products[price.product].name
        return Line(
            id=self.store.new_id("il"),
            description=f"Trial period for {name}" if free else f"{item.quantity} x {name}",
            amount=0 if free else price.unit_amount * item.quantity,
            period_start=item.period_start,
            period_end=item.period_end,
            price=item.price,
            item=item.id,
            quantity=item.quantity,
        )

    def _owed(self, subscription: Subscription) -> list[Line]:
        """The lines for changes of plan that were left for the next invoice."""
        lines, subscription.owed_prorations = subscription.owed_prorations, []
        return lines

    def _to(self, subscription: Subscription, status: Status) -> None:
        with self._journal.changing("customer.subscription.updated", subscription):
            subscription.status = status

    def copies(self, subscription: Subscription) -> list[Item]:
        """The items, to be changed without changing the subscription yet."""
        return deepcopy(subscription.items)


def _resumes(subscription: Subscription, invoice: Invoice) -> bool:
    """Whether paying this invoice ends the pause: it is the one that failed into it, or that of a resumption."""
    if invoice.id != subscription.latest_invoice:
        return False
    resumption = invoice.billing_reason == "subscription_update" and invoice.created >= (subscription.paused_at or 0)
    return resumption or subscription.paused_by == "final_payment_failure"
