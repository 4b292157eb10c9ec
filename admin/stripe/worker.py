"""Works off what no webhook settled: pending events, and periods that ended without news.

It decides what is looked at next and how long a failure waits. It must never lose an event: one that keeps failing is
set aside, visible and replayable, and one that Stripe's absence keeps waiting is not given up for days.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from typing import TYPE_CHECKING, Final

from admin.stripe.budget import Priority
from admin.stripe.envelope import is_cancellation
from admin.stripe.work import EventWork, NotYet, Settled, WorkOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.inbox import DueWork, Inbox
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers

_log = logging.getLogger(__name__)

GIVE_UP_AFTER: Final = 80
"""Attempts, an hour apart after the first ten: about three days, as long as Stripe itself keeps trying."""

AT_ONCE: Final = 100
SIDE_BY_SIDE: Final = 8

EDGE_DELAY_SECONDS: Final = 3600
"""Stripe leaves a renewal's invoice in draft for about an hour before it is charged; only then is there news."""

EDGE_SPREAD_SECONDS: Final = 3600
EDGE_RETRY_SECONDS: Final = 300
MOST_EDGES: Final = 1000
FAILURES_IN_A_ROW: Final = 5
"""After so many that are nobody's own, Stripe is away: going on would only ask each in turn for ten seconds."""


class InboxWorker:
    """Pending events of one account in one mode."""

    def __init__(
        self,
        work: EventWork,
        inbox: Inbox,
        pair: Pair,
        *,
        wall: Callable[[], float],
        give_up_after: int = GIVE_UP_AFTER,
    ) -> None:
        self._work = work
        self._inbox = inbox
        self._pair = pair
        self._wall = wall
        self._give_up_after = give_up_after

    async def run_once(self) -> int:
        """Try everything that is due, once per Stripe customer; how many pieces there were. Raises LedgerDownError."""
        due = await self._inbox.due(self._pair, self._wall(), AT_ONCE)
        turns = asyncio.Semaphore(SIDE_BY_SIDE)

        async def in_turn(piece: DueWork) -> None:
            async with turns:
                await self._piece(piece)

        async with asyncio.TaskGroup() as group:
            for piece in due:
                group.create_task(in_turn(piece))
        return len(due)

    async def _piece(self, piece: DueWork) -> None:
        urgent = any(is_cancellation(event.type) for event in piece.events)
        priority = Priority.CANCELLATION if urgent else Priority.WEBHOOK
        outcome: WorkOutcome
        if piece.stripe_customer is not None:
            outcome = await self._work.look_at(piece.stripe_customer, priority)
        else:
            outcome = await self._work.process(piece.events[0], priority)
        if not isinstance(outcome, NotYet) or not outcome.attempted:
            return
        _log.warning("events %s wait: %s", ", ".join(piece.event_ids[:5]), outcome.detail)
        await self._inbox.record_failure(self._pair, piece.event_ids, outcome.detail, self._wall(), self._give_up_after)


class EdgeWatch:
    """Stripe customers one of whose periods ended and of whom nothing was heard since."""

    def __init__(
        self,
        work: EventWork,
        stripe_customers: StripeCustomers,
        pair: Pair,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._work = work
        self._stripe_customers = stripe_customers
        self._pair = pair
        self._now = now
        self._wall = wall
        self._not_before: dict[str, float] = {}

    async def run_once(self) -> int:
        """Look at those whose turn has come; how many. Raises LedgerDownError."""
        now, wall = self._now(), self._wall()
        self._not_before = {one: at for one, at in self._not_before.items() if at > wall}
        edges = await self._stripe_customers.due_edges(self._pair, now - EDGE_DELAY_SECONDS, MOST_EDGES)
        looked = in_a_row = 0
        for edge in edges:
            one = edge.stripe_customer
            if one in self._not_before or edge.edge_at + EDGE_DELAY_SECONDS + _spread(one) > now:
                continue
            looked += 1
            outcome = await self._work.look_at(one, Priority.EDGE)
            if isinstance(outcome, Settled):
                in_a_row = 0
                continue
            self._not_before[one] = wall + EDGE_RETRY_SECONDS
            in_a_row = in_a_row + 1 if outcome.is_everybodys else 0
            if in_a_row == FAILURES_IN_A_ROW:
                break
        return looked


def _spread(stripe_customer: str) -> int:
    """The customer's own place within the hour: on the 1st of a month they must not all come at once."""
    return zlib.crc32(stripe_customer.encode()) % EDGE_SPREAD_SECONDS
