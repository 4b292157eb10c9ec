"""Tells the oracle what happened in the simulated world, from its books: bills, payments, failures, pauses and ends.

It must never pass on a subscription's status or anything rendered for the wire: those are what the oracle is to judge.
After each step it keeps what was open to each payer, so that a later answer can be held against every state of the
world that the gateway may have seen.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from admin.rehearsal.oracle import NOTHING, Bought, Opening, Oracle
from admin.rehearsal.tally import TierAccount

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.rehearsal.terms import Terms
    from admin.simulator import Simulator
    from admin.simulator.entities import Event, Invoice, Subscription
    from admin.simulator.entities_money import Charge

_MONEY_IS_GONE: Final = ("needs_response", "under_review", "lost")
"""Of disputes: while the bank hasn't decided it has the money; an inquiry moves none."""


class Chronicle:
    """Listens in on one simulator, from its beginning. `then` is told of every event afterwards."""

    def __init__(self, simulator: Simulator, terms: Terms, then: Callable[[Event], None]) -> None:
        self._world = simulator.world
        self._then = then
        self.oracle = Oracle(terms.leniency, terms.ranks)
        self._touched: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.sales: dict[int, TierAccount] = {}
        self._tier_of: dict[str, int] = {}
        self.states: dict[str, list[tuple[Opening, ...]]] = {}
        """Of each payer: what was open after each step in which something happened, oldest first."""
        self.state_after: dict[str, int] = {}
        """Of each event: which of its payer's states was there once its step was over."""
        self.latest: deque[Event] = deque(maxlen=50)
        self._unplaced: list[Event] = []
        self._world.journal.on_event = self._hear
        # A charge that fails by itself and one that somebody asked for say the same event; only the first is a default.
        self._after_failure = self._world.billing._after_failure
        self._world.billing._after_failure = self._collection_failed  # type: ignore[method-assign]

    @property
    def events_so_far(self) -> int:
        """How many there were, by their own numbers."""
        return self._world.journal.count

    def keep(self) -> None:
        """The step is over: nobody could look in between, from now on anybody can."""
        # A page leaves what it made due at this very second to whoever calls next.
        self._world.schedule.catch_up()
        for payer in sorted(self._touched):
            for subscription in self._world.store.subscriptions_of(payer):
                self._note_sale(subscription)
            openings = self.oracle.openings(payer)
            kept = self.states.setdefault(payer, [()])
            if kept[-1] != openings:
                kept.append(openings)
        self._touched.clear()
        for event in self._unplaced:
            self.state_after[event.id] = len(self.states.get(self.payer_of(event), [()])) - 1
        self.latest.extend(self._unplaced)
        self._unplaced.clear()

    def payer_of(self, event: Event) -> str:
        """Whom an event is about; its own object's id where that is nobody's."""
        about = event.object
        charge = self._world.store.charges.get(str(about.get("charge")))
        return str(about.get("customer") or (charge.customer if charge else about["id"]))

    def odd(self, subscription: Subscription, *, is_odd: bool) -> None:
        """Stripe calls its status by a word that nobody has heard of, or no longer does."""
        self._touched.add(subscription.customer)
        self.oracle.odd(subscription.id, is_odd=is_odd)

    def _hear(self, event: Event) -> None:
        about, store = event.object, self._world.store
        if event.type == "customer.deleted":
            self.oracle.payer_gone(about["id"])
            self._touched.add(about["id"])
        elif event.type.startswith("customer.subscription."):
            self._hear_of_subscription(event.type, store.subscriptions[about["id"]])
        elif event.type.startswith("invoice."):
            self._hear_of_invoice(event.type, store.invoices[about["id"]])
        elif event.type.startswith("charge."):
            self._hear_of_charge(store.charges[about.get("charge") or about["id"]])
        elif event.type == "entitlements.active_entitlement_summary.updated":
            keys = frozenset(one.lookup_key for one in store.entitlements_of(about["customer"]))
            self.oracle.came_with(about["customer"], keys)
        self.kinds[event.type] += 1
        self._unplaced.append(event)
        self._then(event)

    def _hear_of_subscription(self, kind: str, subscription: Subscription) -> None:
        self._touched.add(subscription.customer)
        on_credit = subscription.trial_end is not None or subscription.collection_method == "send_invoice"
        self.oracle.agreed(subscription.id, subscription.customer, begun=subscription.created, on_credit=on_credit)
        match kind:
            case "customer.subscription.deleted":
                self.oracle.ended(subscription.id)
            case "customer.subscription.paused":
                self.oracle.paused(subscription.id)
            case "customer.subscription.resumed":
                self.oracle.resumed(subscription.id)
            case _:
                pass

    def _hear_of_invoice(self, kind: str, invoice: Invoice) -> None:
        self._touched.add(invoice.customer)
        begun = self._world.store.subscriptions[invoice.subscription].created
        self.oracle.agreed(invoice.subscription, invoice.customer, begun=begun)
        match kind:
            case "invoice.created":
                self.oracle.drafted(invoice.subscription, invoice.id, invoice.created, _change_billed(invoice))
            case "invoice.finalized":
                is_free = invoice.billing_reason == "subscription_update" and invoice.amount_due == 0
                self.oracle.billed(invoice.subscription, invoice.id, invoice.due_date, is_free_change=is_free)
            case "invoice.paid":
                self.oracle.paid(invoice.subscription, invoice.id)
            case "invoice.voided":
                self.oracle.voided(invoice.subscription, invoice.id)
            case "invoice.marked_uncollectible":
                self.oracle.written_off(invoice.subscription, invoice.id)
            case "invoice.overdue":
                self.oracle.not_collected(invoice.subscription, given_up=False)
            case _:
                pass

    def _hear_of_charge(self, charge: Charge) -> None:
        self._touched.add(charge.customer)
        gone = any(one.status in _MONEY_IS_GONE for one in self._world.store.disputes_of(charge.id))
        agreement = self._world.store.invoices[charge.invoice].subscription
        self.oracle.taken_back(agreement, charge.invoice, refunded=charge.refunded, disputed=gone)

    def _collection_failed(self, invoice: Invoice) -> None:
        settings = self._world.billing.settings
        if invoice.auto_advance:
            last = invoice.attempts > len(settings.retry_days)
            self.oracle.not_collected(invoice.subscription, given_up=last and settings.after_final_failure == "unpaid")
        self._touched.add(invoice.customer)
        self._after_failure(invoice)

    def _note_sale(self, subscription: Subscription) -> None:
        trial = subscription.trial_end
        bought = tuple(
            Bought(
                item.price,
                item.quantity,
                item.period_start,
                item.period_end,
                is_free=trial is not None and item.period_end <= trial,
            )
            for item in subscription.items
        )
        pending = subscription.pending_update
        wish = pending.invoice if pending is not None else None
        self.oracle.sold(subscription.id, bought, subscription.cancel_at, wish)
        self._account(subscription.id)

    def _account(self, agreement: str) -> None:
        """Count it as bought, upgraded or ended, once each time it comes to that."""
        before, rank = self._tier_of.get(agreement, NOTHING), self.oracle.rank_of(agreement)
        if self.oracle.is_over(agreement):
            if before != NOTHING:
                self.sales.setdefault(before, TierAccount()).ended += 1
                self._tier_of[agreement] = NOTHING
        elif rank != NOTHING:
            account = self.sales.setdefault(rank, TierAccount())
            account.bought += before == NOTHING
            account.upgraded += NOTHING < before < rank
            self._tier_of[agreement] = rank


def _change_billed(invoice: Invoice) -> frozenset[tuple[str, int]]:
    """What a change of plan is charged for, price and quantity; nothing of any other bill."""
    if invoice.billing_reason != "subscription_update":
        return frozenset()
    return frozenset(
        (line.price, line.quantity)
        for line in invoice.lines
        if line.amount > 0 and line.price is not None and line.quantity is not None
    )
