"""How many requests may be under way, who waits, in which order, and that no place is ever lost (C10)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.balancer import Balancer
from gateway.upstream.forward import Upstreams
from gateway.upstream.outcome import AnswerBroken, CallerLeft, Forwarded, UpstreamFailure
from gateway.upstream.places import Places
from gateway.upstream.pool import Pool
from gateway.upstream.target import parse_target
from policies.reasons import Reason
from policies.schema import Timeouts, Upstream
from tests.support.calls import Call, asked, until
from tests.support.upstreams import ScriptedUpstream, Visit, saying, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Gate:
    """An upstream's script that answers when it is told to, in the order in which it is told."""

    def __init__(self) -> None:
        self.paths: list[bytes] = []
        self._go_on = asyncio.Semaphore(0)

    async def script(self, visit: Visit) -> None:
        self.paths.append((await visit.request()).split(b" ")[1])
        await self._go_on.acquire()
        await visit.say(OK)

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self._go_on.release()


@contextlib.asynccontextmanager
async def gated(**settings: object) -> AsyncIterator[tuple[Upstreams, ScriptedUpstream, Gate]]:
    gate = Gate()
    async with scripted_upstream(gate.script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), **settings)})  # type: ignore[arg-type]
        try:
            yield upstreams, upstream, gate
        finally:
            await upstreams.aclose()


def counts(upstreams: Upstreams) -> tuple[int, int]:
    """Requests that hold a place, and those that wait for one."""
    state = upstreams.state("api")
    return sum(target.pending for target in state.targets), state.queued


async def test_never_more_requests_are_under_way_than_may_be_and_those_who_wait_are_served_in_order() -> None:
    async with gated(max_connections=3) as (upstreams, upstream, gate):
        calls = []
        for number in range(20):
            calls.append(Call(upstreams, path=b"/%d" % number))
            await asyncio.sleep(0)
        await until(lambda: len(gate.paths) == 3)
        assert counts(upstreams) == (3, 17)
        for served in range(1, 18):
            gate.let()
            await until(lambda served=served: len(gate.paths) == 3 + served)  # type: ignore[misc]
            assert counts(upstreams)[0] == 3
        gate.let(3)
        assert {await call.answer() for call in calls} == {(200, b"ok")}
        assert gate.paths[3:] == [b"/%d" % number for number in range(3, 20)]
        assert upstream.connections == 3
        assert counts(upstreams) == (0, 0)


@pytest.mark.parametrize("queue", [0, 2])
async def test_where_the_queue_is_full_the_next_one_is_turned_away_at_once(queue: int) -> None:
    async with gated(max_connections=1, queue=queue) as (upstreams, _, gate):
        calls = [Call(upstreams) for _ in range(1 + queue)]
        await until(lambda: counts(upstreams) == (1, queue))
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.OVERLOADED
        gate.let(1 + queue)
        for call in calls:
            assert await call.answer() == (200, b"ok")


async def test_whoever_waits_too_long_is_turned_away_and_the_rest_go_on_waiting() -> None:
    async with gated(max_connections=1, timeouts=Timeouts(connect=0.3)) as (upstreams, _, gate):
        first = Call(upstreams)
        await until(lambda: counts(upstreams) == (1, 0))
        early = Call(upstreams, path=b"/early")
        await asyncio.sleep(0.2)
        late = Call(upstreams, path=b"/late")
        outcome = await early.end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.OVERLOADED
        assert counts(upstreams) == (1, 1)
        gate.let(2)
        assert await first.answer() == await late.answer() == (200, b"ok")
        assert b"/early" not in gate.paths


async def test_whoever_leaves_the_queue_is_not_served_and_keeps_nobody_from_being_served() -> None:
    async with gated(max_connections=1) as (upstreams, _, gate):
        first, leaver, cancelled, last = [Call(upstreams, path=b"/%d" % number) for number in range(4)]
        await until(lambda: counts(upstreams) == (1, 3))
        leaver.leave()
        assert isinstance(await leaver.end(), CallerLeft)
        cancelled.outcome.cancel()
        await asyncio.gather(cancelled.outcome, return_exceptions=True)
        assert counts(upstreams) == (1, 1)
        gate.let(2)
        assert await first.answer() == await last.answer() == (200, b"ok")
        assert gate.paths == [b"/0", b"/3"]
        assert counts(upstreams) == (0, 0)


