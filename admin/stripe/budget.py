"""How many calls Stripe gets from us in a second, and who goes first.

It decides the order in which waiting calls are let out: someone at checkout or at a request, then cancellations, then
other webhooks, then edges that passed without news, then the nightly diff (docs/design.md, section 6.5). It must never let a
call out that nobody waits for any more, and never start a task of its own.
"""

from __future__ import annotations

import asyncio
import heapq
from enum import IntEnum
from typing import Final, Protocol

CALLS_PER_SECOND: Final = 20.0
"""Below Stripe's own 25 per second and endpoint, which a sandbox has for everything together."""


class Priority(IntEnum):
    """Who waits for the answer; the smaller goes first."""

    CUSTOMER = 0
    CANCELLATION = 1
    WEBHOOK = 2
    EDGE = 3
    NIGHTLY = 4


class Budget(Protocol):
    """Permission for one call, in the order of priorities. Cancelling the wait gives up the place."""

    async def acquire(self, priority: Priority) -> None:
        """Return when one call may go out."""


class PacedBudget:
    """A token bucket of this process with a queue by priority, on the running loop's clock."""

    def __init__(self, per_second: float = CALLS_PER_SECOND, burst: int = 10) -> None:
        self._interval = 1.0 / per_second
        self._burst = burst
        self._tokens = float(burst)
        self._counted_at: float | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many calls stand in the queue."""
        return sum(not place.done() for _, _, place in self._waiting)

    async def acquire(self, priority: Priority) -> None:
        """Return when one call may go out; whoever has the smaller priority, and then came first, goes first."""
        self._refill()
        if not self.waiting and self._tokens >= 1:
            self._tokens -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._sequence += 1
        heapq.heappush(self._waiting, (int(priority), self._sequence, place))
        self._arm()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let out and cancelled in the same turn: the token goes back
                self._tokens = min(self._tokens + 1, float(self._burst))
                self._arm()
            raise

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._counted_at is not None:
            self._tokens = min(float(self._burst), self._tokens + (now - self._counted_at) / self._interval)
        self._counted_at = now

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            delay = max(0.0, (1 - self._tokens) * self._interval)
            self._timer = asyncio.get_running_loop().call_later(delay, self._let_out)

    def _let_out(self) -> None:
        self._timer = None
        self._refill()
        # A timer may come early by the clock's resolution; the remainder is not worth another round.
        while self._waiting and self._tokens >= 1 - 1e-6:
            _, _, place = heapq.heappop(self._waiting)
            if not place.done():
                self._tokens = max(0.0, self._tokens - 1)
                place.set_result(None)
        self._arm()
