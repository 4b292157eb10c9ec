"""Requests with a body that comes whole: the short way is theirs, and does with them what the long one does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.gateway.test_short_way import ANSWERS, MOVING, get, script, still, warmed
from tests.support.house import PLAIN_ANSWER, ROUTES, house
from tests.support.rawclient import RawClient
from tests.support.ways import watched_ways

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.house import House
    from tests.support.rawclient import RawAnswer
    from tests.support.upstreams import Visit
    from tests.support.ways import Ways

LIMITED: Final = """
  - path: /few/**
    access: public
    max_body: 5B
"""


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return watched_ways(monkeypatch)


@pytest.fixture
async def at(tmp_path: Path, ways: Ways) -> AsyncIterator[House]:
    async with house(tmp_path, stripe=False, script=whole, routes=ROUTES + LIMITED) as one:
        await one.grant("alice", "pro")
        yield one


async def whole(visit: Visit) -> None:
    if await visit.request():
        await script(visit)


def post(target: str, body: bytes, *headers: str, method: str = "POST", token: str | None = "") -> bytes:
    return get(target, *headers, f"Content-Length: {len(body)}", method=method, token=token) + body


async def test_what_comes_whole_goes_up_whole_and_once(at: House, ways: Ways) -> None:
    bodies = [b"", b"x", b"hello", b"x" * 1024, b"x" * 15000, b"GET /open/b HTTP/1.1\r\nHost: a\r\n\r\n", b"x" * 1024]
    async with await warmed(at) as client:
        ways.taken.clear()
        before = at.visit_count()
        for number, body in enumerate(bodies):
            answer = await client.ask(post("/pro/a", body, f"Idempotency-Key: {number}"))
            assert (answer.status, answer.body) == (200, b"ok")
            assert at.last().body == body
            assert at.seen("idempotency-key") == [str(number)]
            assert at.seen("content-length") == [str(len(body))]
            assert at.seen("x-gateway-customer") == ["alice"]
        assert at.visit_count() == before + len(bodies)
    assert ways.taken == [True] * len(bodies)
    assert ways.went_on == 0


async def test_what_does_not_come_whole_goes_the_long_way(at: House, ways: Ways) -> None:
    chunked = get("/pro/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n"
    waiting = post("/pro/a", b"hello", "Expect: 100-continue")
    async with await warmed(at) as client:
        ways.taken.clear()
        for data in (chunked, waiting, post("/pro/a", b"x" * 17000), post("/pro/a", b"x" * 70000)):
            assert (await client.ask(data)).body == b"ok"
        whole = post("/pro/a", b"hello")
        await client.send(whole[:-2])
        await at.upstream.visit(at.visit_count())
        await client.send(whole[-2:])
        assert (await client.answer()).body == b"ok"
        assert at.last().body == b"hello"
    assert True not in ways.taken


async def test_both_ways_answer_a_body_alike(at: House, ways: Ways) -> None:
    """And repeat it as often, which is never, unless it is empty and may be repeated."""
    visits: dict[tuple[str, str, bytes], int] = {}
    for method, body in (("POST", b"hello"), ("PUT", b"hello"), ("PUT", b""), ("POST", b"")):
        for what in [*ANSWERS, "nothing"]:
            shown: list[Any] = []
            for closed in (True, False):
                ways.closed = False
                async with await warmed(at) as client:
                    ways.closed = closed
                    ways.taken.clear()
                    before = at.visit_count()
                    shown.append(await _shown(at, client, post(f"/pro/{what}", body, method=method), before))
                    assert ways.taken[:1] == [not closed]
            assert shown[0] == shown[1], (what, method, body)
            visits[what, method, body] = shown[0][2]
    assert {visits["nothing", method, b"hello"] for method in ("POST", "PUT")} == {1}
    assert (visits["nothing", "POST", b""], visits["nothing", "PUT", b""]) == (1, 2)
    assert at.process.gateway.plan.upstreams.state("api").targets[0].pending == 0


async def _shown(at: House, client: RawClient, asked: bytes, before: int) -> tuple[Any, bytes, int, Any]:
    answer: RawAnswer | None
    try:
        answer = await client.ask(asked)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        answer = None
    line = await at.logged((answer and answer.one("x-request-id")) or at.log()[-1]["request_id"])
    kept = {key: value for key, value in line.items() if key not in {"time", "request_id", "ms", "upstream_ms"}}
    received = MOVING.sub(b"", at.upstream.visits[before].received)
    return answer and still(answer), received, at.visit_count() - before, kept


@pytest.mark.parametrize(
    ("method", "body", "times"), [("POST", b"hello", 1), ("PUT", b"hello", 1), ("POST", b"", 1), ("PUT", b"", 2)]
)
async def test_what_is_remembered_repeats_nothing(at: House, ways: Ways, method: str, body: bytes, times: int) -> None:
    async with await warmed(at) as client:
        for number in range(2):
            assert (await client.ask(post("/pro/a", body, f"X-Trace: {number}", method=method))).status == 200
        before = at.visit_count()
        answer = await client.ask(post("/pro/nothing", body, "X-Trace: 2", method=method))
        assert (answer.status, answer.one("x-gateway-reason")) == (502, "upstream_protocol_error")
        assert at.visit_count() == before + times
    assert ways.taken[-1] is True


async def test_more_than_a_route_takes_is_refused_on_both_ways(at: House, ways: Ways) -> None:
    async with await warmed(at) as client:
        before = at.visit_count()
        for body, status in ((b"hello", 200), (b"hello!", 413), (b"hello", 200), (b"x" * 1000, 413)):
            answer = await client.ask(post("/few/a", body, token=None))
            assert answer.status == status
            assert ways.taken[-1] is (status == 200)
        assert at.visit_count() == before + 2


async def test_bodies_sent_at_once_are_answered_in_their_order(at: House, ways: Ways) -> None:
    bodies = [b"one", b"three", b"x" * 3000, b""]
    async with await warmed(at) as client:
        before = at.visit_count()
        await client.send(b"".join(post(f"/pro/{body[:3].decode()}", body) for body in bodies) + get("/pro/last"))
        for _ in range(len(bodies) + 1):
            assert (await client.answer()).body == b"ok"
        assert [visit.body for visit in at.upstream.visits[before:]] == [*bodies, b""]
    assert ways.taken[-5:] == [True] * 5


async def test_a_body_goes_up_once_when_the_long_way_takes_over(tmp_path: Path, ways: Ways) -> None:
    may_answer = asyncio.Event()

    async def slowly(visit: Visit) -> None:
        if b"/slow" in await visit.request():
            await may_answer.wait()
        await visit.say(PLAIN_ANSWER)

    async with house(tmp_path, stripe=False, script=slowly) as at, await RawClient.connect(at.address) as client:
        await client.ask(get("/open/a", token=None))
        await client.send(post("/open/slow", b"hello", token=None))
        await asyncio.wait_for(ways.goes_on.wait(), 10)
        may_answer.set()
        assert (await client.answer()).body == b"ok"
        assert at.last().body == b"hello"
        assert (await client.ask(post("/open/a", b"more", token=None))).body == b"ok"
        assert at.last().body == b"more"
        assert at.upstream.connections == 1
    assert ways.taken == [False, True, True]


async def test_a_caller_who_leaves_behind_a_body_ends_what_was_begun(tmp_path: Path, ways: Ways) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def silently(visit: Visit) -> None:
        if b"/slow" in await visit.request():
            asked.set()
            await visit.read()
            never.set()
        else:
            await visit.say(PLAIN_ANSWER)

    async with house(tmp_path, stripe=False, script=silently) as at:
        client = await RawClient.connect(at.address)
        await client.ask(get("/open/a", token=None))
        await client.send(post("/open/slow", b"hello", "X-Request-Id: gone", token=None))
        await asyncio.wait_for(asked.wait(), 10)
        client.reset()
        assert (await at.logged("gone"))["status"] == 499
        await asyncio.wait_for(never.wait(), 10)
        state = at.process.gateway.plan.upstreams.state("api").targets[0]
        assert (state.pending, state.idle, state.admitted) == (0, 0, True)
    assert ways.taken[-1] is True


async def test_who_is_refused_is_told_before_the_body_has_come(at: House) -> None:
    async with await RawClient.connect(at.address) as client:
        await client.send(post("/pro/a", b"hello", token=None)[:-3])
        assert (await client.answer()).status == 401
        await client.send(b"llo")
        assert (await client.ask(post("/open/a", b"hello", token=None))).status == 200


async def test_an_answer_before_the_body_is_read_is_the_callers(tmp_path: Path, ways: Ways) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!"

    async def early(visit: Visit) -> None:
        is_post = (await visit.head()).startswith(b"POST")
        await visit.say(refusal if is_post else PLAIN_ANSWER)
        if is_post:
            visit.writer.write_eof()

    async with house(tmp_path, stripe=False, script=early) as at:
        for ways.closed in (True, False):
            async with await RawClient.connect(at.address) as client:
                await client.ask(get("/open/a", token=None))
                answer = await client.ask(post("/open/a", b"hello" * 2000, token=None))
                assert (answer.status, answer.body) == (413, b"no!")
                assert (await client.ask(get("/open/a", token=None))).status == 200
            assert ways.taken[1] is not ways.closed
            ways.taken.clear()
