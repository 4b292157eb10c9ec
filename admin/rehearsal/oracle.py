"""Who should have what, worked out from money alone: what was bought, billed, paid, left unpaid, paused and ended, when.

The second opinion of the campaign and of `gateway rehearse`. It is told happenings, never a subscription's `status`, and rebuilds the
rest by section 5 of the design, written anew: it must never import policies, gateway or admin, or it would share the
mistakes that it is here to find. All times are UTC seconds.

    on credit (a trial, an invoice by mail) or paid once   open until what was billed ends, plus the leeway
    an end is planned                                      exactly then, but never later than the line above
    a collection failed, or a bill went overdue            open until the oldest open bill's date plus the grace;
                                                           settled when the newest bill that counts is
    given up, paused, ended, payer gone                    nothing
    in a state that nobody has heard of                    nothing

Where the merchant asks for it: an agreement in good standing whose newest bill isn't paid is open only as late as a renewal
may be, from when its stretch began, and in its first stretch never; a bill for a change that never came says nothing; and nothing is open while the money of the newest
paid bill was taken back. A trial needs no money.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal

NOTHING: Final = -1
"""The rank of a price that opens no tier."""


@dataclass(frozen=True, slots=True)
class Leniency:
    """How late money may be, in seconds. `own_graces` are of prices whose tier has a grace of its own."""

    leeway: float
    grace: float
    own_graces: Mapping[str, float] = field(default_factory=dict)
    only_paid: bool = False
    refunds_end: bool = False
    disputes_end: bool = False


@dataclass(frozen=True, slots=True)
class Bought:
    """One price, and the stretch of time that was last billed for it."""

    price: str
    quantity: int
    since: int
    until: int
    is_free: bool = False
    """A trial: this stretch costs nothing."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Access to the tier of `rank` until `until`, exclusive, for so many seats. NOTHING is paid for, but opens none."""

    rank: int
    until: float
    seats: int = 1


@dataclass(frozen=True, slots=True)
class Overdue:
    """Access to the tier of `rank` in spite of a bill that was left open, owed for so many seconds by now."""

    rank: int
    unpaid: float


class Trust(Enum):
    """How an agreement stands with its payer."""

    UNPROVEN = auto()
    GOOD = auto()
    BEHIND = auto()
    GIVEN_UP = auto()
    PAUSED = auto()
    ENDED = auto()


@dataclass(slots=True)
class Bill:
    """What is owed since `dated`, or payable until `due`. A draft is owed by nobody yet."""

    dated: int
    due: int | None = None
    state: Literal["draft", "open", "paid", "void", "written off"] = "draft"
    refunded: bool = False
    disputed: bool = False
    change_to: frozenset[tuple[str, int]] = frozenset()
    """Of a bill for a change of plan: the prices and quantities that it is about."""
    is_free_change: bool = False
    """Of a bill for a change of plan: nothing was asked for it, what was paid before is enough."""


@dataclass(slots=True)
class Agreement:
    """One thing that somebody subscribed to."""

    payer: str
    begun: int = 0
    trust: Trust = Trust.UNPROVEN
    bought: tuple[Bought, ...] = ()
    planned_end: int | None = None
    wish: str | None = None
    """The bill that has to be paid before a change comes true: until then all is as it was before."""
    is_odd: bool = False
    """The payment service has a word for how it stands that nobody has heard of."""
    bills: dict[str, Bill] = field(default_factory=dict)
    """In the order in which they were made: the newest decides, also where an older one became final after it."""


