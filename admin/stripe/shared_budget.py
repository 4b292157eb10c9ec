"""One budget of calls for all processes of a ledger, with the same order of precedence within each and between them.

Each process queues its own calls by priority and takes tokens for the foremost from the ledger, a few at a time and in
transactions of their own; the less urgent leave more behind (`admin.ledger.budgets`), so a customer at checkout never
waits for another process's nightly look. It must never let a call out that nobody waits for any more, and never stand
still because the ledger does: then each process goes on alone at a pace that several together can bear.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING, Final

from admin.ledger.budgets import Bucket, CallBudgets, Taken
from admin.ledger.engine import LedgerDownError
from admin.stripe.budget import Priority

if TYPE_CHECKING:
    from admin.ledger.pair import Pair

_log = logging.getLogger(__name__)

CALLS_PER_SECOND: Final = 18.0
CALLS_AT_ONCE: Final = 7.0
"""Together the 25 that Stripe allows in a second; how many of them must be left is a priority's own number."""

LOOKS_PER_SECOND: Final = 4.0
LOOKS_AT_ONCE: Final = 1.0
"""Together the five live checks in a second of docs/design.md, section 6.6."""

ALONE_SHARE: Final = 0.2
"""Of the pace that all have together, for a process that can't ask the ledger: five of them stay within it."""

ASK_AGAIN_SECONDS: Final = 5.0
_URGENT_PAUSE_SECONDS: Final = 0.02
_PATIENT_PAUSE_SECONDS: Final = 0.15
"""Between two askings of the ledger: those who can wait ask seldom, and then for several tokens at once."""


def calls_of(pair: Pair) -> Bucket:
    """Every call to one account in one mode."""
    return Bucket(_name("calls", pair), CALLS_PER_SECOND, CALLS_AT_ONCE)


def looks_of(pair: Pair) -> Bucket:
    """Live checks before a refusal."""
    return Bucket(_name("looks", pair), LOOKS_PER_SECOND, LOOKS_AT_ONCE)


class SharedBudget:
    """A `Budget` over one bucket of the ledger."""

    def __init__(self, budgets: CallBudgets, bucket: Bucket) -> None:
        self._budgets = budgets
        self._bucket = bucket
        self._at_once = max(1, int(bucket.capacity))
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = 0
        self._spare = 0
        self._asking: asyncio.Task[None] | None = None
        self._more_urgent = asyncio.Event()
        self._alone_until = float("-inf")
        self._alone_next_at = float("-inf")

    @property
    def waiting(self) -> int:
        """How many calls of this process stand in the queue."""
        return sum(not place.done() for _, _, place in self._queue)

    async def acquire(self, priority: Priority) -> None:
        """Return when one call may go out; whoever has the smaller priority, and then came first, goes first."""
        place = asyncio.get_running_loop().create_future()
        self._sequence += 1
        heapq.heappush(self._queue, (int(priority), self._sequence, place))
        if self._queue[0][2] is place:
            self._more_urgent.set()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_all())
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let out and cancelled in the same turn: the next may go
                self._spare += 1
                self._let_out()
            raise

    async def aclose(self) -> None:
        """Nobody is let out any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_for_all(self) -> None:
        try:
            while wanted := self._foremost():
                self._more_urgent.clear()
                taken = await self._take(wanted)
                self._spare = taken.count
                self._let_out()
                self._spare = 0
                if taken.wait_seconds:
                    await self._pause(wanted[min(taken.count, len(wanted) - 1)], taken.wait_seconds)
        except Exception as problem:  # noqa: BLE001 -- whoever waits is told, or would wait for ever
            for _, _, place in self._drained():
                place.set_exception(problem)
        finally:
            for _, _, place in self._drained():
                place.cancel()

    def _drained(self) -> list[tuple[int, int, asyncio.Future[None]]]:
        """Everybody who still waits; the queue is empty from now on."""
        waiting = [entry for entry in self._queue if not entry[2].done()]
        self._queue = []
        return waiting

    def _foremost(self) -> list[int]:
        """The priorities of those who go next."""
        self._queue = self._drained()
        heapq.heapify(self._queue)
        return [priority for priority, _, _ in heapq.nsmallest(self._at_once, self._queue)]

    def _let_out(self) -> None:
        while self._spare and self._queue:
            _, _, place = heapq.heappop(self._queue)
            if not place.done():
                self._spare -= 1
                place.set_result(None)

    async def _take(self, priorities: list[int]) -> Taken:
        now = asyncio.get_running_loop().time()
        if now >= self._alone_until:
            try:
                return await self._budgets.take(self._bucket, [float(priority) for priority in priorities])
            except LedgerDownError as problem:
                _log.warning("calls to Stripe are paced by this process alone: %s", problem)
                self._alone_until = asyncio.get_running_loop().time() + ASK_AGAIN_SECONDS
        pace = 1 / (self._bucket.per_second * ALONE_SHARE)
        now = asyncio.get_running_loop().time()
        if now < self._alone_next_at:
            return Taken(0, self._alone_next_at - now)
        self._alone_next_at = now + pace
        return Taken(1, pace)

    async def _pause(self, priority: int, seconds: float) -> None:
        """Until a token may be there, or somebody more urgent has come."""
        least = _URGENT_PAUSE_SECONDS if priority <= Priority.CANCELLATION else _PATIENT_PAUSE_SECONDS
        try:
            async with asyncio.timeout(max(seconds, least)):
                await self._more_urgent.wait()
        except TimeoutError:
            return


def _name(what: str, pair: Pair) -> str:
    return f"{what}.{pair.account}.{'live' if pair.livemode else 'test'}"