@pytest.mark.parametrize("how", ["leaves", "is cancelled", "is cancelled twice"])
async def test_a_place_given_in_the_very_turn_in_which_its_holder_goes_is_given_on(how: str) -> None:
    async with gated(max_connections=1) as (upstreams, _, gate):
        places = upstreams._ready["api"].places
        pool = places.take(0.0)
        assert pool is not None
        unlucky, after = Call(upstreams, path=b"/unlucky"), Call(upstreams, path=b"/after")
        await until(lambda: counts(upstreams) == (1, 2))
        places.give_back(pool)
        assert counts(upstreams) == (1, 1)  # it is the unlucky one's, who has not run yet
        if how == "leaves":
            unlucky.leave()
        else:
            unlucky.outcome.cancel()
            if how.endswith("twice"):
                unlucky.outcome.cancel()
        gate.let()
        assert await after.answer() == (200, b"ok")
        await asyncio.gather(unlucky.outcome, return_exceptions=True)
        assert gate.paths == [b"/after"]
        assert counts(upstreams) == (0, 0)


async def test_a_target_that_frees_a_place_serves_those_who_wait_for_the_whole_upstream() -> None:
    one_gate, other_gate = Gate(), Gate()
    async with scripted_upstream(one_gate.script) as one, scripted_upstream(other_gate.script) as other:
        upstreams = Upstreams({"api": Upstream(targets=(one.url, other.url), max_connections=1)})
        calls = [Call(upstreams) for _ in range(6)]
        await until(lambda: len(one_gate.paths) == len(other_gate.paths) == 1)
        assert counts(upstreams) == (2, 4)
        other_gate.let(5)
        await until(lambda: len(other_gate.paths) == 5)
        one_gate.let()
        for call in calls:
            assert await call.answer() == (200, b"ok")
        assert (len(one_gate.paths), len(other_gate.paths)) == (1, 5)
        await upstreams.aclose()


def pool_of(port: int) -> Pool:
    return Pool(parse_target(f"http://127.0.0.1:{port}", None), max_connections=1, keepalive_seconds=4.0)


async def test_when_a_target_comes_back_those_who_wait_go_before_a_newcomer() -> None:
    loop = asyncio.get_running_loop()
    sick, fit = pool_of(1), pool_of(2)
    sick.standing.healthy = False
    places = Places(Balancer([sick, fit]), queue=10, queue_seconds=10.0)
    assert places.take(loop.time()) is fit
    waiting = places.queue_up(loop, [])
    assert waiting is not None
    sick.standing.healthy = True
    assert places.take(loop.time()) is None
    newcomer = places.queue_up(loop, [])
    assert newcomer is not None
    assert (waiting.turn.done(), newcomer.turn.done()) == (True, False)
    assert waiting.turn.result() is sick
    places.give_back(fit)
    assert newcomer.turn.result() is fit
    places.close()


async def test_a_request_that_has_tried_a_target_in_vain_lets_the_next_one_have_it() -> None:
    loop = asyncio.get_running_loop()
    one, other = pool_of(1), pool_of(2)
    places = Places(Balancer([one, other]), queue=10, queue_seconds=10.0)
    assert {places.take(loop.time()), places.take(loop.time())} == {one, other}
    picky, easy = places.queue_up(loop, [one]), places.queue_up(loop, [])
    assert picky is not None
    assert easy is not None
    places.give_back(one)
    assert (picky.turn.done(), easy.turn.result()) == (False, one)
    places.give_back(other)
    assert picky.turn.result() is other
    places.close()


async def test_closing_turns_away_those_who_wait() -> None:
    async with gated(max_connections=1) as (upstreams, _, gate):
        first, waiting = Call(upstreams), Call(upstreams)
        await until(lambda: counts(upstreams) == (1, 1))
        await upstreams.aclose()
        assert isinstance(await waiting.end(), UpstreamFailure)
        gate.let()
        assert await first.answer() == (200, b"ok")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_ten_thousand_cancelled_requests_leave_every_place_and_no_file_behind() -> None:
    """What httpcore got wrong (httpcore#1093): each cancelled request took a place with it, until none was left."""
    async with scripted_upstream(_slow_or_ok) as upstream:
        upstreams = Upstreams(
            {"api": Upstream(targets=(upstream.url,), max_connections=10, queue=20, timeouts=Timeouts(connect=30))}
        )
        await asyncio.gather(*(asked(upstreams) for _ in range(10)))
        before, idle_before = open_files(), upstreams.state("api").targets[0].idle
        rolls = random.Random(7)

        async def churn(count: int) -> None:
            for _ in range(count):
                call = Call(upstreams, path=b"/slow")
                for _ in range(rolls.randrange(12)):
                    await asyncio.sleep(0)
                if rolls.random() < 0.5:
                    call.leave()
                else:
                    call.outcome.cancel()
                await asyncio.gather(call.outcome, return_exceptions=True)

        await asyncio.gather(*(churn(500) for _ in range(20)))  # at twice the pool's size
        assert counts(upstreams) == (0, 0)
        assert {await asked(upstreams) for _ in range(100)} == {(200, b"ok")}
        await asyncio.gather(*(asked(upstreams) for _ in range(10)))
        assert upstreams.state("api").targets[0].idle == idle_before == 10
        await until(lambda: open_files() <= before + 2)
        await upstreams.aclose()