class Oracle:
    """Told what happened, in order; answers what is open."""

    def __init__(self, leniency: Leniency, ranks: Mapping[str, int]) -> None:
        self._leniency = leniency
        self._ranks, self._graces = dict(ranks), dict(leniency.own_graces)
        self._features: dict[str, frozenset[str]] = {}
        self.are_bills_readable = True
        """Whether a bill's date can be known at all: without, grace begins with the stretch that is owed for."""
        self._agreements: dict[str, Agreement] = {}

    # What happened

    def is_worth(self, price: str, rank: int, grace: float | None) -> None:
        """There is a new price, and this is what it buys, maybe with a grace of its own."""
        self._ranks[price] = rank
        if grace is not None:
            self._graces[price] = grace

    def agreed(self, agreement: str, payer: str, *, begun: int = 0, on_credit: bool = False) -> None:
        """There is such an agreement. On credit: it is served before anything was paid."""
        known = self._agreements.setdefault(agreement, Agreement(payer, begun))
        if on_credit and known.trust is Trust.UNPROVEN:
            known.trust = Trust.GOOD

    def sold(
        self, agreement: str, bought: tuple[Bought, ...], planned_end: int | None, wish: str | None = None
    ) -> None:
        """What is being paid for now, when it was agreed to end, if it was, and which bill a change waits for."""
        known = self._agreements[agreement]
        known.bought, known.planned_end, known.wish = bought, planned_end, wish

    def drafted(
        self, agreement: str, bill: str, dated: int, change_to: frozenset[tuple[str, int]] = frozenset()
    ) -> None:
        """A bill was made, and may still change."""
        self._agreements[agreement].bills[bill] = Bill(dated, change_to=change_to)

    def billed(self, agreement: str, bill: str, due: int | None, *, is_free_change: bool = False) -> None:
        """The bill is final and went out."""
        known = self._agreements[agreement].bills[bill]
        known.due, known.state, known.is_free_change = due, "open", is_free_change

    def paid(self, agreement: str, bill: str) -> None:
        """The money came."""
        known = self._agreements[agreement]
        known.bills[bill].state = "paid"
        if known.trust is Trust.UNPROVEN:
            known.trust = Trust.GOOD
        self._forgive(known)

    def voided(self, agreement: str, bill: str) -> None:
        """The bill counts no more, as if it had never been."""
        self._agreements[agreement].bills[bill].state = "void"
        self._forgive(self._agreements[agreement])

    def written_off(self, agreement: str, bill: str) -> None:
        """The merchant no longer expects the money."""
        self._agreements[agreement].bills[bill].state = "written off"
        self._forgive(self._agreements[agreement])

    def taken_back(self, agreement: str, bill: str, *, refunded: bool, disputed: bool) -> None:
        """How the money for a bill stands: all of it was given back, or the payer's bank has it or wants it."""
        known = self._agreements[agreement].bills[bill]
        known.refunded, known.disputed = refunded, disputed

    def came_with(self, payer: str, features: frozenset[str]) -> None:
        """What the payment service says that this payer may use, beside any tier."""
        self._features[payer] = features

    def not_collected(self, agreement: str, *, given_up: bool) -> None:
        """An automatic charge failed, or a bill by mail is overdue. Given up: it was the last try."""
        known = self._agreements[agreement]
        if known.trust in (Trust.GOOD, Trust.BEHIND):
            known.trust = Trust.GIVEN_UP if given_up else Trust.BEHIND

    def paused(self, agreement: str) -> None:
        """Service was stopped for a while."""
        self._agreements[agreement].trust = Trust.PAUSED

    def resumed(self, agreement: str) -> None:
        """Service goes on."""
        self._agreements[agreement].trust = Trust.GOOD

    def odd(self, agreement: str, *, is_odd: bool) -> None:
        """How it stands can't be understood, or can again."""
        self._agreements[agreement].is_odd = is_odd

    def ended(self, agreement: str) -> None:
        """For good."""
        self._agreements[agreement].trust = Trust.ENDED

    def payer_gone(self, payer: str) -> None:
        """Whoever paid was deleted, and all that they had."""
        for known in self._agreements.values():
            if known.payer == payer:
                known.trust = Trust.ENDED
        self._features.pop(payer, None)

    # What follows

    def openings(self, payer: str) -> tuple[Opening, ...]:
        """All that is open to this payer by what happened so far, if nothing more happens."""
        return tuple(
            Opening(self._ranks.get(one.price, NOTHING), until, one.quantity)
            for known in self._agreements.values()
            if known.payer == payer
            for one in known.bought
            if one.quantity > 0 and (until := self._open_until(known, one)) is not None
        )

    def features_of(self, payer: str) -> frozenset[str]:
        """What came with what they bought, as long as anything is open to them."""
        return self._features.get(payer, frozenset())

    def rank_of(self, agreement: str) -> int:
        """The highest tier that this agreement gives, whether its time is over or not; NOTHING when it gives none."""
        known = self._agreements[agreement]
        ranks = (
            self._ranks.get(one.price, NOTHING)
            for one in known.bought
            if one.quantity > 0 and self._open_until(known, one) is not None
        )
        return max(ranks, default=NOTHING)

    def is_over(self, agreement: str) -> bool:
        """Whether it has ended for good."""
        return self._agreements[agreement].trust is Trust.ENDED

    def overdue(self, payer: str, moment: float) -> tuple[Overdue, ...]:
        """What is open to this payer at a moment although the money for it failed to come."""
        found: list[Overdue] = []
        for known in self._agreements.values():
            for one in known.bought if known.payer == payer else ():
                until, rank = self._open_until(known, one), self._ranks.get(one.price, NOTHING)
                if known.trust is Trust.BEHIND and until is not None and moment < until and one.quantity > 0:
                    found.append(Overdue(rank, max(0.0, moment - self._owed_since(known, one))))
        return tuple(found)

    def _owed_since(self, known: Agreement, one: Bought) -> float:
        owed = [bill.dated if bill.due is None else bill.due for bill in known.bills.values() if bill.state == "open"]
        return min(owed, default=one.since) if self.are_bills_readable else one.since

    def _open_until(self, known: Agreement, one: Bought) -> float | None:
        if known.is_odd or self._is_taken_back(known):
            return None
        promised = math.inf if known.planned_end is None else known.planned_end
        if known.trust is Trust.GOOD:
            if self._leniency.only_paid and not one.is_free and not _is_newest_paid(known):
                is_first = one.since <= known.begun
                return None if is_first else min(promised, one.since + self._leniency.leeway)
            # Whoever said when it ends will not be late in renewing: up to there, and not a second more.
            return promised if promised <= one.until else min(promised, one.until + self._leniency.leeway)
        if known.trust is Trust.BEHIND:
            grace = self._graces.get(one.price, self._leniency.grace)
            return min(promised, self._owed_since(known, one) + grace)
        return None

    def _is_taken_back(self, known: Agreement) -> bool:
        paid = [bill for bill in known.bills.values() if bill.state == "paid" and not bill.is_free_change]
        if not paid:
            return False
        refunded = paid[-1].refunded and self._leniency.refunds_end
        return refunded or (paid[-1].disputed and self._leniency.disputes_end)

    def _forgive(self, known: Agreement) -> None:
        counting = [bill for bill in known.bills.values() if bill.state not in ("draft", "void")]
        settled = not counting or counting[-1].state != "open"
        if settled and known.trust in (Trust.BEHIND, Trust.GIVEN_UP):
            known.trust = Trust.GOOD


def _is_newest_paid(known: Agreement) -> bool:
    had = {(one.price, one.quantity) for one in known.bought}
    for name, bill in reversed(known.bills.items()):
        waits = bill.state == "open" and name == known.wish
        never_came = bill.state == "void" and bill.change_to and had.isdisjoint(bill.change_to)
        if not waits and not never_came:
            return bill.state == "paid"
    return True


def rank_at(openings: Iterable[Opening], moment: float, everybody: int) -> int:
    """The highest tier open at a moment; `everybody` where none is."""
    return max((everybody, *(one.rank for one in openings if moment < one.until)))


def seats_at(openings: Iterable[Opening], moment: float, rank: int) -> int | None:
    """How many seats of that tier are paid for at a moment; None for none."""
    return sum(one.seats for one in openings if moment < one.until and one.rank == rank) or None
