"""What is fed with bytes, and what must hold whatever they are.

The reader of answers: it never fails but by its own `problem`, means the same however the bytes are cut, and is never
reusable with bytes behind the answer. The listener: every caller gets whole answers and then the end, the app never sees
a framing that is in doubt, and nothing is logged as a defect.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.upstream.answer import AnswerReader
from tests.fuzz.mutations import ANSWERS, REQUESTS, mutated, pieces
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    import random

    from gateway.upstream.outcome import Receive, Scope, Send


def read_answer(parts: list[bytes], *, to_head: bool) -> tuple[object, ...]:
    """What these bytes come to."""
    reader = AnswerReader(to_head=to_head)
    body = b""
    for part in parts:
        reader.feed(part)
        body += reader.take_body()
    reusable = reader.reusable
    reader.finish()
    assert reader.complete is (reader.problem is None)
    assert not reader.reusable
    head = None if reader.head is None else (reader.head.status, tuple(reader.head.headers))
    return head, body, reader.complete, reusable


def one_answer(dice: random.Random) -> None:
    """One mutated answer, whole and in pieces, for a GET and for a HEAD."""
    data = mutated(ANSWERS, dice)
    for to_head in (False, True):
        whole = read_answer([data], to_head=to_head)
        cut = read_answer(pieces(data, dice), to_head=to_head)
        if not whole[2] and not cut[2]:
            continue  # of a broken one, how much of it was seen before it broke may differ
        if whole != cut and data[-1:] in {b"\r", b"\n"}:
            # The parser skips blank lines behind an answer, unless they come later: then nobody uses the connection again.
            assert read_answer([data[:-1]], to_head=to_head)[:3] == whole[:3] == cut[:3], (data, to_head)
        else:
            assert whole == cut, (data, to_head)


async def tame_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and says how long it was; asserts that it was announced in one way."""
    names = [name for name, _ in scope["headers"]]
    framings = [name for name in names if name in {b"content-length", b"transfer-encoding"}]
    assert len(framings) <= 1, scope
    assert names.count(b"host") == 1 or scope["http_version"] == "1.0", scope
    assert scope["raw_path"].startswith(b"/"), scope
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    assert framings or not length, scope
    body = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def one_request(address: tuple[str, int], dice: random.Random) -> bytes:
    """Some mutated bytes to a listener; what it was, once every answer was whole and the connection has ended."""
    data = mutated(REQUESTS, dice)
    async with await RawClient.connect(address) as client:
        for part in pieces(data, dice):
            client.writer.write(part)
            await asyncio.sleep(0)
        received = await client.rest()
    rest = received
    while rest:
        head, end, rest = rest.partition(b"\r\n\r\n")
        assert end, (data, received)
        assert head.startswith(b"HTTP/1.1 "), (data, received)
        if head.startswith(b"HTTP/1.1 100"):
            continue
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
        if not rest.startswith(b"HTTP/1.1 ") and rest:  # but for the answer to a HEAD
            assert len(rest) >= length, (data, received)
            rest = rest[length:]
    return data
