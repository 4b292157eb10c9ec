"""What an upstream says arrives as it was said, and what it says wrongly never arrives as an answer (C01-C06, C13-C18)."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.outcome import AnswerBroken, Forwarded
from policies.reasons import Reason
from policies.schema import Timeouts, Upstream
from tests.support.gateways import Forwarding, listening
from tests.support.rawclient import RawClient
from tests.support.upstreams import Visit, saying, scripted_upstream

if TYPE_CHECKING:
    from tests.support.rawclient import RawAnswer

GET = b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n"
HEAD = b"HEAD /x HTTP/1.1\r\nHost: gw\r\n\r\n"


async def answer_to(said: bytes, *, ask: bytes = GET, closes: bool = False) -> tuple[RawAnswer, Forwarding]:
    """What a caller gets when the upstream says this to his request."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        if closes:
            visit.writer.close()

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            return await client.ask(ask, to_head=ask is HEAD), app


async def test_an_answer_arrives_with_its_status_headers_and_body() -> None:
    answer, app = await answer_to(b"HTTP/1.1 201 Made\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello")
    assert (answer.status, answer.body, answer.whole) == (201, b"hello", True)
    assert answer.headers == [("Content-Type", "text/x"), ("Content-Length", "5")]
    assert isinstance(await app.outcome(), Forwarded)


async def test_headers_that_come_several_times_stay_apart_and_in_order() -> None:
    answer, _ = await answer_to(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nLink: <1>\r\nSet-Cookie: b=2, c\r\nLink: <2>\r\n"
        b"Vary: A\r\nVary: B\r\nWWW-Authenticate: X\r\nWWW-Authenticate: Y\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.headers[:-1] == [
        ("Set-Cookie", "a=1; Path=/"),
        ("Link", "<1>"),
        ("Set-Cookie", "b=2, c"),
        ("Link", "<2>"),
        ("Vary", "A"),
        ("Vary", "B"),
        ("WWW-Authenticate", "X"),
        ("WWW-Authenticate", "Y"),
    ]


async def test_an_encoded_body_arrives_byte_for_byte_with_its_etag() -> None:
    packed = gzip.compress(b"hello" * 1000, mtime=0)
    answer, _ = await answer_to(
        b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n%b'
        % (len(packed), packed)
    )
    assert answer.body == packed
    assert (answer.one("content-encoding"), answer.one("etag")) == ("gzip", '"x"')


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b'HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: "x"\r\n\r\n'),
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
        (HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
    ids=["204", "304 with length", "HEAD with length", "HEAD chunked"],
)
async def test_an_answer_without_a_body_has_none_and_leaves_the_connection_usable(ask: bytes, said: bytes) -> None:
    async with scripted_upstream(saying(said)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            first = await client.ask(ask, to_head=ask is HEAD)
            again = await client.ask(ask, to_head=ask is HEAD)
    assert first.head == again.head
    assert first.one("transfer-encoding") is None
    assert first.one("content-length") == (b"Content-Length: 7" in said and "7" or None)
