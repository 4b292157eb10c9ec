"""A caller's connection that offers a WebSocket: it stays HTTP until somebody says 101, and then is none any more.

It decides what becomes of the bytes behind such a request: they wait, bounded and unread, until the answer is there.
After a 101 they are the first of the WebSocket; after any other answer nobody can tell what they were, and the
connection ends with that answer. They must never be taken for a request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.listener_connection import CallerConnection
    from gateway.listener_cycle import GatewayCycle

_EARLY_BYTES: Final = 64 * 1024
_HEAD: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class CallerTunnel(asyncio.Protocol):
    """The transport's protocol from the offer to the answer; `switch` makes another one that."""

    def __init__(self, connection: CallerConnection, cycle: GatewayCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self._early: list[bytes] = []
        self._early_bytes = 0

    # The transport's callbacks, before the answer.

    def data_received(self, data: bytes) -> None:
        """The caller goes on before he is answered."""
        if self._cycle.response_complete:
            self._connection.data_received(data)  # which reads it away
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > _EARLY_BYTES:
            self._connection.flow.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller reads the answer more slowly than it comes."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """He has caught up."""
        self._connection.resume_writing()

    # What the app and the listener ask for.

    def switch(
        self, headers: list[tuple[bytes, bytes]], protocol: asyncio.Protocol, stop: Callable[[], None]
    ) -> tuple[asyncio.Transport, bytes] | None:
        """See `gateway.upstream.outcome.Tunnel`."""
        connection, cycle = self._connection, self._cycle
        transport = connection.transport
        if cycle.disconnected or cycle.response_started or transport.is_closing():
            return None
        lines = [b"%b: %b\r\n" % header for header in headers]
        head = b"".join([_HEAD, *lines, b"\r\n"])
        breaks = len(lines) + _HEAD.count(b"\n") + 1
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            raise RuntimeError("A header of the answer holds a line break or NUL")
        cycle.become_tunnel()
        connection.become_tunnel(stop)
        transport.set_protocol(protocol)
        transport.write(head)
        connection.flow.resume_reading()
        if connection.flow.write_paused:
            protocol.pause_writing()
        early, self._early = b"".join(self._early), []
        return transport, early

    def over(self) -> None:
        """The connection has ended."""
        self._connection.connection_lost(None)
