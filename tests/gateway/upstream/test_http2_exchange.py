"""Upstreams that speak HTTP/2: what they are sent, what of their answers arrives, and what is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from h2.errors import ErrorCodes

from gateway.upstream.forward import Upstreams
from gateway.upstream.outcome import AnswerBroken, Forwarded, UpstreamFailure
from policies.reasons import Reason
from policies.schema import Timeouts, Upstream
from tests.support.calls import Call, asked
from tests.support.gateways import Forwarding, listening
from tests.support.http2_upstream import answering, http2_upstream
from tests.support.rawclient import RawClient
from tests.support.upstreams import saying, scripted_upstream

if TYPE_CHECKING:
    from tests.support.http2_upstream import Stream

GET = b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n"


async def test_a_plain_get_arrives_with_nothing_added_but_what_is_documented() -> None:
    async with http2_upstream(answering) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            assert (await client.ask(GET)).body == b"ok"
        assert upstream.streams[0].fields == [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", f"127.0.0.1:{upstream.port}"),
            (":path", "/x"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "gw"),
            ("x-request-id", "r1"),
        ]
        assert upstream.streams[0].whole.is_set()


@pytest.mark.parametrize("target", [b"/a/../b", b"//x", b"/a%2Fb%00?q=%zz&'", b"/?", b"/x?", b"/%C3%A9;v=1"])
async def test_the_target_arrives_byte_for_byte(target: bytes) -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        assert await asked(upstreams, target) == (200, b"ok")
        assert upstream.streams[0].one(":path") == target.decode()
        await upstreams.aclose()


async def test_headers_that_come_several_times_arrive_in_order_and_none_is_remembered_for_the_next_caller() -> None:
    sent = [
        (b"x-d", b"1"),
        (b"cookie", b"a=1"),
        (b"x-d", b"2"),
        (b"cookie", b"b=2"),
        (b"x-l", b"caf\xe9"),
        (b"x-e", b""),
    ]
    async with http2_upstream(answering) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        for _ in range(2):
            await Call(upstreams, headers=sent).answer()
        for stream in upstream.streams:
            assert stream.fields[4:] == [(name.decode(), value.decode("latin-1")) for name, value in sent]
        assert list(upstream.peers[0].h2.decoder.header_table.dynamic_entries) == []
        await upstreams.aclose()


async def test_the_callers_host_becomes_the_authority_where_it_is_kept() -> None:
    async with http2_upstream(answering) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True, host="caller"))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.ask(GET)
        assert upstream.streams[0].one(":authority") == "gw"
        assert "host" not in dict(upstream.streams[0].fields)


@pytest.mark.parametrize(
    ("request_bytes", "length", "body"),
    [
        (b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 5\r\n\r\nhello", "5", b"hello"),
        (b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n", "0", b""),
        (b"POST /x HTTP/1.1\r\nHost: gw\r\n\r\n", None, b""),
        (b"POST /x HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", None, b"hello"),
        (b"POST /x HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-t: 1\r\n\r\n", None, b""),
        (b"POST /x HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok", "2", b"ok"),
    ],
)  # fmt: skip
async def test_a_body_arrives_whole_and_how_it_was_framed_does_not(
    request_bytes: bytes, length: str | None, body: bytes
) -> None:
    async with http2_upstream(answering) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(request_bytes)
            answer = await client.answer()
            if answer.status == 100:
                answer = await client.answer()
            assert answer.body == b"ok"
        (stream,) = upstream.streams
        fields = dict(stream.fields)
        assert stream.body == body
        assert fields.get("content-length") == length
        assert not {"transfer-encoding", "connection", "expect", "te", "trailer", "x-t"} & fields.keys()


async def test_large_bodies_pass_both_ways_at_the_pace_of_the_windows() -> None:
    body = bytes(range(256)) * 8192  # twice the window of a stream, both ways

    async def echo(stream: Stream) -> None:
        await stream.request()
        await stream.answer(stream.body, 200, ("content-length", str(len(body))))

    async with http2_upstream(echo) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            head = b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % len(body)
            sending = asyncio.create_task(client.send(head + body))
            answer = await client.answer()
            assert answer.body == body
            assert answer.one("content-length") == str(len(body))
            await sending


async def test_headers_of_an_answer_stay_apart_and_in_order_and_those_in_our_name_are_removed() -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        stream.say_head(
            201, ("set-cookie", "a=1"), ("link", "<a>"), ("set-cookie", "b=2"), ("x-gateway-tier", "pro"), ("x-e", "")
        )
        await stream.say(b"done", end=True)

    async with http2_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
        assert (answer.status, answer.body) == (201, b"done")
        assert answer.headers[:-1] == [("set-cookie", "a=1"), ("link", "<a>"), ("set-cookie", "b=2"), ("x-e", "")]


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, [("content-length", "7")]),
        ("HEAD", 200, []),
        ("GET", 204, []),
        ("GET", 304, [("content-length", "7"), ("etag", "x")]),
    ],
)
@pytest.mark.parametrize("ends_at_head", [True, False])
async def test_an_answer_without_a_body_has_none_and_keeps_its_length(
    method: str, status: int, headers: list[tuple[str, str]], ends_at_head: bool
) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        stream.say_head(status, *headers, end=ends_at_head)
        if not ends_at_head:
            await stream.say(b"", end=True)

    async with http2_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            for _ in range(2):
                answer = await client.ask(
                    f"{method} /x HTTP/1.1\r\nHost: gw\r\n\r\n".encode(), to_head=method == "HEAD"
                )
                assert (answer.status, answer.body) == (status, b"")
                assert [header for header in headers if header in answer.headers] == headers
        assert upstream.connections == 1


async def test_informational_answers_and_trailers_are_dropped() -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        for _ in range(3):
            stream.peer.h2.send_headers(stream.identity, [(":status", "103"), ("link", "</a>")])
        stream.say_head(200, ("content-type", "text/plain"))
        await stream.say(b"body")
        stream.peer.h2.send_headers(stream.identity, [("grpc-status", "0"), ("authorization", "evil")], end_stream=True)
        stream.peer.flush()

    async with http2_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
        assert (answer.body, answer.whole) == (b"body", True)
        assert not answer.all("grpc-status") + answer.all("authorization") + answer.all("link")


OK = (":status", "200")


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [
        ("GET", [OK, ("connection", "x-a")], b""),
        ("GET", [OK, ("transfer-encoding", "chunked")], b"2\r\nok\r\n0\r\n\r\n"),
        ("GET", [OK, ("X-Upper", "1")], b""),
        ("GET", [OK, ("x-split", "a\r\nset-cookie: evil")], b""),
        ("GET", [OK, ("x-nul", "a\0b")], b""),
        ("GET", [OK, ("x name", "1")], b""),
        ("GET", [OK, ("content-length", "two")], b"ok"),
        ("GET", [OK, ("content-length", "2"), ("content-length", "3")], b"ok"),
        ("GET", [OK, OK], b"ok"),
        ("GET", [(":status", "999")], b""),
        ("GET", [(":status", "20")], b""),
        ("GET", [("x-a", "1"), OK], b""),
        ("GET", [OK, *[("x-many", "1")] * 1001], b""),
    ],
)
async def test_an_answer_that_may_not_be_is_a_502_and_the_neighbours_are_answered(
    method: str, fields: list[tuple[str, str]], body: bytes
) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        if stream.one(":path") == "/neighbour":
            stream.say_head(200)
            await (await upstream.stream(1)).over.wait()
            await stream.say(b"ok", end=True)
        else:
            stream.raw_head(*fields)
            stream.raw_data(body)

    async with http2_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        neighbour = Call(upstreams, path=b"/neighbour")
        await neighbour.started.wait()
        outcome = await Call(upstreams, method=method).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_PROTOCOL_ERROR
        assert await neighbour.answer() == (200, b"ok")
        assert upstream.streams[1].reset_with in {ErrorCodes.PROTOCOL_ERROR, ErrorCodes.CANCEL}
        assert upstream.connections == 1
        await upstreams.aclose()


@pytest.mark.parametrize(
    ("method", "status", "length", "body"),
    [
        ("GET", 200, "3", b"four"),
        ("GET", 200, "5", b"four"),
        ("GET", 200, "5", b""),
        ("GET", 204, None, b"four"),
        ("GET", 304, None, b"four"),
        ("HEAD", 200, None, b"four"),
    ],
)
async def test_a_body_that_is_not_as_announced_is_broken_and_the_neighbours_are_answered(
    method: str, status: int, length: str | None, body: bytes
) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        if stream.one(":path") == "/neighbour":
            stream.say_head(200)
            await (await upstream.stream(1)).over.wait()
            await stream.say(b"ok", end=True)
        else:
            stream.raw_head((":status", str(status)), *([("content-length", length)] if length else []))
            stream.raw_data(body, end=True)

    async with http2_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        neighbour = Call(upstreams, path=b"/neighbour")
        await neighbour.started.wait()
        broken = Call(upstreams, method=method)
        outcome = await broken.end()
        assert isinstance(outcome, AnswerBroken | UpstreamFailure)
        assert not broken.whole
        upstream.streams[1].over.set()
        assert await neighbour.answer() == (200, b"ok")
        assert upstream.connections == 1
        await upstreams.aclose()


async def test_a_stream_that_is_reset_before_its_head_is_a_502_and_is_not_asked_again() -> None:
    async def script(stream: Stream) -> None:
        if len(upstream.streams) == 1:
            await stream.answer()
        else:
            stream.reset()

    async with http2_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        assert await asked(upstreams) == (200, b"ok")
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert (outcome.reason, "INTERNAL_ERROR" in outcome.cause) == (Reason.UPSTREAM_PROTOCOL_ERROR, True)
        assert len(upstream.streams) == 2
        await upstreams.aclose()


@pytest.mark.parametrize("how", ["reset", "closed", "aborted"])
async def test_an_upstream_that_dies_within_the_body_ends_as_a_broken_connection(how: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        stream.say_head(200)
        await stream.say(b"half")
        if how == "reset":
            stream.reset(ErrorCodes.NO_ERROR)
        elif how == "closed":
            stream.peer.writer.close()
        else:
            stream.peer.writer.transport.abort()

    async with http2_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
        assert (answer.body[: len(b"half")], answer.whole) == (answer.body, False)
        assert isinstance(await app.outcome(), AnswerBroken)


async def test_an_answer_that_comes_before_the_body_has_ended_gets_through_and_the_rest_is_called_off() -> None:
    async def script(stream: Stream) -> None:
        await stream.body_of(5)
        await stream.answer(b"too much", 413)

    async with http2_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        call = Call(upstreams, method="POST", headers=[(b"content-length", b"10")], pieces=[b"hello", None])
        assert await call.answer() == (413, b"too much")
        stream = await upstream.stream()
        await asyncio.wait_for(stream.over.wait(), 20)
        assert not stream.whole.is_set()
        await upstreams.aclose()


async def test_an_early_answer_gets_through_though_the_upstream_then_calls_the_body_off() -> None:
    async def script(stream: Stream) -> None:
        await stream.body_of(1)
        await stream.answer(b"too much", 413)
        stream.reset(ErrorCodes.NO_ERROR)  # RFC 9113, section 8.1

    async with http2_upstream(script) as upstream:
        upstream.takes_bodies = False
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        call = Call(upstreams, method="POST", headers=[(b"transfer-encoding", b"chunked")], pieces=[bytes(60_000)] * 8)
        assert await call.answer() == (413, b"too much")
        await upstreams.aclose()


async def test_a_server_that_does_not_speak_http_2_is_a_502() -> None:
    async with scripted_upstream(saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True)})
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_UNREACHABLE
        assert "HTTP/2" in outcome.cause
        await upstreams.aclose()


async def test_a_server_that_never_says_its_settings_is_a_504() -> None:
    async with scripted_upstream(lambda visit: visit.closed.wait()) as upstream:  # type: ignore[arg-type,return-value]
        timeouts = Timeouts(connect=0.2)
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), http2=True, timeouts=timeouts)})
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_TIMEOUT
        (await upstream.visit()).writer.transport.abort()
        await upstreams.aclose()


async def test_each_event_of_a_stream_arrives_before_the_next_is_sent() -> None:
    taken = asyncio.Event()

    async def script(stream: Stream) -> None:
        await stream.request()
        stream.say_head(200, ("content-type", "text/event-stream"))
        for number in range(3):
            await stream.say(b"data: %d\n\n" % number)
            await asyncio.wait_for(taken.wait(), 20)
            taken.clear()
        await stream.say(b"", end=True)

    async with http2_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), http2=True))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(GET)
            await client.head()
            for number in range(3):
                assert (await client.reader.readuntil(b"\n\n\r\n")).endswith(b"data: %d\n\n\r\n" % number)
                taken.set()
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        assert isinstance(await app.outcome(), Forwarded)
