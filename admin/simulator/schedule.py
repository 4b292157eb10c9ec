"""What falls due when: expiring sessions, renewals, charges, retries, planned ends.

It decides the order (by due time, ends before renewals) and holds the clock at each moment while it is worked off. It
must never skip one: a clock moved by a year renews a monthly subscription twelve times.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from admin.simulator.billing import INCOMPLETE_SECONDS, TRIAL_NOTICE_SECONDS
from admin.simulator.entities import CheckoutSession, Invoice, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from admin.simulator.billing import Billing
    from admin.simulator.clock import SimulatedClock
    from admin.simulator.entities import Entity
    from admin.simulator.journal import Journal
    from admin.simulator.store import Store

MOST_AT_ONE_MOMENT: Final = 50
"""How often one object may be due again at the same second, before that is a mistake of ours and not of the world."""

Due = CheckoutSession | Subscription | Invoice


class Schedule:
    """Works off everything that is due."""

    def __init__(self, store: Store, clock: SimulatedClock, journal: Journal, billing: Billing) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        self._billing = billing
        self._reached = 0.0
        self._order = 0
        self._heap: list[tuple[int, int, str]] = []

    def watch(self, one: Entity) -> None:
        """Remember when `one` is due next. To be told of everything that may have changed its due time."""
        due = self._due_at(one) if isinstance(one, Due) else None
        if due is not None:
            self._order += 1
            heapq.heappush(self._heap, (due, self._order, one.id))

    def watch_everything(self) -> None:
        """Look through all the books anew: a change that was not told of is found at the latest when the clock is moved."""
        self._heap.clear()
        for one in self._all():
            self.watch(one)

    def catch_up(self) -> None:
        """Bring the books to the present."""
        now = self._clock.now()
        repeated: tuple[int, str, int] = (-1, "", 0)
        while self._heap and self._heap[0][0] <= now:
            moment, _, identifier = heapq.heappop(self._heap)
            one = self._named(identifier)
            if self._due_at(one) != moment:
                continue  # already worked off, or moved by something before it
            repeated = (moment, identifier, repeated[2] + 1 if repeated[:2] == (moment, identifier) else 1)
            if repeated[2] > MOST_AT_ONE_MOMENT:
                raise RuntimeError(f"{identifier} stays due at {moment}: nothing that was done moved it on")
            # What was planned late, such as the notice of a trial that was cut short, happens late: time never goes back.
            self._reached = max(self._reached, moment)
            with self._clock.held_at(self._reached):
                self._act(one)
            for touched in self._touched(one):
                self.watch(touched)
        self._reached = max(self._reached, now)
        self._store.forget_old_events(now)

    def _all(self) -> Iterator[Due]:
        yield from self._store.sessions.values()
        # Subscriptions come before invoices: at the same second, a planned end beats the charge.
        yield from self._store.subscriptions.values()
        yield from self._store.invoices.values()

    def _named(self, identifier: str) -> Due:
        store = self._store
        return store.sessions.get(identifier) or store.subscriptions.get(identifier) or store.invoices[identifier]

    def _touched(self, one: Due) -> Iterable[Due]:
        if isinstance(one, CheckoutSession):
            return ()
        subscription = one if isinstance(one, Subscription) else self._store.subscriptions[one.subscription]
        return (subscription, *self._store.invoices_of(subscription.id))

    def _due_at(self, one: Due) -> int | None:
        if isinstance(one, CheckoutSession):
            return one.expires_at if one.status == "open" else None
        if isinstance(one, Invoice):
            return _invoice_due(one)
        return _subscription_due(one)

    def _act(self, one: Due) -> None:
        if isinstance(one, CheckoutSession):
            one.status = "expired"
            self._journal.say("checkout.session.expired", one)
        elif isinstance(one, Invoice):
            self._act_on_invoice(one)
        else:
            self._act_on_subscription(one)

    def _act_on_invoice(self, invoice: Invoice) -> None:
        if invoice.status == "draft":
            self._billing.finalize_due(invoice)
        elif invoice.settles_at is not None:
            self._billing.end_debit(invoice)
        elif invoice.next_payment_attempt is not None:
            self._billing.collect(invoice)
        else:
            invoice.auto_advance = False  # said once
            self._billing.overdue(invoice)

    def _act_on_subscription(self, subscription: Subscription) -> None:
        now, billing = self._billing.now, self._billing
        if subscription.status == "incomplete":
            billing.expire_incomplete(subscription)
        elif subscription.cancel_at is not None and subscription.cancel_at <= now:
            billing.cancel(subscription)
        elif subscription.pause_collection is not None and (subscription.pause_collection.resumes_at or now + 1) <= now:
            with self._journal.changing("customer.subscription.updated", subscription):
                subscription.pause_collection = None
        elif subscription.pending_update is not None and subscription.pending_update.expires_at <= now:
            billing.drop_pending_update(subscription)
        elif (
            _notice_due(subscription) is not None
            and subscription.trial_end is not None
            and now < subscription.trial_end
        ):
            billing.announce_trial_end(subscription)
        else:
            billing.renew(subscription)


def _invoice_due(invoice: Invoice) -> int | None:
    if invoice.status == "draft":
        return invoice.finalizes_at
    if invoice.status != "open":
        return None
    if invoice.settles_at is not None:
        return invoice.settles_at
    if invoice.collection_method == "send_invoice":
        return invoice.due_date if invoice.auto_advance else None
    return invoice.next_payment_attempt


def _notice_due(subscription: Subscription) -> int | None:
    if subscription.status != "trialing" or subscription.trial_end is None or subscription.trial_end_announced:
        return None
    return max(subscription.created, subscription.trial_end - TRIAL_NOTICE_SECONDS)


def _subscription_due(subscription: Subscription) -> int | None:
    if subscription.ended:
        return None
    if subscription.status == "incomplete":
        return subscription.created + INCOMPLETE_SECONDS
    moments = [subscription.cancel_at]
    if subscription.pause_collection is not None:
        moments.append(subscription.pause_collection.resumes_at)
    if subscription.pending_update is not None:
        moments.append(subscription.pending_update.expires_at)
    if subscription.status != "paused":
        moments.append(_notice_due(subscription))
        moments.extend(item.period_end for item in subscription.items)
    return min((moment for moment in moments if moment is not None), default=None)
