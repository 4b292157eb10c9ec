"""Bytes near enough to HTTP to get past the first look: known messages, cut, doubled, joined and spoilt."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

REQUESTS: Final = (
    b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
)
ANSWERS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
)
_PIECES: Final = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\xff", b"0\r\n\r\n", b"\r\n\r\n", b"1", b"ffffffffff"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"Connection: close\r\n", b"HTTP/1.1 "),
    *(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Expect: 100-continue\r\n", b"a" * 9000, b"X: y\r\n" * 120),
)  # fmt: skip


def mutated(known: tuple[bytes, ...], dice: random.Random) -> bytes:
    """One or more of the known messages, with up to four things done to them."""
    data = bytearray(b"".join(dice.choice(known) for _ in range(dice.choice([1, 1, 2, 3]))))
    for _ in range(dice.randrange(5)):
        at, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        match dice.randrange(5):
            case 0:
                data[at:at] = dice.choice(_PIECES)
            case 1:
                del data[at : min(end, at + 10)]
            case 2:
                data[at:at] = data[at:end]
            case 3 if at < len(data):
                data[at] = dice.randrange(256)
            case _:
                data[at:at] = dice.choice(known)
    return bytes(data)


def pieces(data: bytes, dice: random.Random) -> list[bytes]:
    """The same, as it may come off a wire."""
    if dice.random() < 0.5:
        return [data]
    at = sorted({0, len(data), *(dice.randrange(len(data) + 1) for _ in range(4))})
    return [data[start:end] for start, end in itertools.pairwise(at) if start < end]
