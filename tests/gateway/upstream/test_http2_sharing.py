"""Connections that many callers share (HTTP/2): who leaves, is slow or fails reaches nobody else, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from gateway.upstream.forward import Upstreams
from gateway.upstream.http2_stream import STREAM_WINDOW_BYTES
from gateway.upstream.kept_body import KEPT_BYTES
from gateway.upstream.outcome import AnswerBroken, CallerLeft, Forwarded, UpstreamFailure
from policies.reasons import Reason
from policies.schema import Health, Timeouts, Upstream, UpstreamTls
from tests.support.calls import Call, asked, until
from tests.support.http2_upstream import answering, http2_upstream
from tests.support.tls import Authority
from tests.support.upstreams import saying, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.upstream.http2_pool import Http2Pool
    from gateway.upstream.outcome import Message
    from tests.support.http2_upstream import Http2Upstream, Stream

MIB = 1024 * 1024


def to(upstream: Http2Upstream, **settings: object) -> Upstreams:
    return Upstreams({"api": Upstream.model_validate({"targets": (upstream.url,), "http2": True, **settings})})


def pool_of(upstreams: Upstreams) -> Http2Pool:
    return upstreams._ready["api"].places.pools[0]  # type: ignore[return-value]


async def test_requests_share_one_connection_however_many_come_at_once() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream)
        for _ in range(3):
            answers = await asyncio.gather(*(asked(upstreams, b"/%d" % number) for number in range(50)))
            assert answers == [(200, b"ok")] * 50
        assert upstream.connections == 1
        assert sorted(stream.one(":path") for stream in upstream.streams[:50]) == sorted(f"/{n}" for n in range(50))
        await upstreams.aclose()
        await asyncio.wait_for(upstream.peers[0].told_goodbye.wait(), 20)


async def test_where_the_upstream_allows_few_streams_more_connections_are_opened() -> None:
    together = asyncio.Barrier(6)

    async def script(stream: Stream) -> None:
        await together.wait()
        await stream.answer()

    async with http2_upstream(script, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2}) as upstream:
        upstreams = to(upstream)
        assert await asyncio.gather(*(asked(upstreams) for _ in range(6))) == [(200, b"ok")] * 6
        assert [sum(stream.number == number for stream in upstream.streams) for number in (1, 2, 3)] == [2, 2, 2]
        await upstreams.aclose()


async def test_an_upstream_that_allows_no_stream_at_all_is_not_dialled_for_ever() -> None:
    async with http2_upstream(answering, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 0}) as upstream:
        upstreams = to(upstream)
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert (outcome.reason, upstream.connections) == (Reason.UPSTREAM_UNREACHABLE, 1)
        await upstreams.aclose()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_caller_who_leaves_cancels_his_stream_and_no_other(begun: bool) -> None:
    async def script(stream: Stream) -> None:
        stream.say_head(200) if begun or stream.one(":path") == "/stays" else None
        if stream.one(":path") == "/stays":
            await (await upstream.stream(1)).over.wait()
            await stream.say(b"ok", end=True)

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        stays = Call(upstreams, path=b"/stays")
        await stays.started.wait()
        leaves = Call(upstreams, path=b"/leaves")
        await (leaves.started.wait() if begun else upstream.stream(1))
        leaves.leave()
        assert isinstance(await leaves.end(), CallerLeft)
        assert await stays.answer() == (200, b"ok")
        assert upstream.streams[1].reset_with == ErrorCodes.CANCEL
        assert upstream.connections == 1
        await upstreams.aclose()


async def test_a_caller_who_dies_within_his_body_leaves_an_incomplete_message_upstream() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream)
        call = Call(upstreams, method="POST", headers=[(b"transfer-encoding", b"chunked")], pieces=[b"half", None])
        stream = await upstream.stream()
        await stream.body_of(4)
        call.leave()
        assert isinstance(await call.end(), CallerLeft)
        await asyncio.wait_for(stream.over.wait(), 20)
        assert (stream.reset_with, stream.whole.is_set()) == (ErrorCodes.CANCEL, False)
        stream.whole.set()
        await upstreams.aclose()


async def test_a_request_that_is_cancelled_cancels_its_stream() -> None:
    async def script(stream: Stream) -> None:
        await stream.over.wait()

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        call = Call(upstreams)
        stream = await upstream.stream()
        call.outcome.cancel()
        await asyncio.wait_for(stream.over.wait(), 20)
        assert stream.reset_with == ErrorCodes.CANCEL
        await until(lambda: pool_of(upstreams).pending == 0)
        await upstreams.aclose()


async def test_callers_who_leave_large_answers_unread_stall_nobody() -> None:
    """What httpcore does not: it neither resets such a stream nor gives its part of the connection's window back."""

    async def script(stream: Stream) -> None:
        stream.say_head(200)
        await stream.say(bytes(STREAM_WINDOW_BYTES), end=stream.one(":path") == "/whole")

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        for _ in range(80):  # more than the connection's window in all
            call = Call(upstreams)
            await call.started.wait()
            call.leave()
            await call.end()
        _, body = await asked(upstreams, b"/whole")
        assert len(body) == STREAM_WINDOW_BYTES
        assert upstream.connections == 1
        await upstreams.aclose()


