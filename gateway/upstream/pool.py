"""The connections to one target: those in use counted, those at rest kept, the newest used first.

It decides whether a connection may be used again and when one at rest is given up. Used newest first, so that what a
burst has opened ages out. It must never give out a connection that may still carry something of the exchange before,
nor count a place as taken that nobody holds any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.upstream.ageing import Ageing
from gateway.upstream.balancer import Standing
from gateway.upstream.connection import UpstreamConnection, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.deadline import Timers
    from gateway.upstream.carrier import Carrier
    from gateway.upstream.target import Target

SETTLING_SECONDS: Final = 0.05
"""An upstream that sends a body where none may be (to HEAD, with 204 or 304) sends it right behind the head. Until it
would have come nobody gets that connection, since what comes in the next exchange looks like its answer."""

LONGEST_LIFE_SECONDS: Final = 600.0
"""Of a connection, so that a busy gateway follows a name that has moved to another address. nginx: an hour."""


class Pool:
    """One target with its connections. `pending` counts the requests that hold a place here, connected or not."""

    def __init__(
        self,
        target: Target,
        *,
        max_connections: int,
        keepalive_seconds: float,
        timers: Callable[[], Timers] = asyncio.get_running_loop,
    ) -> None:
        self.target = target
        self.standing = Standing()
        self.pending = 0
        self.last_turn = 0
        self._max_connections = max_connections
        self._keeps = keepalive_seconds > 0
        self._idle: Ageing[UpstreamConnection] = Ageing(keepalive_seconds, _give_up, timers=timers)
        self._settling: Ageing[UpstreamConnection] = Ageing(SETTLING_SECONDS, self._idle.add, timers=timers)
        self._closed = False

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent."""
        return self.pending < self._max_connections

    @property
    def idle(self) -> int:
        """How many connections wait to be used again."""
        return len(self._idle) + len(self._settling)

    def take(self) -> Carrier | None:
        """The connection that was used last and has been silent since; None where a new one must be opened."""
        while self._idle:
            connection = self._idle.pop_newest()
            if connection.is_silent():
                return connection
            connection.abort()
        return None

    async def open(self) -> Carrier:
        """A fresh connection. Raises OSError."""
        self._make_room()
        return await connect(asyncio.get_running_loop(), self.target)

    def take_http1(self) -> Carrier | None:
        """As `take`, and one that speaks HTTP/1.1, since only that turns into a WebSocket here."""
        return self.take()

    async def open_http1(self) -> Carrier:
        """As `open`, and one that speaks HTTP/1.1."""
        return await self.open()

    def put_back(self, connection: Carrier) -> None:
        """The exchange is over, however it ended: keep the connection if that is safe, else end it."""
        if isinstance(connection, UpstreamConnection) and self._may_keep(connection):
            resting = self._settling if connection.must_settle else self._idle
            connection.rest(self._lost)
            resting.add(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """End the connections at rest; those in use end with their exchange."""
        self._closed = True
        for resting in (self._idle, self._settling):
            while resting:
                resting.pop_newest().abort()
            resting.cancel()

    def _make_room(self) -> None:
        """Before a connection is opened: those at rest count, too, and the oldest goes."""
        while (resting := self._settling or self._idle) and self.pending + self.idle > self._max_connections:
            resting.pop_oldest().abort()

    def _may_keep(self, connection: UpstreamConnection) -> bool:
        if self._closed or not self._keeps or not connection.reusable:
            return False
        return connection.age <= LONGEST_LIFE_SECONDS

    def _lost(self, connection: UpstreamConnection) -> None:
        if not self._idle.discard(connection):
            self._settling.discard(connection)


def _give_up(connection: UpstreamConnection) -> None:
    connection.abort()
