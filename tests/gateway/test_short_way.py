"""The short way: it answers as the long one does, judges each request anew, and leaves nothing behind.

Each test knows which way a request went, so that none passes because nobody went the short one.
"""

from __future__ import annotations

import asyncio
import re
import time
from secrets import randbelow
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.listener_cycle import GatewayCycle
from policies.api_key import make_key
from tests.support.house import PLAIN_ANSWER, house, token_for
from tests.support.rawclient import RawClient
from tests.support.ways import watched_ways

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.house import House
    from tests.support.rawclient import RawAnswer
    from tests.support.upstreams import Visit
    from tests.support.ways import Ways

MOVING: Final = re.compile(rb"(x-request-id|traceparent|date): [^\r]*\r\n", re.IGNORECASE)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return watched_ways(monkeypatch)


@pytest.fixture
async def at(tmp_path: Path, ways: Ways) -> AsyncIterator[House]:
    async with house(tmp_path, stripe=False, script=script) as one:
        await one.grant("alice", "pro")
        yield one


async def script(visit: Visit) -> None:
    """What is asked for by the path's last segment."""
    head = await visit.head()
    if head == b"\r\n\r\n":  # the connection ended without a request
        return
    what = head.split(b" ")[1].rpartition(b"/")[2].decode()
    answer = ANSWERS.get(what, PLAIN_ANSWER)
    if what == "apart":
        await visit.say(answer[:-3])
        await asyncio.sleep(0.02)  # so that it is no single read; nothing depends on how long
        await visit.say(answer[-3:])
    elif what == "nothing":
        visit.reset()
    else:
        await visit.say(answer)
        if what in {"until-close", "cut"}:
            visit.writer.close()


ANSWERS: Final = {
    "apart": PLAIN_ANSWER,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
    "no-content": b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    "not-modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: a\r\n\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + PLAIN_ANSWER,
    "until-close": b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nnot whole",
    "broken": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    "behind": PLAIN_ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "closing": b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok",
    "ours": b"HTTP/1.1 402 Payment Required\r\nX-Gateway-Reason: lie\r\nx_gateway_tier: x\r\nContent-Length: 2\r\n\r\nok",
    "events": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: a\n\n",
}


def get(target: str, *headers: str, method: str = "GET", token: str | None = "", host: str = "api.test") -> bytes:
    credential = () if token is None else (f"Authorization: Bearer {token or TOKEN}",)
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *credential, *headers, "", "")).encode(
        "latin-1"
    )


TOKEN: Final = token_for()


async def warmed(at: House) -> RawClient:
    """A caller whose token is known, and a connection to the upstream that rests."""
    client = await RawClient.connect(at.address)
    assert (await client.ask(get("/pro/a"))).status == 200
    return client


async def test_who_is_known_goes_the_short_way_and_is_told_of_like_anybody(at: House, ways: Ways) -> None:
    async with await warmed(at) as client:
        for number in range(3):
            assert (await client.ask(get(f"/pro/{number}?q={number}"))).body == b"ok"
            assert at.seen("x-gateway-tier") == ["pro"]
            assert at.seen("x-gateway-customer") == ["alice"]
    assert ways.taken == [False, True, True, True]
    assert ways.went_on == 0
    seen = [visit.received for visit in at.upstream.visits]
    assert [one.split(b" ")[1] for one in seen] == [b"/pro/a", b"/pro/0?q=0", b"/pro/1?q=1", b"/pro/2?q=2"]
    assert len({MOVING.sub(b"", one).partition(b"\r\n")[2] for one in seen}) == 1
    lines = at.log()
    assert len({line["request_id"] for line in lines}) == 4
    told = {(one["route"], one["status"], one["reason"], one["customer"], one["tier"], one["bytes"]) for one in lines}
    assert told == {("/pro/**", 200, "forwarded", "alice", "pro", 2)}
    assert all(line["ms"] >= 0 and line["upstream_ms"] >= 0 and line["upstream"] == "api" for line in lines)
    assert await at.count(route="/pro/**", status="200", reason="forwarded") == 4
    assert 'gateway_request_duration_seconds_count{route="/pro/**"} 4.0' in await at.metrics()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("what", [*ANSWERS, "plain", "nothing"])
