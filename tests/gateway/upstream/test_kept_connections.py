"""When a connection to an upstream is used again, when it is not, and when a request is sent a second time (C03, C04, C07)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.forward import Upstreams
from gateway.upstream.outcome import AnswerBroken, CallerLeft, UpstreamFailure
from gateway.upstream.pool import LONGEST_LIFE_SECONDS
from gateway.upstream.request_head import request_head
from policies.reasons import Reason
from policies.schema import Timeouts, Upstream
from tests.support.calls import Call, asked, until
from tests.support.upstreams import ScriptedUpstream, Visit, saying, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@contextlib.asynccontextmanager
async def to(
    script: Callable[[Visit], Awaitable[None]], **settings: object
) -> AsyncIterator[tuple[Upstreams, ScriptedUpstream]]:
    async with scripted_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), **settings)})  # type: ignore[arg-type]
        try:
            yield upstreams, upstream
        finally:
            await upstreams.aclose()


def idle(upstreams: Upstreams) -> int:
    return sum(target.idle for target in upstreams.state("api").targets)


def pending(upstreams: Upstreams) -> int:
    return sum(target.pending for target in upstreams.state("api").targets)


@pytest.mark.parametrize(
    "said",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["length", "chunked with trailers", "informational first", "1.0 that keeps", "other options"],
)
async def test_one_connection_serves_one_request_after_the_other(said: bytes) -> None:
    async with to(saying(said)) as (upstreams, upstream):
        for _ in range(10):
            assert await asked(upstreams) == (200, b"ok")
        assert [visit.connection for visit in upstream.visits] == [1] * 10
        assert (idle(upstreams), pending(upstreams)) == (1, 0)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
    ],
    ids=["HEAD with length", "HEAD chunked", "HEAD plain", "HEAD after 103", "204", "304 with length"],
)
async def test_after_an_answer_without_a_body_the_connection_is_used_again_once_it_has_stayed_silent(
    method: str, said: bytes
) -> None:
    async with to(saying(said)) as (upstreams, upstream):
        assert (await asked(upstreams, method=method))[1] == b""
        await asked(upstreams, method=method)
        assert [visit.connection for visit in upstream.visits] == [1, 2]  # the first one still settles
        await asyncio.sleep(0.1)
        await asked(upstreams, method=method)
        assert upstream.connections == 2
        assert idle(upstreams) == 2


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, CLOSE\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\n\r\nok", True),
        (OK + b"x", False),
        (OK + OK, False),
    ],
    ids=["close", "both", "both in two fields", "1.0", "until close", "a byte behind", "an answer behind"],
)
async def test_a_connection_whose_end_is_near_or_in_doubt_is_closed_and_not_used_again(
    said: bytes, closes: bool
) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        if closes:
            visit.writer.close()

    async with to(script) as (upstreams, upstream):
        for number in range(3):
            assert await asked(upstreams) == (200, b"ok")
            await asyncio.wait_for(upstream.visits[number].closed.wait(), 20)
        assert [visit.connection for visit in upstream.visits] == [1, 2, 3]
        assert (idle(upstreams), pending(upstreams)) == (0, 0)


async def test_without_keepalive_each_request_has_its_own_connection() -> None:
    async with to(saying(OK), keepalive=0.0) as (upstreams, upstream):
        for _ in range(3):
            assert await asked(upstreams) == (200, b"ok")
        assert [visit.connection for visit in upstream.visits] == [1, 2, 3]


async def test_the_connection_that_was_used_last_is_used_first_and_the_others_age_out() -> None:
    async with to(saying(OK), keepalive=0.4) as (upstreams, upstream):
        await asyncio.gather(*(asked(upstreams) for _ in range(5)))
        assert idle(upstreams) == 5
        used = set()
        for _ in range(12):
            await asked(upstreams)
            used.add(upstream.visits[-1].connection)
            await asyncio.sleep(0.05)
        assert len(used) == 1
        assert idle(upstreams) == 1
        await until(lambda: idle(upstreams) == 0)
        await asyncio.wait_for(asyncio.gather(*(visit.closed.wait() for visit in upstream.visits)), 5)


@pytest.mark.parametrize("late", [b"", POISON, b"\r\n"], ids=["its end", "an answer", "a blank line"])
async def test_what_arrives_on_a_connection_at_rest_closes_it(late: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)
        await now.wait()
        if late:
            await visit.say(late)
        else:
            visit.writer.close()

    now = asyncio.Event()
    async with to(script) as (upstreams, upstream):
        assert await asked(upstreams) == (200, b"ok")
        assert idle(upstreams) == 1
        now.set()
        await until(lambda: idle(upstreams) == 0)
        await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)
        assert await asked(upstreams) == (200, b"ok")
        assert upstream.connections == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_lies_unread_in_the_kernel_when_a_request_comes_is_nobodys_answer(method: str) -> None:
    """The bytes are there, and the event loop has not been told of them yet."""
    async with to(saying(OK)) as (upstreams, upstream):
        for number in range(20):
            assert await asked(upstreams) == (200, b"ok")
            visit = upstream.visits[-1]
            os.write(visit.writer.get_extra_info("socket").fileno(), POISON)
            # From here to the next request the event loop doesn't run.
            assert await asked(upstreams, method=method) == (200, b"ok")
            assert upstream.connections == number * 2 + 2
            await until(lambda: idle(upstreams) == 1)
            await upstreams_emptied(upstream)
            await until(lambda: idle(upstreams) == 0)


async def upstreams_emptied(upstream: ScriptedUpstream) -> None:
    upstream.visits[-1].writer.close()
    await upstream.visits[-1].closed.wait()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 43\r\n\r\n"),
    ],
    ids=["HEAD", "204", "304"],
)
@pytest.mark.parametrize("delay", [None, 0.0, 0.005], ids=["at once", "next write", "a moment later"])
async def test_a_body_where_none_may_be_reaches_nobody_however_eager_the_next_caller_is(
    method: str, said: bytes, delay: float | None
) -> None:
    """The next request is there before the bytes are: only a connection that isn't used again yet keeps them apart."""

    async def script(visit: Visit) -> None:
        if b"/victim" in await visit.request():
            await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal")
        elif delay is None:
            await visit.say(said + POISON)
        else:
            await visit.say(said)
            await asyncio.sleep(delay)
            await visit.say(POISON)

    async with to(script) as (upstreams, _):
        for _ in range(30):
            assert (await asked(upstreams, method=method))[1] == b""
            assert await asked(upstreams, b"/victim") == (200, b"real")


