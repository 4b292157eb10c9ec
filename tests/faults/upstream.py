"""An API that breaks the rules of HTTP in every way that is known to have hurt a proxy, chosen by the request's own number.

Every answer names its request, in a field and all through its body: one that reaches somebody else is seen at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

POISON: Final = b"HTTP/1.1 200 OK\r\nX-Echo: poison\r\nContent-Length: 6\r\n\r\npoison"
"""What must never be anybody's answer. It comes in one piece with a complete answer, or where a body may not be."""
ENDLESS_SECONDS: Final = 5.0
"""Longer than the gateway waits."""


def body_of(number: str, times: int) -> bytes:
    """What stands in a body, whichever way it goes."""
    return f"{number}|".encode() * times


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    number: str
    method: bytes
    body_bytes: int | None
    """None where it came in chunks."""


class Connection:
    """One connection of the gateway's. Raises ConnectionError, or IncompleteReadError where it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    def reset(self) -> None:
        if self.writer.is_closing():
            return
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def asked(self) -> Asked:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        chunked = re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE)
        number = re.search(rb"\r\nx-number: *([\w-]+)", head, re.IGNORECASE)
        assert number is not None, head
        return Asked(number[1].decode(), head.split(b" ", 1)[0], None if chunked else int(length[1]) if length else 0)

    async def body(self, asked: Asked) -> bytes:
        if asked.body_bytes is not None:
            return await self.reader.readexactly(asked.body_bytes)
        whole = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            whole += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")
        return whole


Fault = Callable[[Connection, bytes, bytes, random.Random], Awaitable[bool]]
"""Given what names the request and a body, say something; whether the connection may serve another request."""


def _head(echo: bytes, body: bytes | None, *more: bytes) -> bytes:
    framing = () if body is None else (b"Content-Length: %d" % len(body),)
    return b"\r\n".join([b"HTTP/1.1 200 OK", echo, *framing, *more, b"", b""])


async def _right(to: Connection, echo: bytes, body: bytes, _: random.Random) -> bool:
    await to.say(_head(echo, body), body)
    return True


async def _chunked(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, None, b"Transfer-Encoding: chunked"))
    while body:
        piece, body = body[: (size := dice.randrange(1, 5000))], body[size:]
        await to.say(b"%x\r\n" % len(piece), piece, b"\r\n")
    await to.say(b"0\r\nX-Late: 1\r\n\r\n")
    return True


async def _trickled(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    answer = _head(echo, body[:50]) + body[:50]
    for at in range(0, len(answer), 7):
        await to.say(answer[at : at + 7])
        await asyncio.sleep(dice.random() * 0.01)
    return True


async def _informed(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    await to.say(hint * dice.randrange(1, 20), _head(echo, body), body)
    return True


async def _until_close(to: Connection, echo: bytes, body: bytes, _: random.Random) -> bool:
    await to.say(_head(echo, None), body)
    return False


async def _closes(to: Connection, echo: bytes, body: bytes, _: random.Random) -> bool:
    await to.say(_head(echo, body), body)  # and nothing said that this would be the last
    return False


async def _bodiless(to: Connection, echo: bytes, _body: bytes, dice: random.Random) -> bool:
    await to.say(dice.choice([b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n"]), echo, b"\r\n\r\n")
    return True


async def _extra(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, body), body, dice.choice([POISON, POISON[:9], b"\r\n", b"x", POISON * 3]))
    return True


async def _bodiless_with_body(to: Connection, echo: bytes, _body: bytes, dice: random.Random) -> bool:
    await to.say(b"HTTP/1.1 204 No\r\n", echo, b"\r\n\r\n")
    if dice.random() < 0.5:
        await asyncio.sleep(0)
    await to.say(POISON)
    return True


async def _silent(to: Connection, _echo: bytes, _body: bytes, _dice: random.Random) -> bool:
    await asyncio.wait_for(to.reader.read(1), ENDLESS_SECONDS)
    return False


async def _silent_in_head(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, body)[: dice.randrange(1, 40)])
    return await _silent(to, echo, body, dice)


async def _ends_in_head(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, body)[: dice.randrange(0, 40)])
    return False


async def _resets(to: Connection, _echo: bytes, _body: bytes, _: random.Random) -> bool:
    to.reset()
    return False


async def _garbage(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    head = _head(echo, body)
    wrongs = [
        head.replace(b"HTTP/1.1", b"HTP/1.1"),
        head.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        head.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"),
        head.replace(b"\r\n\r\n", b"\r\n folded\r\n\r\n"),
        head.replace(b"X-Echo", b"X-\x00Echo"),
        dice.randbytes(100),
    ]
    await to.say(dice.choice(wrongs), body)
    return True


async def _silent_in_body(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, body), body[: len(body) // 2])
    return await _silent(to, echo, body, dice)


async def _torn(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, body), body[: dice.randrange(len(body))])
    return False


async def _torn_by_reset(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, None), body[: dice.randrange(len(body))])
    to.reset()
    return False


async def _torn_chunks(to: Connection, echo: bytes, body: bytes, dice: random.Random) -> bool:
    await to.say(_head(echo, None, b"Transfer-Encoding: chunked"), b"%x\r\n" % len(body), body, b"\r\n")
    longer = b"5\r\n%b\r\n0\r\n\r\n" % body[:8]
    await to.say(dice.choice([b"", b"5\r\n" + body[:2], b"zz\r\n", b"0\r\n", b"-1\r\n", longer]))
    return False


WHOLE: Final[tuple[Fault, ...]] = (_right, _chunked, _trickled, _informed, _until_close, _closes, _bodiless)
"""The caller gets an answer that is whole."""
SPOILT_BEHIND: Final[tuple[Fault, ...]] = (_extra, _bodiless_with_body)
"""As well, and nothing of what comes behind it reaches anybody."""
NO_ANSWER: Final[tuple[Fault, ...]] = (_silent, _silent_in_head, _ends_in_head, _resets, _garbage)
"""502 or 504."""
TORN: Final[tuple[Fault, ...]] = (_silent_in_body, _torn, _torn_by_reset, _torn_chunks)
"""An answer that breaks off, or 502."""
ALL: Final = (*WHOLE * 3, *SPOILT_BEHIND * 2, *NO_ANSWER, *TORN)


def fault_of(number: str) -> Fault:
    """What the API does about this request, each time that it gets it."""
    return random.Random(f"fault {number}").choice(ALL)


@dataclass(slots=True)
class Api:
    """What it has seen: how often each request came, and what was wrong with any."""

    port: int = 0
    came: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    held: list[asyncio.Future[None]] = field(default_factory=list)
    """Requests whose number begins with `hold` wait here to be let go."""
    holding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def serve(self, to: Connection) -> None:
        may_go_on = True
        while may_go_on:
            asked = await to.asked()
            self.came[asked.number] += 1
            if asked.number.startswith("hold"):
                self.held.append(asyncio.get_running_loop().create_future())
                self.holding.release()
                await self.held[-1]
                await to.say(_head(b"X-Echo: hold", b"ok"), b"ok")
                continue
            dice = random.Random(f"{asked.number} {self.came[asked.number]}")
            is_early = asked.body_bytes != 0 and dice.random() < 0.2
            if not is_early:
                body = await to.body(asked)
                times = len(body) // (len(asked.number) + 1)
                if body != body_of(asked.number, times):
                    self.wrong.append(f"{asked.number}: a body of somebody else's: {body[:80]!r}")
            fault = fault_of(asked.number)
            self.faults[fault.__name__] += 1
            answer = b"" if asked.method == b"HEAD" else body_of(asked.number, dice.choice([1, 10, 1000, 20_000]))
            echo = b"X-Echo: " + asked.number.encode()
            if asked.method == b"HEAD" and fault in TORN:
                fault = _right
            may_go_on = await fault(to, echo, answer, dice) and not is_early


@asynccontextmanager
async def misbehaving_api() -> AsyncIterator[Api]:
    """On a free port, until the block ends."""
    api = Api()
    serving: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError
            ):
                await api.serve(Connection(reader, writer))
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=512)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