async def test_callers_who_read_nothing_hold_the_upstream_back_and_not_their_neighbours() -> None:
    sent: dict[int, int] = {}
    stopped = asyncio.Event()

    async def script(stream: Stream) -> None:
        stream.say_head(200)
        if stream.one(":path") == "/neighbour":
            return await stream.say(bytes(2 * MIB), end=True)
        await asyncio.wait_for(stopped.wait(), 10)
        for _ in range(64):
            await stream.say(bytes(MIB // 16))
            sent[stream.identity] = sent.get(stream.identity, 0) + MIB // 16
        return await stream.say(b"", end=True)

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        slow = [Call(upstreams) for _ in range(20)]
        for call in slow:
            await asyncio.wait_for(call.started.wait(), 20)
            call.may_take.clear()
        stopped.set()
        _, body = await asked(upstreams, b"/neighbour")
        assert len(body) == 2 * MIB
        assert all(count <= 2 * STREAM_WINDOW_BYTES for count in sent.values())  # of 4 MiB each
        for call in slow:
            call.may_take.set()
        for call in slow:
            assert len((await call.answer())[1]) == 4 * MIB
        await upstreams.aclose()


async def test_an_upstream_that_takes_no_body_holds_the_caller_back_and_is_given_up_in_time() -> None:
    async def script(stream: Stream) -> None:
        await stream.over.wait()

    async with http2_upstream(script) as upstream:
        upstream.takes_bodies = False
        upstreams = to(upstream, timeouts=Timeouts(idle=0.3))
        pieces = [bytes(16 * 1024)] * 64
        call = Call(upstreams, method="PUT", headers=[(b"transfer-encoding", b"chunked")], pieces=pieces)
        outcome = await call.end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_TIMEOUT
        assert len(upstream.streams[0].body) <= 65_535
        assert len(call._pieces) >= 64 - 5
        await upstreams.aclose()


async def test_a_body_goes_on_when_the_windows_open_again() -> None:
    async def script(stream: Stream) -> None:
        await stream.body_of(65_535)
        stream.peer.take_bodies()
        await stream.request()
        await stream.answer(b"%d" % len(stream.body))

    async with http2_upstream(script) as upstream:
        upstream.takes_bodies = False
        upstreams = to(upstream)
        call = Call(
            upstreams, method="PUT", headers=[(b"content-length", b"300000")], pieces=[bytes(100_000)] * 3
        )  # fmt: skip
        assert await call.answer() == (200, b"300000")
        await upstreams.aclose()


async def test_one_streams_timeout_ends_no_other() -> None:
    async def script(stream: Stream) -> None:
        stream.say_head(200) if stream.one(":path") == "/stays" else None
        if stream.one(":path") == "/stays":
            await (await upstream.stream(1)).over.wait()
            await stream.say(b"ok", end=True)

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream, timeouts=Timeouts(response=0.2))
        stays = Call(upstreams, path=b"/stays")
        await stays.started.wait()
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_TIMEOUT
        assert await stays.answer() == (200, b"ok")
        await upstreams.aclose()


async def test_an_upstream_that_falls_silent_within_the_body_ends_as_a_broken_connection() -> None:
    async def script(stream: Stream) -> None:
        stream.say_head(200)
        await stream.say(b"half")

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream, timeouts=Timeouts(idle=0.2))
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, AnswerBroken)
        assert outcome.reason is Reason.UPSTREAM_TIMEOUT
        await upstreams.aclose()


async def test_a_connection_on_which_nothing_comes_any_more_is_not_used_again() -> None:
    async def script(stream: Stream) -> None:
        if stream.number > 1:
            await stream.answer()

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream, timeouts=Timeouts(response=0.2))
        assert isinstance(await Call(upstreams).end(), UpstreamFailure)
        assert await asked(upstreams) == (200, b"ok")
        await upstreams.aclose()


