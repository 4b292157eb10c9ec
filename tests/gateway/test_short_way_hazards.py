"""What the short way remembers and begins can't be turned against anybody, and is told of once and truly."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.house import PLAIN_ANSWER, house, token_for
from tests.support.rawclient import RawClient
from tests.support.upstreams import scripted_upstream
from tests.support.ways import watched_ways

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstreams import Visit
    from tests.support.ways import Ways


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return watched_ways(monkeypatch)


LAST_IN_ITS_OWN_WORDS: Final = {
    "proxy-connection": b"HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nContent-Length: 2\r\n\r\nok",
    "trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nConnection: close\r\n\r\n",
}
CLOSING: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


async def script(visit: Visit) -> None:
    head = await visit.request()
    what = head.split(b" ")[1].rpartition(b"/")[2].decode() if head.strip() else ""
    await visit.say(CLOSING if what == "closing" else LAST_IN_ITS_OWN_WORDS.get(what, PLAIN_ANSWER))


def get(target: str, token: str | None = None) -> bytes:
    credential = "" if token is None else f"Authorization: Bearer {token}\r\n"
    return f"GET {target} HTTP/1.1\r\nHost: api.test\r\n{credential}\r\n".encode()


async def test_the_end_of_a_body_is_no_part_of_the_fields_behind_it(tmp_path: Path, ways: Ways) -> None:
    """A proxy before the gateway would take the second such request for one with a body, which is a request here."""
    async with house(tmp_path, stripe=False, script=script) as at, await RawClient.connect(at.address) as client:
        assert (await client.ask(get("/open/a"))).status == 200
        of_body = b"GET /open/b HTTP/1.1\r\nContent-Length: 40\r\nX-A: "
        line = b"POST /pro/a HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n" % len(of_body)
        assert (await client.ask(line)).status == 401
        assert (await client.ask(of_body + get("/open/c"))).status == 200
        before = at.visit_count()
        await client.send(of_body + get("/open/c"))
        await at.upstream.visit(before)  # or its body would come along, and it would be whole
        await client.send(b"x" * 40)
        assert (await client.answer()).status == 200
        assert at.last().body == b"x" * 40
        assert at.visit_count() == before + 1
    assert ways.taken == [False, True]


async def test_what_an_upstream_says_is_the_last_answer_in_words_of_its_own_costs_nobody_the_next(
    tmp_path: Path, ways: Ways
) -> None:
    async with house(tmp_path, stripe=False, script=script) as at, await RawClient.connect(at.address) as client:
        for what in ("a", *LAST_IN_ITS_OWN_WORDS):
            for target in (f"/open/{what}", "/open/a"):
                assert (await client.ask(get(target))).body == b"ok"
    assert ways.went_on == 0


async def test_a_lookup_counts_once_where_no_connection_rests(tmp_path: Path, ways: Ways) -> None:
    async with house(tmp_path, stripe=False, script=script) as at, await RawClient.connect(at.address) as client:
        token = token_for()
        await at.grant("alice", "pro")
        await client.ask(get("/pro/closing", token))
        name = 'gateway_entitlement_lookups_total{result="memory"} '
        counted = [float(((await at.metrics()).partition(name)[2] or "0").split()[0])]
        await client.ask(get("/pro/a", token))
        counted.append(float((await at.metrics()).partition(name)[2].split()[0]))
    assert ways.taken == [False, False]
    assert counted[1] == counted[0] + 1


async def test_the_time_of_the_upstream_is_all_of_it_when_the_long_way_takes_over(tmp_path: Path, ways: Ways) -> None:
    asked_for: list[float] = []

    async def slowly(visit: Visit) -> None:
        if b"/slow" in await visit.head():
            began = perf_counter()
            await asyncio.wait_for(ways.goes_on.wait(), 10)
            asked_for.append(perf_counter() - began)
        await visit.say(PLAIN_ANSWER)

    async with house(tmp_path, stripe=False, script=slowly) as at, await RawClient.connect(at.address) as client:
        await client.ask(get("/open/a"))
        answer = await client.ask(get("/open/slow"))
        assert answer.body == b"ok"
        line = at.log()[-1]
    assert ways.went_on == 1
    assert line["upstream_ms"] >= asked_for[0] * 1000


async def test_every_target_has_its_turn(tmp_path: Path, ways: Ways) -> None:
    async with scripted_upstream(script) as other, scripted_upstream(script) as one:
        both = f'{one.url}", "{other.url}'
        async with (
            house(tmp_path, stripe=False, upstream_url=both) as at,
            await RawClient.connect(at.address) as client,
        ):
            for _ in range(12):
                assert (await client.ask(get("/open/a"))).status == 200
            assert (len(one.visits), len(other.visits)) == (6, 6)
    assert ways.taken[-8:] == [True] * 8