async def test_both_ways_answer_alike(at: House, ways: Ways, what: str, method: str) -> None:
    shown: list[tuple[RawAnswer | None, bytes, int, tuple[Any, ...]]] = []
    for closed in (True, False):
        ways.closed = False
        async with await warmed(at) as client:
            ways.closed = closed
            ways.taken.clear()
            before = at.visit_count()
            answer: RawAnswer | None
            try:
                answer = await client.ask(get(f"/pro/{what}", method=method), to_head=method == "HEAD")
            except (asyncio.IncompleteReadError, ConnectionResetError):
                answer = None
            assert ways.taken[:1] == [not closed]
        line = await at.logged((answer and answer.one("x-request-id")) or at.log()[-1]["request_id"])
        head = MOVING.sub(b"", at.upstream.visits[before].received)
        kept = {key: value for key, value in line.items() if key not in {"time", "request_id", "ms", "upstream_ms"}}
        shown.append((answer and still(answer), head, at.visit_count() - before, tuple(kept.items())))
    assert shown[0] == shown[1]
    state = at.process.gateway.plan.upstreams.state("api")
    assert state.targets[0].pending == 0


def still(answer: RawAnswer) -> Any:
    body = re.sub(rb'"request_id": ?"[^"]*"', b"", answer.body)
    return answer.status, MOVING.sub(b"", answer.head), body, answer.whole


async def test_a_revocation_holds_for_the_next_request_of_the_same_bytes(at: House, ways: Ways) -> None:
    async with await warmed(at) as client:
        assert (await client.ask(get("/pro/a"))).status == 200
        await at.operate("POST", "/api/revoke/alice", json={"reason": "a test"})
        answer = await until(client, 402)
        assert answer.one("x-gateway-reason") == "tier_required"
        assert ways.taken[-1] is False
        await at.grant("alice", "enterprise")
        await until(client, 200)
        assert at.seen("x-gateway-tier") == ["enterprise"]


async def until(client: RawClient, status: int) -> RawAnswer:
    """The same bytes again and again, until the answer has this status: a commit is in force within a second."""
    async with asyncio.timeout(5):
        while True:
            answer = await client.ask(get("/pro/a"))
            if answer.status == status:
                return answer
            await asyncio.sleep(0.02)