async def test_when_an_upstream_announces_its_end_what_is_under_way_is_answered_and_the_rest_goes_elsewhere() -> None:
    """nginx does so each thousand requests, and at each reload."""

    async def script(stream: Stream) -> None:
        if stream.number > 1:
            return await stream.answer(b"second")
        if stream.one(":path") == "/under-way":
            stream.say_head(200)
            await stream.say(b"fi")
            await upstream.stream(1)
            stream.peer.goaway(last=stream.identity)
            stream.peer.flush()
            await asyncio.wait_for(other.started.wait(), 20)
            await stream.say(b"rst", end=True)
        return None

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        under_way = Call(upstreams, path=b"/under-way")
        await under_way.started.wait()
        other = Call(upstreams, method="POST")  # not idempotent, and not looked at
        assert await other.answer() == (200, b"second")
        assert await under_way.answer() == (200, b"first")
        assert await asked(upstreams) == (200, b"second")
        assert upstream.connections == 2
        await asyncio.wait_for(upstream.peers[0].closed.wait(), 20)
        await upstreams.aclose()


@pytest.mark.parametrize("code", [ErrorCodes.REFUSED_STREAM, ErrorCodes.ENHANCE_YOUR_CALM])
async def test_a_stream_that_was_refused_is_begun_again_once_and_one_that_was_reset_is_not(code: ErrorCodes) -> None:
    async def script(stream: Stream) -> None:
        if len(upstream.streams) == 2:
            stream.reset(code)
        else:
            await stream.answer()

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        assert await asked(upstreams) == (200, b"ok")
        outcome = await Call(upstreams, method="POST").end()
        assert isinstance(outcome, Forwarded if code == ErrorCodes.REFUSED_STREAM else UpstreamFailure)
        await upstreams.aclose()


@pytest.mark.parametrize("how", ["goaway", "refused"])
@pytest.mark.parametrize("sent_whole", [True, False])
async def test_a_body_that_was_not_looked_at_goes_up_once_more_from_its_beginning(how: str, sent_whole: bool) -> None:
    """RFC 9113, section 8.7: it may, whatever the method. nginx does so to whatever comes while it reloads."""
    body = bytes(range(256)) * 100

    async def script(stream: Stream) -> None:
        if stream.one(":path") == "/before":
            return await stream.answer()
        if stream.identity > 1 and stream.number == 1:
            if sent_whole:
                assert await stream.request() == body
            else:
                await stream.body_of(100)
            if how == "goaway":
                stream.peer.goaway(last=1)
            else:
                stream.reset(ErrorCodes.REFUSED_STREAM)
            may_go_on.set()
            return None
        assert await stream.request() == body
        return await stream.answer(b"taken")

    may_go_on = asyncio.Event()

    class Sender(Call):
        async def _receive(self) -> Message:
            if not sent_whole and len(self._pieces) == 1:
                await may_go_on.wait()
            return await super()._receive()

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        assert await asked(upstreams, b"/before") == (200, b"ok")
        length = [(b"content-length", b"%d" % len(body))]
        caller = Sender(
            upstreams, method="POST", headers=length, pieces=[body[:1000], body[1000:20_000], body[20_000:]]
        )
        assert await caller.answer() == (200, b"taken")
        outcome = await caller.end()
        assert isinstance(outcome, Forwarded)
        assert outcome.bytes_received == len(body)
        assert len(upstream.streams) == 3
        await upstreams.aclose()


async def test_a_body_of_which_a_part_is_gone_is_not_sent_again() -> None:
    body = b"x" * (KEPT_BYTES + 1)

    async def script(stream: Stream) -> None:
        if stream.one(":path") == "/before":
            return await stream.answer()
        await stream.body_of(len(body))
        stream.peer.goaway(last=1)
        return None

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        assert await asked(upstreams, b"/before") == (200, b"ok")
        call = Call(upstreams, method="POST", headers=[(b"transfer-encoding", b"chunked")], pieces=[body[:9], body[9:]])
        assert isinstance(await call.end(), UpstreamFailure)
        assert len(upstream.streams) == 2
        await upstreams.aclose()


