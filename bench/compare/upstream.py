"""What stands behind every gateway of the comparison, and the trivial server that some of them ask for permission.

    python -m bench.compare.upstream PORT          answers, takes bodies, sends a gibibyte, events, and echoes WebSockets
    python -m bench.compare.upstream PORT --auth   says yes with the customer's name, whatever is asked

A request that fits into one read and has no body is answered without parsing it, so that this costs as little as it can:
what is measured is on the other core.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import Final

import httptools
import uvloop

GIBIBYTE: Final = 1 << 30
EVENT: Final = b"data: " + b"x" * 100 + b"\n\n"
EVENT_SECONDS: Final = 1.0
_PIECE: Final = b"x" * (256 * 1024)
_BODY: Final = b'{"data": "' + b"x" * 100 + b'"}'
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
# Envoy takes nothing but a 200 for a yes, and would hand a 204 to the caller.
_ALLOWED: Final = b"HTTP/1.1 200 OK\r\nX-Customer: customer-0\r\nContent-Length: 0\r\n\r\n"
_BIG_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % GIBIBYTE
_EVENTS_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT_CHUNK: Final = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
_WS_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_WS_HEADER: Final = 6


class Upstream(asyncio.Protocol):
    """One connection."""

    listeners: Final[set[Upstream]] = set()
    answer: bytes = _ANSWER

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.parser: httptools.HttpRequestParser | None = None
        self.url = b""
        self.key = b""
        self.is_websocket = False
        self.frames = b""
        self.to_send = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, _exc: Exception | None) -> None:
        self.listeners.discard(self)
        self.to_send = 0

    def data_received(self, data: bytes) -> None:
        if self.is_websocket:
            self.echo(data)
            return
        if self.parser is None and data.startswith(b"GET ") and data.endswith(b"\r\n\r\n") and b" HTTP" in data[:200]:
            url = data[4 : data.index(b" ", 4)]
            if self.answer is _ALLOWED or not url.endswith((b"/big", b"/events", b"/echo")):
                self.transport.write(self.answer)
                return
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.is_websocket = True

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"sec-websocket-key":
            self.key = value

    def on_message_complete(self) -> None:
        url, self.url = self.url, b""
        if self.key:
            accepted = base64.b64encode(hashlib.sha1(self.key + _WS_GUID, usedforsecurity=False).digest())
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accepted
            )
        elif url.endswith(b"/big"):
            self.transport.write(_BIG_HEAD)
            self.to_send = GIBIBYTE
            self.send()
        elif url.endswith(b"/events"):
            self.transport.write(_EVENTS_HEAD)
            self.listeners.add(self)
        else:
            self.transport.write(self.answer)

    def send(self) -> None:
        while self.to_send and not self.paused:
            self.transport.write(_PIECE)
            self.to_send -= len(_PIECE)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send()

    def echo(self, data: bytes) -> None:
        """Masked frames of less than 126 bytes back as unmasked ones; a close ends the connection."""
        self.frames += data
        while len(self.frames) >= _WS_HEADER:
            length = self.frames[1] & 0x7F
            if len(self.frames) < _WS_HEADER + length:
                return
            head, mask = self.frames[0], self.frames[2:_WS_HEADER]
            masked, self.frames = self.frames[_WS_HEADER : _WS_HEADER + length], self.frames[_WS_HEADER + length :]
            if head & 0x0F == 8:
                self.transport.close()
                return
            whole = (mask * (length // 4 + 1))[:length]
            plain = (int.from_bytes(masked) ^ int.from_bytes(whole)).to_bytes(length)
            self.transport.write(bytes((head, length)) + plain)


class Allowing(Upstream):
    """Says yes."""

    answer = _ALLOWED


async def serve(port: int, protocol: type[Upstream]) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=16384)
    async with server:
        while True:
            await asyncio.sleep(EVENT_SECONDS)
            for listener in tuple(Upstream.listeners):
                listener.transport.write(_EVENT_CHUNK)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Allowing if "--auth" in sys.argv else Upstream))
