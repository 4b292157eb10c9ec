"""What a test needs to send bytes as they are to a running gateway, and to read what its API got of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from tests.support.stack import Gateway

SMUGGLED = b"GET /public/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

WEBSOCKET_AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
"""What answers `websocket_offer`: the example of RFC 6455, section 1.3."""


def websocket_offer(path: str, fields: bytes = b"") -> bytes:
    """A request that offers to go on as a WebSocket."""
    return (
        b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n" % (path.encode(), fields)
    )


def parts_of(request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Request line, headers and body of what the API got."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)}, body


def unchunked(body: bytes) -> bytes:
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            return whole
        whole, body = whole + body[:count], body[count + 2 :]


async def statuses_of(gateway: Gateway, sent: bytes) -> list[int]:
    """The statuses of what came back until the connection ended, but for that of a last request of our own, which ends it."""
    statuses: list[int] = []
    async with await RawClient.connect(gateway.address) as client:
        client.writer.write(sent + LAST)
        while True:
            try:
                statuses.append((await client.answer()).status)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return statuses[:-1] if statuses[-1:] == [404] else statuses