# Sent a second time, or not.


def dies_when_used_again(*, after: bytes = b"") -> Callable[[Visit], Awaitable[None]]:
    """Answers the first request of a connection and closes it upon the second, having said `after`."""

    async def script(visit: Visit) -> None:
        first = visit.connection not in seen
        seen.add(visit.connection)
        await visit.request()
        if first:
            await visit.say(OK)
        else:
            if after:
                await visit.say(after)
            visit.writer.close()

    seen: set[int] = set()
    return script


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "DELETE"])
async def test_a_request_that_may_be_repeated_is_sent_again_where_the_kept_connection_was_dead(method: str) -> None:
    async with to(dies_when_used_again()) as (upstreams, upstream):
        assert await asked(upstreams, method=method) == (200, b"ok")
        assert await asked(upstreams, method=method) == (200, b"ok")
        assert [visit.connection for visit in upstream.visits] == [1, 1, 2]
        assert (idle(upstreams), pending(upstreams)) == (1, 0)
        assert upstreams.state("api").targets[0].admitted


@pytest.mark.parametrize(
    ("method", "headers", "pieces"),
    [
        ("POST", [], []),
        ("PATCH", [], []),
        ("POST", [(b"content-length", b"4")], [b"body"]),
        ("PUT", [(b"content-length", b"4")], [b"body"]),
        ("GET", [(b"transfer-encoding", b"chunked")], [b"body"]),
    ],
    ids=["POST", "PATCH", "POST with a body", "PUT with a body", "GET with a body"],
)
async def test_a_request_that_may_not_be_repeated_is_a_502_and_was_sent_once(
    method: str, headers: list[tuple[bytes, bytes]], pieces: list[bytes]
) -> None:
    async with to(dies_when_used_again()) as (upstreams, upstream):
        await asked(upstreams)
        outcome = await Call(upstreams, method=method, headers=headers, pieces=pieces).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_PROTOCOL_ERROR
        assert [visit.connection for visit in upstream.visits] == [1, 1]
        assert (idle(upstreams), pending(upstreams)) == (0, 0)


@pytest.mark.parametrize("after", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["one byte", "an informational answer"])
async def test_once_a_byte_of_an_answer_has_come_nothing_is_sent_again(after: bytes) -> None:
    async with to(dies_when_used_again(after=after)) as (upstreams, upstream):
        await asked(upstreams)
        assert isinstance(await Call(upstreams).end(), UpstreamFailure)
        assert [visit.connection for visit in upstream.visits] == [1, 1]


