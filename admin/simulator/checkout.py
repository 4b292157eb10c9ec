"""What a payment on the Checkout page makes: customer, subscription, paid invoice, and a session that is complete.

It decides that a session is paid at most once and that a declined card leaves nothing behind. It must never make a
subscription before the money is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.entities import Customer, Item, Subscription
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from admin.simulator.billing import Billing
    from admin.simulator.entities import Card, CheckoutSession, Event, Invoice
    from admin.simulator.journal import Journal


class Checkout:
    """Completes and expires sessions."""

    def __init__(self, billing: Billing, journal: Journal) -> None:
        self._billing = billing
        self._journal = journal
        billing.on_debit_ended = self.follow_debit

    def pay(self, session: CheckoutSession, *, card: Card, email: str | None) -> Event:
        """The payment went through; `card` is how it will behave from now on. Returns `checkout.session.completed`."""
        if session.status != "open":
            raise ApiError(400, f"This Checkout session is {session.status}, so it can't be paid.")
        billing, store = self._billing, self._billing.store
        customer = (
            store.live_customer(session.customer) if session.customer is not None else self._customer(session, email)
        )
        customer.card = card
        subscription = self._subscription(session, customer)
        billing.begin(subscription, paid_already=True, charge=False)
        session.customer = customer.id
        session.subscription = subscription.id
        session.invoice = subscription.latest_invoice
        session.status = "complete"
        is_paid = billing.store.invoices[str(session.invoice)].status == "paid"
        session.payment_status = (
            ("paid" if is_paid else "unpaid") if subscription.trial_end is None else "no_payment_required"
        )
        return self._journal.say("checkout.session.completed", session)

    def follow_debit(self, invoice: Invoice) -> None:
        """What became of the debit by which a session was paid; to be told of every debit that ends."""
        session = next((one for one in self._billing.store.sessions.values() if one.invoice == invoice.id), None)
        if session is None:
            return
        if invoice.status == "paid":
            session.payment_status = "paid"
        self._journal.say(
            f"checkout.session.async_payment_{'succeeded' if invoice.status == 'paid' else 'failed'}", session
        )

    def expire(self, session: CheckoutSession) -> None:
        """Nobody can pay it any more."""
        if session.status != "open":
            raise ApiError(
                400, f'Only Checkout Sessions with a status in ["open"] can be expired; this one is {session.status}.'
            )
        session.status = "expired"
        self._journal.say("checkout.session.expired", session)

    def _customer(self, session: CheckoutSession, email: str | None) -> Customer:
        store = self._billing.store
        customer = Customer(store.new_id("cus"), self._billing.now, email=session.customer_email or email)
        store.customers[customer.id] = customer
        self._journal.say("customer.created", customer)
        return customer

    def _subscription(self, session: CheckoutSession, customer: Customer) -> Subscription:
        billing, now = self._billing, self._billing.now
        trial_end = session.trial_end
        if trial_end is None and session.trial_days is not None:
            trial_end = now + session.trial_days * 86400
        prices = billing.store.prices
        items = [
            Item(
                id=billing.store.new_id("si"),
                price=line.price,
                quantity=line.quantity,
                created=now,
                anchor=trial_end or now,
                period_start=now,
                period_end=trial_end or billing.period_from(line.price, now, now),
            )
            for line in session.line_items
        ]
        return Subscription(
            id=billing.store.new_id("sub"),
            customer=customer.id,
            currency=prices[session.line_items[0].price].currency,
            created=now,
            anchor=trial_end or now,
            items=items,
            description=session.subscription_description,
            metadata=dict(session.subscription_metadata),
            trial_start=now if trial_end is not None else None,
            trial_end=trial_end,
            missing_payment_method=session.missing_payment_method,
        )
