"""A request that was sent on a connection at rest, without a task, and nobody has taken over yet.

It holds a place and a connection, and ends in exactly one way: `over` after a whole answer, `take_over` by an exchange
that goes on with it, or `give_up`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.upstream.answer import AnswerReader
    from gateway.upstream.connection import UpstreamConnection
    from gateway.upstream.places import Places
    from gateway.upstream.pool import Pool
    from gateway.upstream.request_head import RequestHead
    from policies.schema import Timeouts


class Begun:
    """`at` is when it was sent, in the loop's seconds; `timeouts` are those of its upstream."""

    __slots__ = ("_is_held", "_pool", "at", "connection", "head", "places", "reader", "timeouts")

    def __init__(
        self,
        places: Places,
        pool: Pool,
        connection: UpstreamConnection,
        head: RequestHead,
        body: bytes,
        timeouts: Timeouts,
    ) -> None:
        self.places = places
        self._pool = pool
        self._is_held = True
        self.connection = connection
        self.head = head
        self.timeouts = timeouts
        self.at = connection.now
        self.reader: AnswerReader = connection.begin(head, pool.target.authority, body)

    def over(self) -> None:
        """The answer was whole: the target has done well, and place and connection are free."""
        self._is_held = False
        self._pool.standing.succeeded()
        self._pool.put_back(self.connection)
        self.places.give_back(self._pool)

    def take_over(self) -> Pool:
        """An exchange goes on with it, and lets go of both."""
        self._is_held = False
        return self._pool

    def give_up(self) -> None:
        """Let go of both, unless somebody has done so, or will."""
        if self._is_held:
            self._is_held = False
            self.connection.abort()
            self._pool.put_back(self.connection)
            self.places.give_back(self._pool)