async def test_the_end_of_a_token_holds_for_the_next_request_of_the_same_bytes(
    at: House, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await warmed(at) as client:
        assert (await client.ask(get("/pro/a"))).status == 200
        assert ways.taken[-1] is True
        monkeypatch.setattr(at.process.gateway.plan.authenticator, "_now", lambda: time.time() + 7200)
        answer = await client.ask(get("/pro/a"))
        assert (answer.status, answer.one("x-gateway-reason")) == (401, "token_expired")


async def test_the_end_of_a_grant_holds_for_the_next_request_of_the_same_bytes(at: House, ways: Ways) -> None:
    await at.grant("carol", "pro", until="2126-01-01T00:00:00Z")
    carol = get("/pro/a", token=token_for("carol"))
    async with await warmed(at) as client:
        for way in (False, True):
            assert (await client.ask(carol)).status == 200
            assert ways.taken[-1] is way
        at.clock.offset = 101 * 365 * 86400
        assert (await client.ask(carol)).status == 402
        assert ways.taken[-1] is False


ODD_LINES: Final = (
    "GET  /pro/a HTTP/1.1", "GET /pro/a HTTP/1.0", "GET /pro/a HTTP/2.0", "GET /pro/a", "get /pro/a HTTP/1.1",
    "GET http://api.test/pro/a HTTP/1.1", "GET /pro//a HTTP/1.1", "GET /pro/%2e%2e/a HTTP/1.1", "GET /_gateway/me HTTP/1.1",
    "GET /PRO/a HTTP/1.1", "GET /pro/a#b HTTP/1.1", "GET /pro/a\tb HTTP/1.1", "\r\nGET /pro/a HTTP/1.1", "TRACE /pro/a HTTP/1.1",
    "OPTIONS * HTTP/1.1", "OPTIONS /pro/a HTTP/1.1", "GET /nowhere HTTP/1.1", "POST /pro/a HTTP/1.1", "GET /" + "a" * 9000 + " HTTP/1.1",
    "GET /pro/a?x=\\ HTTP/1.1", "GET /pro/a HTTP/1.1\r\nContent-Length: 3", "GET /pro/a HTTP/1.1\r\nTransfer-Encoding: chunked",
    "GET /pro/a HTTP/1.1\r\nHost: other.test", "GET /pro/a HTTP/1.1\nX: y", "GET /pro/a HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade",
)  # fmt: skip


@pytest.mark.parametrize("line", ODD_LINES, ids=range(len(ODD_LINES)))
async def test_fields_known_again_change_nothing_about_a_line(at: House, ways: Ways, line: str) -> None:
    """On a connection whose fields are known, and on a fresh one, the same bytes mean the same."""
    block = get("/pro/a").partition(b"\r\n")[2]
    data = line.encode("latin-1") + b"\r\n" + block
    async with await warmed(at) as known, await RawClient.connect(at.address) as fresh:
        assert (await known.ask(get("/pro/a"))).status == 200
        for client in (known, fresh):
            await client.send(data)
            client.writer.write_eof()
        assert _still_bytes(await known.rest()) == _still_bytes(await fresh.rest())
    assert ways.taken[:2] == [False, True]


def _still_bytes(data: bytes) -> bytes:
    return re.sub(rb'"request_id": ?"[^"]*"', b"", MOVING.sub(b"", data))


async def test_other_fields_are_other_fields(at: House, ways: Ways) -> None:
    await at.grant("bob", "enterprise")
    bob = token_for("bob")
    async with await warmed(at) as client:
        for token, customer in ((TOKEN, "alice"), (bob, "bob"), (TOKEN, "alice"), (bob, "bob")) * 2:
            assert (await client.ask(get("/pro/a", token=token))).status == 200
            assert at.seen("x-gateway-customer") == [customer]
        for header, wanted in (("X-A: 1", ["1"]), ("X-A: 2", ["2"]), ("X-B: 2", [])):
            await client.ask(get("/pro/a", header))
            assert at.seen("x-a") == wanted
        assert (await client.ask(get("/pro/a", token=None))).status == 401
        assert (await client.ask(get("/open/a", token=None))).status == 200
        assert at.seen("x-gateway-customer") == []
    assert ways.taken.count(True) >= 8


async def test_an_id_of_the_callers_own_is_his_on_both_ways(at: House, ways: Ways) -> None:
    async with await warmed(at) as client:
        for _ in range(3):
            await client.ask(get("/pro/a", "X-Request-Id: mine-1"))
            assert at.seen("x-request-id") == ["mine-1"]
    assert ways.taken[-1] is True


async def test_what_is_slow_goes_on_the_long_way(tmp_path: Path, ways: Ways) -> None:
    may_answer = asyncio.Event()

    async def slowly(visit: Visit) -> None:
        head = await visit.head()
        if b"/slow" in head:
            await may_answer.wait()
        await visit.say(PLAIN_ANSWER)

    async with house(tmp_path, stripe=False, script=slowly) as at, await open_caller(at) as client:
        await client.send(get("/open/slow", token=None))
        await asyncio.wait_for(ways.goes_on.wait(), 10)
        may_answer.set()
        assert (await client.answer()).body == b"ok"
        assert (await client.ask(get("/open/a", token=None))).body == b"ok"
        assert ways.taken[-1] is True
        assert at.upstream.connections == 1


async def open_caller(at: House) -> RawClient:
    client = await RawClient.connect(at.address)
    assert (await client.ask(get("/open/a", token=None))).status == 200
    return client


async def test_a_caller_who_leaves_ends_what_was_begun(tmp_path: Path, ways: Ways) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def silently(visit: Visit) -> None:
        if b"/slow" in await visit.head():
            asked.set()
            await visit.read()
            never.set()
        else:
            await visit.say(PLAIN_ANSWER)

    async with house(tmp_path, stripe=False, script=silently) as at:
        client = await open_caller(at)
        await client.send(get("/open/slow", "X-Request-Id: gone", token=None))
        await asyncio.wait_for(asked.wait(), 10)
        assert ways.taken[-1] is True
        client.reset()
        assert (await at.logged("gone"))["status"] == 499
        await asyncio.wait_for(never.wait(), 10)
        state = at.process.gateway.plan.upstreams.state("api").targets[0]
        assert (state.pending, state.idle, state.admitted) == (0, 0, True)


async def test_a_task_that_never_began_leaves_no_place_behind(
    tmp_path: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = GatewayCycle.go_on

    def cancelled(self: GatewayCycle, app: Any) -> asyncio.Task[None]:
        task = go_on(self, app)
        task.cancel()
        return task

    async def in_pieces(visit: Visit) -> None:
        await visit.head()
        await visit.say(PLAIN_ANSWER[: -1 if b"/slow" in visit.received else None])

    async with house(tmp_path, stripe=False, script=in_pieces) as at, await open_caller(at) as client:
        monkeypatch.setattr(GatewayCycle, "go_on", cancelled)
        await client.send(get("/open/slow", token=None))
        await client.rest()
        state = at.process.gateway.plan.upstreams.state("api").targets[0]
        assert (state.pending, state.idle) == (0, 0)
        assert ways.went_on == 1


async def test_requests_sent_at_once_are_answered_in_turn(at: House, ways: Ways) -> None:
    async with await warmed(at) as client:
        await client.send(b"".join(get(f"/pro/{number}", f"X-N: {number}") for number in range(20)))
        for _ in range(20):
            assert (await client.answer()).body == b"ok"
    assert [one.received.split(b" ")[1] for one in at.upstream.visits[1:]] == [b"/pro/%d" % n for n in range(20)]


async def test_a_lookup_is_counted_once_whichever_way_it_goes(at: House, ways: Ways) -> None:
    async def lookups() -> float:
        lines = [line for line in (await at.metrics()).splitlines() if line.startswith("gateway_entitlement_lookups")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async with await warmed(at) as client:
        for path, way in (("/pro/a", True), ("/ent", False)):
            before = await lookups()
            await client.ask(get(path))
            assert ways.taken[-1] is way
            assert await lookups() == before + 1


async def test_access_that_ends_ends_a_stream_that_began_on_the_short_way(tmp_path: Path, ways: Ways) -> None:
    """P7: what was begun without a task is judged again like anything else that lasts."""
    ended = asyncio.Event()

    async def events(visit: Visit) -> None:
        if b"/events" not in await visit.head():
            return await visit.say(PLAIN_ANSWER)
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await visit.say(b"9\r\ndata: a\n\n\r\n")
        await visit.read()
        ended.set()
        return None

    async with house(tmp_path, stripe=False, script=events) as at:
        await at.grant("alice", "pro")
        async with await warmed(at) as client:
            await client.send(get("/pro/events"))
            assert b"data: a" in await asyncio.wait_for(client.reader.readuntil(b"data: a\n\n"), 10)
            assert (ways.taken[-1], ways.went_on) == (True, 1)
            await at.operate("POST", "/api/revoke/alice", json={"reason": "a test"})
            assert await asyncio.wait_for(client.reader.readuntil(b"event: payment-required\n"), 10)
            await asyncio.wait_for(ended.wait(), 10)


async def test_a_silent_upstream_is_given_up_in_its_time_on_the_short_way(tmp_path: Path, ways: Ways) -> None:
    async def silently(visit: Visit) -> None:
        if b"/silent" in await visit.head():
            await visit.read()
        else:
            await visit.say(PLAIN_ANSWER)

    settings = "    timeouts: {response: 100ms}"  # less than the short way's own patience
    async with house(tmp_path, stripe=False, script=silently, upstream_settings=settings) as at:
        async with await open_caller(at) as client:
            answer = await client.ask(get("/open/silent", token=None))
            assert (answer.status, answer.one("x-gateway-reason")) == (504, "upstream_timeout")
        assert ways.taken[-1] is True
        assert at.process.gateway.plan.upstreams.state("api").targets[0].pending == 0


async def test_the_log_of_the_short_way_repeats_no_key_and_no_query(at: House, ways: Ways) -> None:
    key = make_key(randbelow).text
    async with await warmed(at) as client:
        assert (await client.ask(get(f"/pro/{key}?token=secret", "X-Request-Id: told"))).status == 200
    assert ways.taken[-1] is True
    assert key.encode() in at.last().received
    path = (await at.logged("told"))["path"]
    assert path.startswith("/pro/gw_")
    assert key not in path
    assert "secret" not in path