async def test_a_fresh_connection_that_dies_is_not_tried_again() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        visit.writer.close()

    async with to(script) as (upstreams, upstream):
        assert isinstance(await Call(upstreams).end(), UpstreamFailure)
        assert upstream.connections == 1


async def test_a_request_is_sent_again_once_and_not_more_often() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        if not broken.is_set():
            await visit.say(OK)
        else:
            visit.writer.close()

    broken = asyncio.Event()
    async with to(script) as (upstreams, upstream):
        await asyncio.gather(*(asked(upstreams) for _ in range(4)))
        assert idle(upstreams) == 4
        broken.set()
        assert isinstance(await Call(upstreams).end(), UpstreamFailure)
        assert len(upstream.visits) == 4 + 2


async def test_an_upstream_that_is_only_slow_is_not_asked_again() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        if visit is upstream.visits[0]:
            await visit.say(OK)

    async with to(script, timeouts=Timeouts(response=0.2)) as (upstreams, upstream):
        await asked(upstreams)
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_TIMEOUT
        assert [visit.connection for visit in upstream.visits] == [1, 1]


async def test_a_restarted_upstream_is_not_noticed_by_anyone() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)

    async with to(script) as (upstreams, upstream):
        await asyncio.gather(*(asked(upstreams) for _ in range(10)))
        for visit in upstream.visits:
            visit.writer.transport.abort()
        answers = await asyncio.gather(*(asked(upstreams, method=m) for m in ["GET", "POST"] * 5))
        assert set(answers) == {(200, b"ok")}


# Ends that leave a connection unusable.


async def test_after_an_answer_that_came_before_the_bodys_end_the_connection_is_closed() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")

    async with to(script) as (upstreams, upstream):
        call = Call(upstreams, method="POST", headers=[(b"content-length", b"10")], pieces=[b"half", None])
        assert await call.answer() == (413, b"big")
        assert (idle(upstreams), pending(upstreams)) == (0, 0)
        await asyncio.wait_for(upstream.visits[0].closed.wait(), 2)


async def test_after_an_answer_that_came_while_the_body_was_not_all_sent_the_connection_is_closed() -> None:
    body = bytes(20_000_000)  # more than the kernel's buffers take from an upstream that reads none of it

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await stop.wait()

    stop = asyncio.Event()
    async with to(script) as (upstreams, _):
        length = b"%d" % len(body)
        call = Call(upstreams, method="POST", headers=[(b"content-length", length)], pieces=[body])
        assert await call.answer() == (413, b"big")
        assert (idle(upstreams), pending(upstreams)) == (0, 0)
        stop.set()


async def test_an_upstream_that_takes_a_body_and_never_answers_is_given_up_in_time() -> None:
    async with to(saying(b""), timeouts=Timeouts(response=0.2)) as (upstreams, _):
        headers = [(b"transfer-encoding", b"chunked")]
        outcome = await Call(upstreams, method="POST", headers=headers, pieces=[b"one", b"two"]).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_connection_is_not_kept_for_ever_so_that_a_name_which_moves_is_followed() -> None:
    async with to(saying(OK)) as (upstreams, upstream):
        await asked(upstreams)
        (pool,) = upstreams._ready["api"].places.pools
        for connection in pool._idle:
            connection.opened_at -= LONGEST_LIFE_SECONDS + 1
        await asked(upstreams)
        assert idle(upstreams) == 0
        await asked(upstreams)
        assert [visit.connection for visit in upstream.visits] == [1, 1, 2]


async def test_a_connection_that_ends_before_its_first_request_is_known_to_be_at_its_end() -> None:
    connection = UpstreamConnection(asyncio.get_running_loop())
    connection.connection_lost(None)
    assert connection.begin(request_head("GET", b"/", []), b"gw").over
    assert not connection.reusable
    assert not connection.is_silent()