async def test_a_caller_who_leaves_while_his_body_is_to_go_up_again_is_not_waited_for() -> None:
    async def script(stream: Stream) -> None:
        if stream.one(":path") == "/before":
            return await stream.answer()
        await stream.body_of(1)
        stream.peer.goaway(last=1)
        call.leave()
        return None

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        assert await asked(upstreams, b"/before") == (200, b"ok")
        call = Call(upstreams, method="POST", headers=[(b"transfer-encoding", b"chunked")], pieces=[b"a", None])
        assert isinstance(await call.end(), CallerLeft)
        assert upstreams.state("api").targets[0].pending == 0
        await upstreams.aclose()


@pytest.mark.parametrize(("method", "repeated"), [("GET", True), ("POST", False)])
async def test_only_what_may_be_repeated_is_sent_again_where_the_connection_was_dead(
    method: str, repeated: bool
) -> None:
    async def script(stream: Stream) -> None:
        if len(upstream.streams) == 2:
            stream.peer.writer.transport.abort()
        else:
            await stream.answer()

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        assert await asked(upstreams) == (200, b"ok")
        outcome = await Call(upstreams, method=method).end()
        assert isinstance(outcome, Forwarded if repeated else UpstreamFailure)
        assert len(upstream.streams) == (3 if repeated else 2)
        await upstreams.aclose()


async def test_a_restarted_upstream_is_not_noticed_by_anyone() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream)
        for _ in range(5):
            assert await asked(upstreams, method="POST") == (200, b"ok")
            upstream.peers[-1].writer.close()
            await upstream.peers[-1].closed.wait()
            await until(lambda: pool_of(upstreams).idle == 0)
        assert upstream.connections == 5
        await upstreams.aclose()


async def test_an_unused_connection_is_kept_for_a_while_and_then_given_up() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream, keepalive=0.2)
        assert await asked(upstreams) == (200, b"ok")
        assert pool_of(upstreams).idle == 1
        await asyncio.wait_for(upstream.peers[0].told_goodbye.wait(), 20)
        assert pool_of(upstreams).idle == 0
        assert await asked(upstreams) == (200, b"ok")
        assert upstream.connections == 2
        await upstreams.aclose()


async def test_without_keepalive_a_connection_ends_with_its_last_stream() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream, keepalive=0.0)
        for number in range(2):
            assert await asked(upstreams) == (200, b"ok")
            await asyncio.wait_for(upstream.peers[number].told_goodbye.wait(), 20)
        await upstreams.aclose()


async def test_closing_lets_what_is_under_way_finish() -> None:
    may_end = asyncio.Event()

    async def script(stream: Stream) -> None:
        stream.say_head(200)
        await may_end.wait()
        await stream.say(b"ok", end=True)

    async with http2_upstream(script) as upstream:
        upstreams = to(upstream)
        call = Call(upstreams)
        await call.started.wait()
        await upstreams.aclose()
        may_end.set()
        assert await call.answer() == (200, b"ok")
        await asyncio.wait_for(upstream.peers[0].told_goodbye.wait(), 20)


async def test_a_caller_who_leaves_while_a_connection_is_opened_leaves_it_to_the_others() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream)
        calls = [Call(upstreams) for _ in range(3)]
        while pool_of(upstreams)._waiting < 3:  # noqa: ASYNC110  # `until` would look too seldom
            await asyncio.sleep(0)
        calls[0].leave()
        assert isinstance(await calls[0].end(), CallerLeft)
        assert [await call.answer() for call in calls[1:]] == [(200, b"ok")] * 2
        assert upstream.connections == 1
        await upstreams.aclose()


async def test_when_all_have_left_a_connection_is_opened_for_nobody() -> None:
    async with scripted_upstream(saying(b"")) as silent:
        settings = Upstream(targets=(silent.url,), http2=True, timeouts=Timeouts(connect=60))
        upstreams = Upstreams({"api": settings})
        calls = [Call(upstreams) for _ in range(3)]
        visit = await silent.visit()
        for call in calls:
            call.leave()
        for call in calls:
            assert isinstance(await call.end(), CallerLeft)
        await asyncio.wait_for(visit.closed.wait(), 20)
        assert (pool_of(upstreams).pending, pool_of(upstreams)._dialling) == (0, None)
        await upstreams.aclose()


