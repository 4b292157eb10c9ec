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
    assert first.one("content-length") == ("7" if b"Content-Length: 7" in said else None)


REAL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ],
    ids=["HEAD", "204", "304", "length", "chunked"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["in one write", "in two"])
async def test_bytes_behind_a_complete_answer_are_never_given_to_anyone(ask: bytes, said: bytes, at_once: bool) -> None:
    """What httpx and httpcore got wrong: the next user of the pool was answered with them."""

    async def script(visit: Visit) -> None:
        if b"/victim" in await visit.request():
            await visit.say(REAL)
        elif at_once:
            await visit.say(said + POISON)
        else:
            await visit.say(said)
            await asyncio.sleep(0)
            await visit.say(POISON)

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with (
            listening(app) as address,
            await RawClient.connect(address) as attacker,
            await RawClient.connect(address) as victim,
        ):
            for _ in range(20):
                answer = await attacker.ask(ask, to_head=ask is HEAD)
                assert b"poison" not in answer.body
                own = await victim.ask(b"GET /victim HTTP/1.1\r\nHost: gw\r\n\r\n")
                assert own.body == b"real"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ,chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        b"\xff\xff\xff\xff\r\n\r\n",
        b"<html>hello</html>\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 699 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nfree talk",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: %b\r\n" % (b"a" * 1000) * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 400_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 1001 + b"\r\n",
    ],
    ids=lambda said: repr(said[:60]),
)
async def test_an_answer_that_http_does_not_allow_is_a_502_and_ends_the_upstream_connection(said: bytes) -> None:
    async with scripted_upstream(saying(said)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
            assert (answer.status, answer.one("x-gateway-reason")) == (502, "upstream_protocol_error")
            await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    ],
    ids=["length", "between chunks", "within a chunk"],
)
@pytest.mark.parametrize("by_reset", [False, True], ids=["closed", "reset"])
async def test_an_upstream_that_dies_within_the_body_ends_as_a_broken_connection(said: bytes, by_reset: bool) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        await got_some.wait()
        if by_reset:
            visit.reset()
        else:
            visit.writer.close()

    got_some = asyncio.Event()
    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(GET)
            await client.reader.readuntil(b"half")
            got_some.set()
            assert await client.rest() in {b"", b"\r\n"}  # never the last chunk
        outcome = await app.outcome()
    assert isinstance(outcome, AnswerBroken)
    assert (outcome.status, outcome.bytes_sent, outcome.reason) == (200, 4, Reason.UPSTREAM_PROTOCOL_ERROR)


async def test_a_chunk_that_can_not_be_read_ends_as_a_broken_connection() -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nno\r\n0\r\n\r\n"
    answer, app = await answer_to(said)
    assert (answer.status, answer.body, answer.whole) == (200, b"ok", False)
    assert isinstance(await app.outcome(), AnswerBroken)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["before the head", "within the head"])
async def test_an_upstream_that_dies_before_its_head_is_whole_is_a_502(said: bytes) -> None:
    answer, _ = await answer_to(said, closes=True)
    assert (answer.status, answer.one("x-gateway-reason")) == (502, "upstream_protocol_error")


async def test_a_body_that_lasts_until_the_close_is_passed_on_whole() -> None:
    answer, app = await answer_to(b"HTTP/1.1 200 OK\r\n\r\nall of it", closes=True)
    assert (answer.body, answer.whole) == (b"all of it", True)
    assert answer.one("transfer-encoding") == "chunked"
    assert isinstance(await app.outcome(), Forwarded)


async def test_a_body_that_lasts_until_the_close_but_ends_in_a_reset_is_broken() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await got_some.wait()
        visit.reset()

    got_some = asyncio.Event()
    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(GET)
            await client.reader.readuntil(b"half")
            got_some.set()
            assert b"0\r\n\r\n" not in await client.rest()
        assert isinstance(await app.outcome(), AnswerBroken)


