"""Whole conversations, drawn at random, down both ways: what the caller, the upstream and the log see is the same.

The long way is taken with nothing remembered: no fields known again, and a new parser for each answer. `SHORT_WAY_STREAMS=5000`
makes a campaign of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.listener import GatewayProtocol
from gateway.upstream.answer import AnswerReader
from tests.gateway.test_short_way import ANSWERS, MOVING, script
from tests.gateway.test_short_way_hazards import LAST_IN_ITS_OWN_WORDS
from tests.support.house import house, token_for
from tests.support.rawclient import RawClient
from tests.support.ways import watched_ways

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from gateway.known_fields import KnownFields
    from tests.support.house import House
    from tests.support.upstreams import Visit

STREAMS: Final = int(os.environ.get("SHORT_WAY_STREAMS", "15"))
METHODS: Final = ("GET",) * 10 + ("POST",) * 6 + ("HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "PROPFIND", "TRACE")
TARGETS: Final = tuple(
    "/mine /free /read /write /ent /gold /export /nowhere /_gateway/me /pro/%61 /pro//a /pro/../a /PRO/a /pro/a?x=%zz".split()
)
CREDENTIALS: Final = tuple(
    "".join(f"Authorization: {one}\r\n" for one in several)
    for several in (
        *([f"Bearer {token_for('alice')}"],) * 3,
        *([f"Bearer {token_for('bob')}"],) * 2,
        [f"bearer  {token_for('alice')} "],
        [f"Bearer {token_for('alice')}", f"Bearer {token_for('bob')}"],
        ["Basic eA=="],
        [],
    )
)
FIELDS: Final = (
    *(("X-Trace: {}", "Idempotency-Key: {}", "X-Request-Id: {}", "x-trace: {}", "X_Trace: {}") * 2),
    *("X-A: 1", "X-A: 2", "x_a: 1", "X-Gateway-Tier: gold", "X_Gateway_Tier: gold", "X-Request-Id: mine", "Accept: text/html"),
    *("Connection: close", "Connection: x-a", "Connection: authorization, host", "Expect: 100-continue", "TE: trailers"),
    *("Proxy-Connection: close", "Upgrade: h2c", "Connection: Upgrade", "X-Forwarded-For: 1.2.3.4", "Content-Length: 0"),
    *("Host: other.test", "X-HTTP-Method-Override: PUT", "Bad Name: x", "X-E:", "X-L: " + "l" * 9000),
)  # fmt: skip
FEINT: Final = b"GET /open/b HTTP/1.1\r\nContent-Length: 3\r\nX-A: "
"""The end of a body that looks like the beginning of a request."""
EARLY: Final = b"\r\ncontent-length: 3\r\n"
FROM_MOMENT: Final = re.compile(rb'"request_id": ?"[^"]*"|request [0-9a-f]{16}<|/pay/[^"\\> ]*')


@dataclass
class Seen:
    """Of one conversation."""

    answers: list[tuple[bytes, bytes, bool]] = field(default_factory=list)
    visits: list[bytes] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)


def drawn(dice: random.Random) -> list[tuple[bytes, list[bool]]]:
    """What is sent in one piece, and for each request in it whether it is a HEAD."""
    heads: list[str] = []
    stream: list[tuple[bytes, list[bool]]] = []
    for _ in range(dice.randrange(3, 9)):
        method = dice.choice(METHODS)
        asked = dice.choice([*sorted({*ANSWERS} - {"apart"}), *LAST_IN_ITS_OWN_WORDS, "a", "b"])
        target = dice.choice(TARGETS) if dice.random() < 0.3 else f"/{dice.choice(('pro', 'open'))}/{asked}"
        if not heads or dice.random() < 0.3:
            several = [f"{dice.choice(FIELDS)}\r\n" for _ in range(dice.choice((0, 0, 0, 1, 2)))]
            heads.append("".join(["Host: api.test\r\n", dice.choice(CREDENTIALS), *several]))
        fields, body = dice.choice(heads).replace("{}", str(dice.randrange(9))), b""
        if method in {"POST", "PUT", "PATCH"} and "Content-Length" not in fields:
            body = dice.choice((b"", b"hello", b"hello!", b"h" * 9000, b"h" * 17000, FEINT))
            fields += f"Content-Length: {len(body)}\r\n"
            if dice.random() < 0.3:
                fields = fields.replace(f"Content-Length: {len(body)}", "Transfer-Encoding: chunked")
                body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                body += dice.choice((b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nConnection: close\r\n\r\n"))
        whole = f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode() + body
        if not body and dice.random() < 0.1:
            # Refused before its body has come, the end of which then comes with the next request.
            refused = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(FEINT)
            stream += [(refused, [False]), (FEINT + whole, [method == "HEAD"]), (FEINT + whole, [False]), (b"xyz", [])]
        elif stream and dice.random() < 0.15:
            before, are_heads = stream[-1]
            stream[-1] = before + whole, [*are_heads, method == "HEAD"]
        else:
            stream.append((whole, [method == "HEAD"]))
    return stream


async def answering(visit: Visit) -> None:
    head = await visit.head()
    if EARLY not in head:  # the body of which comes once this is answered
        await visit.request()
    words = LAST_IN_ITS_OWN_WORDS.get(head.partition(b" HTTP")[0].rpartition(b"/")[2].decode())
    await (script(visit) if words is None else visit.say(words))


async def held(at: House, stream: list[tuple[bytes, list[bool]]], cuts: random.Random) -> Seen:
    seen, visits = Seen(), at.visit_count()
    at.printed.seek(0)
    at.printed.truncate()
    client = await RawClient.connect(at.address)
    for piece, are_heads in stream:
        cut = cuts.randrange(len(piece)) if cuts.random() < 0.2 else 0
        try:
            await client.send(piece[:cut])
            await asyncio.sleep(0)  # so that the two are read apart most of the time; nothing depends on it
            await client.send(piece[cut:])
            for is_head in are_heads:
                answer = await client.answer(to_head=is_head)
                seen.answers.append((_still(answer.head), _still(answer.body), answer.whole))
        except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
            seen.answers.append((b"the connection has ended", b"", False))
            await client.close()
            client = await RawClient.connect(at.address)
    await client.close()
    last = f"last-{at.visit_count()}"
    await at.raw_get("/open/a", f"X-Request-Id: {last}")
    await at.logged(last)
    seen.visits = [_still(_told(visit.received)) for visit in at.upstream.visits[visits:]]
    moving = {"time", "request_id", "ms", "upstream_ms"}
    seen.lines = [{name: told for name, told in line.items() if name not in moving} for line in at.log()]
    return seen


def _told(received: bytes) -> bytes:
    """What was said to the upstream, less what hangs on which bytes were read together: the sizes of chunks, and what came behind an early answer."""
    head, blank, body = received.partition(b"\r\n\r\n")
    if EARLY in head + b"\r\n":
        return head + blank
    if b"\r\ntransfer-encoding: chunked\r\n" not in head + b"\r\n":
        return received
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        count = int(size, 16)
        whole += rest[:count]
        assert rest[count : count + 2] == b"\r\n"
        body = rest[count + 2 :]
    return head + blank + whole


def _still(data: bytes) -> bytes:
    return FROM_MOMENT.sub(b"", MOVING.sub(b"", data))


async def test_a_conversation_is_the_same_down_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = watched_ways(monkeypatch)
    take_known, renew = GatewayProtocol._take_known, AnswerReader.renew
    known: list[bool] = []

    def taking_known(self: GatewayProtocol, before: KnownFields, data: bytes) -> bool:
        known.append(not ways.closed and take_known(self, before, data))
        return known[-1]

    monkeypatch.setattr(GatewayProtocol, "_take_known", taking_known)
    monkeypatch.setattr(AnswerReader, "renew", lambda self: not ways.closed and renew(self))
    async with house(tmp_path, stripe=False, script=answering) as at:
        await at.grant("alice", "pro")
        await at.grant("bob", "enterprise")
        for number in range(STREAMS):
            stream = drawn(random.Random(number))
            seen: list[Seen] = []
            for ways.closed in (True, False):
                seen.append(await held(at, stream, random.Random(number)))
            assert seen[0] == seen[1], (number, stream)
        assert at.process.gateway.plan.upstreams.state("api").targets[0].pending == 0
    assert sum(ways.taken) >= STREAMS
    assert sum(known) >= STREAMS // 4
