"""Several targets: who gets a request, who is left out and comes back, and what active checks change."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.forward import Upstreams
from gateway.upstream.outcome import CallerLeft, Forwarded, UpstreamFailure
from policies.reasons import Reason
from policies.schema import Health, Timeouts, Upstream
from tests.support.calls import Call, asked, until
from tests.support.upstreams import Visit, saying, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = [(b"transfer-encoding", b"chunked")]


@pytest.fixture
def dead() -> Iterator[str]:
    """A target that refuses connections, for as long as the test lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A target that leaves connections waiting."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            yield f"http://127.0.0.1:{full.getsockname()[1]}"


def admitted(upstreams: Upstreams) -> list[bool]:
    return [target.admitted for target in upstreams.state("api").targets]


async def test_a_target_that_refuses_is_left_out_so_that_nobody_waits_for_it_again(dead: str) -> None:
    async with scripted_upstream(saying(OK)) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(dead, upstream.url))})
        for _ in range(4):
            assert await asked(upstreams) == (200, b"ok")
        assert admitted(upstreams) == [False, True]
        await upstreams.aclose()


async def test_a_body_reaches_the_second_target_whole_where_the_first_can_not_be_connected(dead: str) -> None:
    async with scripted_upstream(saying(OK)) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(dead, upstream.url))})
        for _ in range(2):
            call = Call(upstreams, method="POST", headers=CHUNKED, pieces=[b"one", b"two"])
            assert await call.answer() == (200, b"ok")
        assert {visit.body for visit in upstream.visits} == {b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"}
        await upstreams.aclose()


async def test_a_target_that_leaves_connections_waiting_is_left_out_too(black_hole: str) -> None:
    async with scripted_upstream(saying(OK)) as upstream:
        settings = Upstream(targets=(black_hole, upstream.url), timeouts=Timeouts(connect=0.2))
        upstreams = Upstreams({"api": settings})
        for _ in range(4):
            assert await asked(upstreams) == (200, b"ok")
        assert admitted(upstreams) == [False, True]
        await upstreams.aclose()


async def test_where_all_are_left_out_they_are_tried_all_the_same(dead: str) -> None:
    upstreams = Upstreams({"api": Upstream(targets=(dead,))})
    for _ in range(3):
        outcome = await Call(upstreams).end()
        assert isinstance(outcome, UpstreamFailure)
        assert outcome.reason is Reason.UPSTREAM_UNREACHABLE
    assert admitted(upstreams) == [False]
    await upstreams.aclose()


async def test_a_target_that_comes_back_is_used_again() -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        if broken.is_set():
            visit.writer.close()
        else:
            await visit.say(OK)

    broken = asyncio.Event()
    broken.set()
    async with scripted_upstream(script) as one, scripted_upstream(saying(OK)) as other:
        upstreams = Upstreams({"api": Upstream(targets=(one.url, other.url))})
        outcomes = [await Call(upstreams).end() for _ in range(10)]
        assert sum(isinstance(outcome, UpstreamFailure) for outcome in outcomes) == 3
        assert admitted(upstreams) == [False, True]
        broken.clear()
        await until(lambda: all(admitted(upstreams)))
        count = len(one.visits)
        for _ in range(6):
            assert await asked(upstreams) == (200, b"ok")
        assert len(one.visits) > count
        await upstreams.aclose()


async def test_a_target_that_does_not_answer_in_time_is_left_out_after_some_of_it() -> None:
    async with scripted_upstream(saying(b"")) as silent:
        upstreams = Upstreams({"api": Upstream(targets=(silent.url,), timeouts=Timeouts(response=0.1))})
        for expected in (True, True, False):
            outcome = await Call(upstreams).end()
            assert isinstance(outcome, UpstreamFailure)
            assert outcome.reason is Reason.UPSTREAM_TIMEOUT
            assert admitted(upstreams) == [expected]
        await upstreams.aclose()


async def test_callers_who_leave_are_never_held_against_the_target() -> None:
    async with scripted_upstream(saying(b"")) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,))})
        for number in range(10):
            call = Call(upstreams)
            await upstream.visit(number)
            call.leave()
            assert isinstance(await call.end(), CallerLeft)
        assert admitted(upstreams) == [True]
        await upstreams.aclose()