@pytest.mark.parametrize("pieces", [[b"shor"], [b"shor", b"t and much too long"], [b""]])
async def test_a_body_that_contradicts_its_length_never_reaches_into_the_next_request(pieces: list[bytes]) -> None:
    async with to(saying(OK)) as (upstreams, upstream):
        call = Call(upstreams, method="POST", headers=[(b"content-length", b"5")], pieces=pieces)
        with pytest.raises(RuntimeError, match="Content-Length"):
            await call.end()
        await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)
        assert await asked(upstreams) == (200, b"ok")
        assert len(upstream.visits[0].body) < 5
        assert (idle(upstreams), pending(upstreams)) == (1, 0)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"4"), (b"content-length", b"5")],
        [(b"content-length", b"-4")],
        [(b"content-length", b"4, 4")],
        [(b"content-length", b"")],
    ],
)
async def test_a_request_that_is_framed_twice_or_unclearly_is_never_sent(headers: list[tuple[bytes, bytes]]) -> None:
    async with to(saying(OK)) as (upstreams, upstream):
        with pytest.raises(ValueError, match=r"framed twice|length of the body"):
            await Call(upstreams, method="POST", headers=headers, pieces=[b"body"]).end()
        assert upstream.connections == 0


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"], ids=["head", "body"])
async def test_a_caller_who_leaves_takes_the_connection_with_him_and_not_the_place(said: bytes) -> None:
    async with to(saying(said)) as (upstreams, upstream):
        call = Call(upstreams)
        await (await upstream.visit()).request()
        if said:
            await call.started.wait()
        call.leave()
        assert isinstance(await call.end(), CallerLeft)
        await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)
        assert (idle(upstreams), pending(upstreams)) == (0, 0)
        assert upstreams.state("api").targets[0].admitted


async def test_a_caller_who_takes_a_large_answer_slowly_leaves_a_connection_that_can_be_used_again() -> None:
    body = bytes(range(256)) * 8192

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with to(script) as (upstreams, upstream):
        for _ in range(3):
            call = Call(upstreams)
            call.may_take.clear()
            await (await upstream.visit()).request()
            await asyncio.sleep(0.05)  # in which the buffer fills and reading is paused
            call.may_take.set()
            assert await call.answer() == (200, body)
            await asyncio.sleep(0.1)
        assert upstream.connections == 1


@pytest.mark.parametrize("behind", [b"", POISON], ids=["its end", "an answer"])
async def test_what_came_behind_a_large_answer_while_reading_was_paused_is_found_at_rest(behind: bytes) -> None:
    body = bytes(200_000)

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await taken.wait()
        if behind:
            await visit.say(behind)
        else:
            visit.writer.close()

    taken = asyncio.Event()
    async with to(script) as (upstreams, upstream):
        call = Call(upstreams)
        call.may_take.clear()
        await (await upstream.visit()).request()
        await asyncio.sleep(0.05)
        call.may_take.set()
        assert await call.answer() == (200, body)
        taken.set()
        await until(lambda: idle(upstreams) == 0, 2)


async def test_an_answer_that_breaks_ends_the_connection() -> None:
    async with to(saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")) as (upstreams, upstream):
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, AnswerBroken | UpstreamFailure)
        await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)
        assert (idle(upstreams), pending(upstreams)) == (0, 0)


# The life of the whole.


async def test_closing_ends_connections_at_rest_at_once_and_those_in_use_with_their_exchange() -> None:
    async def script(visit: Visit) -> None:
        if b"/slow" in await visit.request():
            await go_on.wait()
        await visit.say(OK)

    go_on = asyncio.Event()
    async with to(script) as (upstreams, upstream):
        slow = Call(upstreams, path=b"/slow")
        await (await upstream.visit()).request()
        await asked(upstreams)
        assert (idle(upstreams), pending(upstreams)) == (1, 1)
        await upstreams.aclose()
        assert (idle(upstreams), pending(upstreams)) == (0, 1)
        go_on.set()
        assert await slow.answer() == (200, b"ok")
        assert (idle(upstreams), pending(upstreams)) == (0, 0)
        await asyncio.wait_for(asyncio.gather(*(visit.closed.wait() for visit in upstream.visits)), 5)


async def test_a_reload_hands_over_what_stays_as_it_was_and_closes_the_rest() -> None:
    async with scripted_upstream(saying(OK)) as kept, scripted_upstream(saying(OK)) as changed:
        old = Upstreams({"api": Upstream(targets=(kept.url,)), "b": Upstream(targets=(changed.url,))})
        await asked(old)
        scope = {"type": "http", "method": "GET", "raw_path": b"/x"}

        async def nothing(*_: object) -> dict[str, object]:
            await asyncio.Event().wait()
            return {}

        async def taken(_message: object) -> None:
            return

        await old.forward("b", scope=scope, headers=[], receive=nothing, send=taken)
        new = Upstreams(
            {"api": Upstream(targets=(kept.url,)), "b": Upstream(targets=(changed.url,), queue=7)}, predecessor=old
        )
        await old.aclose(successor=new)
        assert idle(new) == 1
        assert old.state("b").targets[0].idle == 0
        await asked(new)
        await asked(old)  # a request that took the old plan finishes on it
        assert kept.connections == 1
        await new.aclose()
        assert idle(new) == 0
