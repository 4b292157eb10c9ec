"""An upstream's places: at most so many requests under way per target, the rest in a bounded queue, first come, first served.

It decides which target a request goes to, whether it has to wait and whether it is turned away. It must never let a
newcomer pass those who wait, keep a place for somebody who has left, nor make anyone wait without an end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.upstream.ageing import Ageing

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.upstream.balancer import Balancer
    from gateway.upstream.pool import Pool


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place in the queue. The future ends with the pool it may use, or with None: not in time, or withdrawn."""

    tried: Collection[Pool]
    turn: asyncio.Future[Pool | None]


class Places:
    """`queue` requests may wait, each for at most `queue_seconds`."""

    def __init__(self, balancer: Balancer[Pool], *, queue: int, queue_seconds: float) -> None:
        self._balancer = balancer
        self._queue = queue
        self._waiting: Ageing[Ticket] = Ageing(queue_seconds, _turn_away)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """One per target, as configured."""
        return self._balancer.candidates

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def take(self, now: float, tried: Collection[Pool] = ()) -> Pool | None:
        """A place that is free now: it is the taker's until `give_back`. None: it has to wait."""
        if self._waiting:
            return None
        pool = self._balancer.choose(now, tried)
        if pool is not None:
            pool.pending += 1
        return pool

    def queue_up(self, loop: asyncio.AbstractEventLoop, tried: Collection[Pool]) -> Ticket | None:
        """A place in the queue, unless it is full."""
        if len(self._waiting) >= self._queue:
            return None
        ticket = Ticket(tried, loop.create_future())
        self._waiting.add(ticket)
        self._serve()  # a target may have come back since the others began to wait
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Its holder waits no longer, and still looks at the turn: a place that it was given before is the holder's."""
        if self._waiting.discard(ticket):
            _turn_away(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """Its holder was cancelled, and never looks at the turn: a place that it was given before goes to the next."""
        self.leave(ticket)
        turn = ticket.turn
        if turn.done() and not turn.cancelled() and (pool := turn.result()) is not None:
            self.give_back(pool)

    def give_back(self, pool: Pool) -> None:
        """The request is over, or never was: its place goes to whoever has waited longest."""
        pool.pending -= 1
        if self._waiting:
            self._serve()

    def decline(self, pool: Pool) -> None:
        """Its taker has no use for it after all, and counts as never having come: it is still that target's turn."""
        pool.last_turn = 0
        self.give_back(pool)

    def retire(self) -> None:
        """Nobody comes any more: no connection needs to rest. Who is served or waits is served on."""
        for pool in self.pools:
            pool.close()

    def close(self) -> None:
        """Nobody needs to wait any more, and no connection to rest."""
        while self._waiting:
            _turn_away(self._waiting.pop_oldest())
        self._waiting.cancel()
        self.retire()

    def _serve(self) -> None:
        now = asyncio.get_running_loop().time()
        served: list[Ticket] = []
        for ticket in self._waiting:
            if ticket.turn.done():  # cancelled, and not withdrawn yet
                continue
            pool = self._balancer.choose(now, ticket.tried)
            if pool is not None:
                pool.pending += 1
                ticket.turn.set_result(pool)
                served.append(ticket)
            elif not ticket.tried:
                break  # where the first finds nothing, only one who has tried less could
        for ticket in served:
            self._waiting.discard(ticket)


def _turn_away(ticket: Ticket) -> None:
    if not ticket.turn.done():
        ticket.turn.set_result(None)