async def _slow_or_ok(visit: Visit) -> None:
    if b"/slow" not in await visit.request():
        await visit.say(OK)


async def _whimsical(visit: Visit) -> None:
    """Answers in pieces, slowly, in part, not at all, with too much, or by dying; what an answer says it is for."""
    request = await visit.request()
    if visit.closed.is_set():
        return
    path = request.split(b" ")[1]
    kind = int(path.rpartition(b"/")[2]) % 8
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    if kind == 0:
        visit.writer.close()
    elif kind == 1:
        visit.reset()
    elif kind == 2:
        await visit.say(head % (len(path) + 10) + path)
        visit.writer.close()
    elif kind == 3:
        await visit.say(head % len(path) + path + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    elif kind == 4:
        for octet in head % len(path) + path:
            await visit.say(bytes([octet]))
    elif kind == 5:
        await asyncio.sleep(0.01)
        await visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")
    else:
        await visit.say(head % len(path) + path)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_callers_and_upstreams_do_at_whatever_moment_nothing_is_left_and_nobody_gets_anothers_answer(
    seed: int,
) -> None:
    rolls = random.Random(seed)
    async with scripted_upstream(_whimsical) as one, scripted_upstream(_whimsical) as other:
        upstreams = Upstreams(
            {"api": Upstream(targets=(one.url, other.url), max_connections=8, queue=64, keepalive=0.2)}
        )
        before, tasks_before = open_files(), len(asyncio.all_tasks())
        seen: set[type] = set()

        async def caller(number: int) -> None:
            path = b"/%d/%d" % (seed, number)
            method = rolls.choice(["GET", "HEAD", "POST"])
            body = os.urandom(rolls.randrange(1, 100_000))
            has_body = method == "POST" and rolls.random() < 0.8
            call = Call(
                upstreams,
                method=method,
                path=path,
                headers=[rolls.choice([(b"content-length", b"%d" % len(body)), (b"transfer-encoding", b"chunked")])]
                if has_body
                else [],
                pieces=[body[:10], body[10:], *([None] if rolls.random() < 0.1 else [])] if has_body else [],
            )
            if rolls.random() < 0.5:
                for _ in range(rolls.randrange(40)):
                    await asyncio.sleep(0)
                if rolls.random() < 0.7:
                    call.leave()
                else:
                    call.outcome.cancel()
            elif has_body:
                asyncio.get_running_loop().call_later(2, call.leave)
            outcome = (await asyncio.gather(call.outcome, return_exceptions=True))[0]
            seen.add(type(outcome))
            if isinstance(outcome, Forwarded):
                assert call.whole
                assert call.body in {path, b""}
                assert (call.body == path) is (call.status == 200 and method != "HEAD")
            elif isinstance(outcome, RuntimeError):
                raise outcome
            else:
                assert not call.whole

        numbers = iter(range(1500))

        async def crowd() -> None:
            for number in numbers:
                await caller(number)

        await asyncio.gather(*(crowd() for _ in range(30)))
        assert seen >= {Forwarded, CallerLeft, UpstreamFailure, AnswerBroken, asyncio.CancelledError}
        assert counts(upstreams) == (0, 0)
        await until(lambda: sum(target.idle for target in upstreams.state("api").targets) == 0)
        await upstreams.aclose()
        await until(lambda: all(visit.closed.is_set() for visit in one.visits + other.visits))
        await until(lambda: open_files() <= before + 2)
        await until(lambda: len(asyncio.all_tasks()) <= tasks_before)


async def test_connections_at_rest_count_too_where_a_fresh_one_is_opened() -> None:
    async with scripted_upstream(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,), max_connections=2)})
        for _ in range(6):  # each connection still settles when the next request comes
            await asked(upstreams)
        assert upstreams.state("api").targets[0].idle <= 2
        await until(lambda: sum(not visit.closed.is_set() for visit in upstream.visits) <= 2)
        await upstreams.aclose()