async def test_a_thousand_callers_who_leave_at_any_moment_leave_no_stream_and_no_place_behind() -> None:
    dice = random.Random(1)

    async def script(stream: Stream) -> None:
        await stream.request()
        stream.say_head(200)
        await stream.say(bytes(dice.randrange(2 * STREAM_WINDOW_BYTES)))
        await stream.say(stream.one(":path").encode(), end=True)

    async with http2_upstream(script, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 10}) as upstream:
        upstreams = to(upstream, max_connections=20, queue=2000)
        pool = pool_of(upstreams)

        async def come_and_go(number: int) -> None:
            call = Call(upstreams, path=b"/%d" % number)
            for _ in range(dice.randrange(60)):
                await asyncio.sleep(0)
            how = dice.randrange(3)
            if how == 0:
                call.leave()
                await call.end()
            elif how == 1:
                call.outcome.cancel()
                await asyncio.wait([call.outcome])
            else:
                assert (await call.answer())[1].endswith(b"/%d" % number)

        for start in range(0, 1000, 50):
            await asyncio.gather(*(come_and_go(number) for number in range(start, start + 50)))
        await until(lambda: pool.pending == 0)
        assert sum(connection.streams for connection in pool._shared) == 0
        answers = await asyncio.gather(*(asked(upstreams, b"/%d" % number) for number in range(20)))
        assert all(body.endswith(b"/%d" % number) for number, (_, body) in enumerate(answers))
        assert all(not connection._streams for connection in pool._shared)
        await upstreams.aclose()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_behind_tls_http_2_is_agreed_on_and_the_checks_agree_on_it_too(authority: Authority) -> None:
    async with http2_upstream(answering, tls=authority.server()) as upstream:
        upstreams = to(upstream, tls=authority.trusted(), health=Health(path="/healthz", interval=0.1))
        upstreams.start()
        await until(lambda: any(stream.one(":path") == "/healthz" for stream in upstream.streams))
        for _ in range(2):
            assert await asked(upstreams) == (200, b"ok")
        assert upstreams.state("api").targets[0].admitted
        assert {stream.one(":scheme") for stream in upstream.streams} == {"https"}
        await upstreams.aclose()


async def test_without_tls_the_checks_speak_http_2_as_the_requests_do() -> None:
    async with http2_upstream(answering) as upstream:
        upstreams = to(upstream, health=Health(path="/healthz", interval=0.05))
        upstreams.start()
        await until(lambda: sum(stream.one(":path") == "/healthz" for stream in upstream.streams) > 2)
        assert upstreams.state("api").targets[0].admitted
        await upstreams.aclose()


async def test_a_target_that_only_takes_http_1_is_spoken_to_in_that(authority: Authority) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    context = authority.server()
    context.set_alpn_protocols(["http/1.1"])
    async with scripted_upstream(saying(ok), tls=context) as upstream:
        target = f"https://localhost:{upstream.address[1]}"
        upstreams = Upstreams({"api": Upstream(targets=(target,), http2=True, tls=authority.trusted())})
        assert await asyncio.gather(*(asked(upstreams) for _ in range(5))) == [(200, b"ok")] * 5
        assert await asked(upstreams) == (200, b"ok")
        assert upstream.connections <= 5
        assert upstream.visits[-1].received.startswith(b"GET /x HTTP/1.1\r\n")
        await upstreams.aclose()


async def test_a_target_that_has_learnt_http_2_is_spoken_to_in_that(authority: Authority) -> None:
    context = authority.server()
    async with http2_upstream(answering, tls=context) as upstream:
        context.set_alpn_protocols(["http/1.1"])
        upstreams = to(upstream, tls=UpstreamTls(ca=str(authority.file)))
        assert isinstance(await Call(upstreams).end(), UpstreamFailure)  # its bytes are none of HTTP/1.1
        upstream.faults.clear()
        context.set_alpn_protocols(["h2"])
        assert await asyncio.gather(*(asked(upstreams) for _ in range(5))) == [(200, b"ok")] * 5
        assert await asked(upstreams) == (200, b"ok")
        await upstreams.aclose()


async def test_an_upstream_that_asks_without_end_and_reads_nothing_is_let_go() -> None:
    """CVE-2019-9512: pings, each of which asks for an answer."""
    ping = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
    settings = b"\0\0\0\x04\0\0\0\0\0"

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._limit = 1  # type: ignore[attr-defined]
        writer.write(settings)
        try:
            while True:
                writer.write(ping * 4096)
                await writer.drain()
        except (ConnectionResetError, BrokenPipeError):
            gone.set()
        finally:
            writer.transport.abort()

    gone = asyncio.Event()
    server = await asyncio.start_server(flood, "127.0.0.1", 0, limit=1)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstreams = Upstreams({"api": Upstream(targets=(url,), http2=True)})
    outcome = await Call(upstreams).end()
    assert isinstance(outcome, UpstreamFailure)
    await asyncio.wait_for(gone.wait(), 10)
    server.close()
    await upstreams.aclose()