async def test_an_upstream_that_ends_before_a_callers_slow_body_is_not_blamed_for_it() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        visit.writer.close()

    async with scripted_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,))})
        for _ in range(5):
            call = Call(upstreams, method="POST", headers=CHUNKED, pieces=[b"a", None])
            assert isinstance(await call.end(), UpstreamFailure)
        assert admitted(upstreams) == [True]
        await upstreams.aclose()


async def test_an_answer_of_the_targets_own_is_never_held_against_it() -> None:
    async with scripted_upstream(saying(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,))})
        for _ in range(10):
            assert isinstance(await Call(upstreams).end(), Forwarded)
        assert admitted(upstreams) == [True]
        await upstreams.aclose()


# Active checks.


def checked(*targets: str) -> Upstreams:
    return Upstreams({"api": Upstream(targets=targets, health=Health(path="/healthz", interval=0.1))})


@pytest.mark.parametrize(
    "sick", [b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n", b"not http", b""], ids=["503", "not HTTP", "silent"]
)
async def test_a_target_that_fails_its_checks_gets_no_requests_until_it_passes_one(sick: bytes) -> None:
    async def script(visit: Visit) -> None:
        is_check = b"GET /healthz HTTP/1.1\r\n" in await visit.request()
        await visit.say(sick if is_check and is_sick.is_set() else OK)

    is_sick = asyncio.Event()
    is_sick.set()
    async with scripted_upstream(script) as one, scripted_upstream(script) as other:
        upstreams = checked(one.url, other.url)
        assert admitted(upstreams) == [True, True]  # before anything is known
        upstreams.start()
        upstreams.start()
        await until(lambda: admitted(upstreams) == [False, False])
        assert await asked(upstreams) == (200, b"ok")  # where none is fit, all are tried
        is_sick.clear()
        await until(lambda: admitted(upstreams) == [True, True])
        await upstreams.aclose()
        count = len(one.visits)
        await asyncio.sleep(0.3)
        assert len(one.visits) == count


async def test_a_target_that_can_not_be_connected_fails_its_checks_and_carries_nothing_of_ours(dead: str) -> None:
    async with scripted_upstream(saying(OK)) as upstream:
        upstreams = checked(dead, upstream.url)
        upstreams.start()
        await until(lambda: admitted(upstreams) == [False, True])
        await until(lambda: len(upstream.visits) > 1)
        said = dict(upstream.visits[0].headers)
        assert said["host"] == upstream.url.removeprefix("http://")
        assert not {"authorization", "cookie"} & set(said)
        await upstreams.aclose()


async def test_checks_go_straight_to_the_target_whatever_proxy_the_environment_names(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, dead)
    async with scripted_upstream(saying(OK)) as upstream:
        upstreams = checked(upstream.url)
        upstreams.start()
        await until(lambda: len(upstream.visits) > 1)
        assert admitted(upstreams) == [True]
        await upstreams.aclose()


async def test_once_nobody_checks_any_more_a_target_counts_as_healthy(dead: str) -> None:
    upstreams = checked(dead)
    upstreams.start()
    await until(lambda: admitted(upstreams) == [False])
    await upstreams.aclose()
    assert admitted(upstreams) == [True]


async def test_checks_that_are_handed_over_go_on_and_others_end() -> None:
    async with scripted_upstream(saying(OK)) as upstream:
        old = checked(upstream.url)
        old.start()
        new = Upstreams({"api": old._ready["api"].settings}, predecessor=old)
        new.start()
        await old.aclose(successor=new)
        count = len(upstream.visits)
        await until(lambda: len(upstream.visits) > count + 2)
        await new.aclose()