@pytest.mark.parametrize(
    "framing", [b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"\r\nhalf"], ids=["chunked", "close"]
)
async def test_an_http_1_0_caller_sees_a_broken_answer_as_a_reset_since_a_close_would_complete_it(
    framing: bytes,
) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n" + framing)
        await got_some.wait()
        visit.reset()

    got_some = asyncio.Event()
    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(b"GET /x HTTP/1.0\r\n\r\n")
            head = await client.reader.readuntil(b"half")
            assert b"chunked" not in head.lower()
            got_some.set()
            with pytest.raises(ConnectionResetError):
                await client.reader.read()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nall",
        b"HTTP/1.0 200 OK\r\n\r\nall",
    ],
    ids=["chunked", "length", "until close"],
)
async def test_an_http_1_0_caller_is_never_sent_chunks_and_is_not_kept(said: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        visit.writer.close()

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"all"


async def test_informational_answers_are_read_over_and_the_final_one_arrives() -> None:
    answer, _ = await answer_to(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <early>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nLink: <late>\r\n\r\nok"
    )
    assert (answer.status, answer.body, answer.all("link")) == (200, b"ok", ["<late>"])


async def test_trailers_of_an_answer_are_dropped_and_not_announced() -> None:
    answer, _ = await answer_to(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    assert (answer.body, answer.whole) == (b"ok", True)
    assert answer.headers == [("Transfer-Encoding", "chunked")]


@pytest.mark.parametrize("status", [200, 299, 400, 401, 402, 418, 499, 500, 503, 599])
async def test_every_final_status_of_the_upstream_passes_untouched(status: int) -> None:
    answer, _ = await answer_to(b"HTTP/1.1 %d My own reason\r\nContent-Length: 2\r\n\r\nok" % status)
    assert (answer.status, answer.body, answer.one("x-gateway-reason")) == (status, b"ok", None)


@pytest.mark.parametrize(
    "headers",
    [
        b"A: %b\r\n" % (b"a" * 60_000),
        b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(200)),
        b"Location: /%b\r\n" % (b"l" * 8192),
    ],
    ids=["one of 60 KiB", "200 of them", "a long Location"],
)
async def test_large_headers_of_an_answer_pass(headers: bytes) -> None:
    answer, _ = await answer_to(b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: 0\r\n\r\n")
    assert answer.status == 200
    assert headers in answer.head


async def test_redirects_are_passed_on_and_not_followed() -> None:
    async with scripted_upstream(saying(b"")) as elsewhere:
        answer, _ = await answer_to(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b/\r\nContent-Length: 0\r\n\r\n" % elsewhere.url.encode()
        )
        assert (answer.status, answer.one("location")) == (307, f"{elsewhere.url}/")
        assert elsewhere.visits == []


async def test_a_cookie_set_for_one_caller_is_sent_by_no_other() -> None:
    async with scripted_upstream(
        saying(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=alice\r\nContent-Length: 0\r\n\r\n")
    ) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address:
            for _ in range(2):
                async with await RawClient.connect(address) as client:
                    assert (await client.ask(GET)).one("set-cookie") == "session=alice"
        assert len(upstream.visits) == 2
        assert all("cookie" not in dict(visit.headers) for visit in upstream.visits)


async def test_headers_of_an_answer_that_are_for_one_hop_only_stop_here() -> None:
    answer, _ = await answer_to(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, close, content-length\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n"
        b"Upgrade: h2c\r\nTE: x\r\nX-Gateway-Tier: pro\r\nx_gateway_customer: admin\r\nX-Keep: 1\r\nContent-Length: 2\r\n\r\nok"
    )
    assert answer.headers == [("X-Keep", "1"), ("Content-Length", "2")]


async def test_each_event_of_a_stream_arrives_before_the_next_is_sent() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(4):
            await visit.say(b"data: %d\n\n" % number)
            await arrived.get()
        visit.writer.close()

    arrived: asyncio.Queue[None] = asyncio.Queue()
    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(GET)
            for number in range(4):
                await asyncio.wait_for(client.reader.readuntil(b"data: %d\n\n" % number), 5)
                arrived.put_nowait(None)
            await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), 5)


async def test_an_upstream_that_never_answers_is_a_504() -> None:
    async with scripted_upstream(saying(b"")) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), timeouts=Timeouts(response=0.2)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
            assert (answer.status, answer.one("x-gateway-reason")) == (504, "upstream_timeout")
            await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)


async def test_informational_answers_do_not_stretch_the_time_to_answer() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        while not visit.writer.is_closing():
            await visit.say(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.02)

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), timeouts=Timeouts(response=0.3)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            assert (await client.ask(GET)).status == 504


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"HTTP/1.1 200 OK\r\n\r\nhalf"],
    ids=["length", "until close"],
)
async def test_an_upstream_that_falls_silent_within_the_body_ends_as_a_broken_connection(said: bytes) -> None:
    async with scripted_upstream(saying(said)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), timeouts=Timeouts(idle=0.2)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
            assert (answer.status, answer.body, answer.whole) == (200, b"half", False)
        outcome = await app.outcome()
    assert isinstance(outcome, AnswerBroken)
    assert outcome.reason is Reason.UPSTREAM_TIMEOUT
