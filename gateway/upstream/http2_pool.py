"""The connections to one target that may speak HTTP/2: few, and shared by the requests under way.

It decides which connection a request's stream goes on and when another one is opened: one at a time, for all who wait
for it. What the target speaks is its own choice (ALPN, RFC 7301): where it only takes HTTP/1.1, each request has a
connection of its own, as in `gateway.upstream.pool`. Without TLS nothing is agreed on, and HTTP/2 it is.

It must never let the dialling end because one of those who wait has left, nor go on with it once all have.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.upstream.ageing import Ageing
from gateway.upstream.connection import UpstreamConnection, connect
from gateway.upstream.http2_connection import Http2Connection
from gateway.upstream.pool import LONGEST_LIFE_SECONDS, Pool

if TYPE_CHECKING:
    import ssl

    from gateway.upstream.carrier import Carrier
    from gateway.upstream.target import Target


class Http2Pool(Pool):
    """One target. `pending` counts requests, however many share a connection."""

    def __init__(
        self,
        target: Target,
        *,
        max_connections: int,
        keepalive_seconds: float,
        connect_seconds: float,
        http1_tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(target, max_connections=max_connections, keepalive_seconds=keepalive_seconds)
        self._http1_target = replace(target, tls=http1_tls)
        self._connect_seconds = connect_seconds
        self._shared: list[Http2Connection] = []
        self._unused: Ageing[Http2Connection] = Ageing(keepalive_seconds, Http2Connection.retire)
        self._dialling: asyncio.Task[Http2Connection | UpstreamConnection] | None = None
        self._waiting = 0
        self._takes_http2 = True

    @property
    def idle(self) -> int:
        """How many connections wait to be used again."""
        return super().idle + len(self._unused)

    def take(self) -> Carrier | None:
        """A stream on a connection that has room, or one at rest that speaks HTTP/1.1."""
        now = asyncio.get_running_loop().time()
        for connection in list(self._shared):
            if now - connection.opened_at > LONGEST_LIFE_SECONDS:
                connection.retire()
            elif (stream := self._held_on(connection)) is not None:
                return stream
        return super().take()

    async def open(self) -> Carrier:
        """A stream on a fresh connection, or a connection that speaks HTTP/1.1. Raises OSError."""
        self._waiting += 1
        try:
            while self._takes_http2:
                opened = await asyncio.shield(self._dialling or self._dial())
                if isinstance(opened, Http2Connection) and not opened.has_room and opened.streams == 0:
                    raise ConnectionError("the upstream takes no streams")  # or it would be dialled again, and again
                # This one first: whoever was refused on another one must not meet it again.
                carrier = self._held_on(opened) if isinstance(opened, Http2Connection) else None
                carrier = carrier or self.take()
                if carrier is not None:
                    return carrier
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._nobody_waits()
        self._make_room()
        return self._first_use(await self._connect())

    def _held_on(self, connection: Http2Connection) -> Carrier | None:
        if not connection.has_room or not (connection.streams or connection.is_silent()):
            return None
        self._unused.discard(connection)
        return connection.hold_stream()

    def take_http1(self) -> Carrier | None:
        """One at rest, where the target speaks nothing else."""
        return super().take()

    async def open_http1(self) -> Carrier:
        """A connection that offers HTTP/1.1 alone; without TLS nothing is agreed on, and the target must take both. Raises OSError."""
        self._make_room()
        return await connect(asyncio.get_running_loop(), self._http1_target)

    def put_back(self, connection: Carrier) -> None:
        """The exchange is over, however it ended. One that was to become a WebSocket is not kept for requests that may go as HTTP/2."""
        if isinstance(connection, UpstreamConnection) and not self._takes_http2:
            super().put_back(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """End the connections at rest; those in use end with their last stream."""
        super().close()
        while self._unused:
            self._unused.pop_newest().retire()
        self._unused.cancel()

    def _dial(self) -> asyncio.Task[Http2Connection | UpstreamConnection]:
        """Open a connection for all who wait."""
        self._dialling = asyncio.get_running_loop().create_task(self._connect_for_all())
        return self._dialling

    def _nobody_waits(self) -> None:
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()
        for connection in list(self._shared):
            self._changed(connection)

    async def _connect_for_all(self) -> Http2Connection | UpstreamConnection:
        """What it opens is there to be taken before anybody learns that it has ended."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                opened = await self._connect()
        finally:
            if self._dialling is asyncio.current_task():
                self._dialling = None
        self._takes_http2 = isinstance(opened, Http2Connection)
        if isinstance(opened, Http2Connection):
            self._share(opened)
        elif self._keeps and not self._closed:
            opened.rest(self._lost)
            self._idle.add(opened)
        else:
            opened.abort()
        return opened

    def _first_use(self, opened: Http2Connection | UpstreamConnection) -> Carrier:
        if isinstance(opened, UpstreamConnection):
            return opened
        self._takes_http2 = True  # it has learnt it, or another process answers now
        stream = opened.hold_stream()
        self._share(opened)
        return stream

    def _share(self, connection: Http2Connection) -> None:
        if connection.lost:
            return
        self._shared.append(connection)
        self._changed(connection)

    def _changed(self, connection: Http2Connection) -> None:
        """A stream is over, or the connection."""
        if connection not in self._shared:
            return
        if connection.lost:
            self._shared.remove(connection)
            self._unused.discard(connection)
        elif connection.streams == 0 and self._waiting == 0:
            self._unused.discard(connection)
            if self._closed or not self._keeps:
                connection.retire()
            else:
                self._unused.add(connection)

    async def _connect(self) -> Http2Connection | UpstreamConnection:
        loop = asyncio.get_running_loop()
        target = self.target
        transport, http2 = await loop.create_connection(
            lambda: Http2Connection(loop, self._changed),
            target.host,
            target.port,
            ssl=target.tls,
            server_hostname=target.server_name,
        )
        if not http2.is_agreed:
            http1 = UpstreamConnection(loop)
            transport.set_protocol(http1)
            http1.connection_made(transport)
            if http2.lost:  # it spoke unasked, or has gone already
                http1.abort()
            return http1
        try:
            await http2.ready
        except BaseException:
            http2.close()
            raise
        return http2
