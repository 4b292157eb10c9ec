"""Who of what is open is decided again, and when: the registry alone, its clocks moved by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.answers import Answer
from gateway.credentials.claims import EXPIRED
from gateway.streams import LOOKUPS_AT_ONCE, RETRY_SECONDS, Open, Streams, Verdict
from gateway.under_way import AnswerUnderWay
from gateway.upstream.outcome import DEPARTURE_KEY
from policies.caller import Caller
from policies.decision import Forward, Refuse
from policies.entitlement import BillingRules, Entitlement, derive
from policies.facts import CustomerFacts, GrantFact
from policies.reasons import Reason
from policies.schema import Tier
from policies.tiers import build_ladder

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE: Final = 300.0
MAX_STALE: Final = 3600.0
ADMITTED: Final = Forward(None)
REFUSED: Final = Refuse(Reason.SUBSCRIPTION_EXPIRED)
UNKNOWN: Final = Refuse(Reason.ENTITLEMENT_UNAVAILABLE)
TIERS: Final = build_ladder((Tier(name="free"), Tier(name="pro", prices=("price_pro",))))


def ended_by(one: Open) -> Any:
    """Asked anew: mypy takes what was once asserted of an attribute for settled."""
    return one.ending


class OfARequest:
    """All that is asked of a walk here."""

    def __init__(self) -> None:
        self.plan = None
        self.scope: dict[str, Any] = {}
        self.send: Any = None
        self.method = "GET"
        self.headers: list[tuple[bytes, bytes]] = []


class Stream(Open):
    """Something open that is ended by being taken away."""

    __slots__ = ("_is_stream", "_outlives", "interrupted", "streams")

    def __init__(
        self, streams: Streams, customer: str = "alice", *, is_stream: bool | None = True, expires_at: int = 2**53
    ) -> None:
        walk: Any = OfARequest()
        route: Any = None
        super().__init__(walk, route, Caller(customer, "iss", expires_at))
        self.streams = streams
        self._is_stream = is_stream
        self._outlives = False
        self.interrupted = 0
        streams.add(self)

    @property
    def is_stream(self) -> bool | None:
        return self._is_stream

    @property
    def outlives_token(self) -> bool:
        return self._outlives

    def interrupt(self) -> None:
        self.interrupted += 1
        self.streams.discard(self)


def until(customer: str, moment: int | None) -> Entitlement:
    """Somebody with a grant of pro."""
    facts = CustomerFacts(customer=customer, version=1, grants=(GrantFact(1, "pro", moment, "a test", "us"),))
    return derive(facts, TIERS, BillingRules(0.0, 0.0))


@dataclass(slots=True)
class World:
    """What the registry is told, and what it asked."""

    now: float = 1000.0
    wall: float = 1000.0
    at: float = 1000.0
    verdict: Callable[[Open], Verdict] = lambda _: ADMITTED
    found: dict[str, Entitlement | None] = field(default_factory=dict)
    judged: list[Open] = field(default_factory=list)
    handed: list[Entitlement | None] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    at_once: int = 0
    most_at_once: int = 0

    async def look_up(self, customer: str) -> Entitlement | None:
        self.looked_up.append(customer)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.gate is not None:
            await self.gate.wait()
        self.at_once -= 1
        return self.found.get(customer, until(customer, None))

    async def judge(self, one: Open, last_known: Entitlement | None) -> Verdict:
        self.judged.append(one)
        self.handed.append(last_known)
        return self.verdict(one)

    def streams(self) -> Streams:
        return Streams(
            look_up=self.look_up,
            judge=self.judge,
            bounds=lambda: (GRACE, MAX_STALE),
            now=lambda: self.now,
            wall=lambda: self.wall,
            monotonic=lambda: self.at,
        )

    async def tick(self, streams: Streams, seconds: float = 0.0, times: int = 1) -> None:
        """Let time pass on every clock, and what follows from it happen."""
        for _ in range(times):
            self.now, self.wall, self.at = self.now + seconds, self.wall + seconds, self.at + seconds
            streams.tick()
            await settled(streams)


async def settled(streams: Streams) -> None:
    while tasks := [known.deciding for known in streams._customers.values() if known.deciding is not None]:
        await asyncio.wait(tasks, timeout=1)


async def test_what_is_over_within_a_tick_is_never_looked_at() -> None:
    world = World()
    streams = world.streams()
    short = Stream(streams)
    await world.tick(streams)
    streams.discard(short)
    await world.tick(streams, times=3)
    assert (len(streams), world.looked_up) == (0, [])


async def test_what_grows_old_is_decided_once_and_then_left_alone() -> None:
    world = World()
    streams = world.streams()
    Stream(streams)
    await world.tick(streams, 0.5, times=50)
    assert len(world.judged) == 1


async def test_a_change_before_it_grew_old_is_noticed_when_it_does() -> None:
    world = World(verdict=lambda _: REFUSED)
    streams = world.streams()
    one = Stream(streams)
    streams.changed("alice")  # nobody is known by customer yet
    await world.tick(streams, times=2)
    assert ended_by(one) is REFUSED
    assert one.interrupted == 1


async def test_a_change_concerns_its_customer_alone_and_none_everybody() -> None:
    world = World()
    streams = world.streams()
    mine, other = Stream(streams), Stream(streams, "bob")
    await world.tick(streams, times=2)
    world.judged.clear()
    streams.changed("alice")
    streams.changed("nobody")
    await settled(streams)
    assert world.judged == [mine]
    streams.changed(None)
    await settled(streams)
    assert world.judged[0] is mine
    assert set(world.judged[1:]) == {mine, other}


async def test_a_change_while_it_is_decided_is_decided_after_that() -> None:
    world = World()
    streams = world.streams()
    one = Stream(streams)
    await world.tick(streams, times=2)
    world.gate = asyncio.Event()
    streams.changed("alice")
    await asyncio.sleep(0)
    world.verdict = lambda _: REFUSED
    for _ in range(5):
        streams.changed("alice")
    world.judged.clear()
    world.gate.set()
    await settled(streams)
    assert one.interrupted == 1


async def test_the_next_edge_is_one_of_the_entitlement_clock_even_when_that_jumps() -> None:
    world = World(found={"alice": until("alice", 5000)})
    streams = world.streams()
    Stream(streams)
    await world.tick(streams, times=2)
    world.judged.clear()
    world.now = 4999.9
    await world.tick(streams)
    assert world.judged == []
    world.now = 10_000.0
    await world.tick(streams)
    assert len(world.judged) == 1
    await world.tick(streams, times=5)
    assert len(world.judged) == 1


async def test_an_edge_that_passes_during_the_lookup_is_not_lost() -> None:
    world = World(found={"alice": until("alice", 5000)})
    streams = world.streams()
    Stream(streams)
    await world.tick(streams)
    world.gate = asyncio.Event()
    streams.tick()
    await asyncio.sleep(0)
    world.now = 6000.0
    world.gate.set()
    await settled(streams)
    world.judged.clear()
    await world.tick(streams)
    assert len(world.judged) == 1


@pytest.mark.parametrize("is_stream", [False, None])
async def test_what_is_no_stream_has_the_grace_and_is_asked_about_again_at_its_end(is_stream: bool | None) -> None:
    world = World(verdict=lambda _: REFUSED)
    streams = world.streams()
    one = Stream(streams, is_stream=is_stream)
    await world.tick(streams, times=2)
    await world.tick(streams, GRACE - 1)
    assert ended_by(one) is None
    await world.tick(streams, 2)
    assert ended_by(one) is REFUSED
    assert one.interrupted == 1


async def test_who_pays_within_the_grace_has_all_of_it_again_the_next_time() -> None:
    world = World(verdict=lambda _: REFUSED)
    streams = world.streams()
    one = Stream(streams, is_stream=False)
    await world.tick(streams, times=2)
    world.verdict = lambda _: ADMITTED
    await world.tick(streams, GRACE + 1)
    assert one.refused_at is None
    world.verdict = lambda _: REFUSED
    streams.changed("alice")
    await settled(streams)
    await world.tick(streams, GRACE - 1)
    assert ended_by(one) is None


async def test_nothing_is_interrupted_twice() -> None:
    class Slow(Stream):
        __slots__ = ()

        def interrupt(self) -> None:
            self.interrupted += 1  # and its task takes its time

    world = World(verdict=lambda _: REFUSED)
    streams = world.streams()
    one = Slow(streams)
    await world.tick(streams, times=2)
    world.verdict = lambda _: Refuse(Reason.BLOCKED)
    for _ in range(3):
        streams.changed("alice")
        await settled(streams)
    assert ended_by(one) is REFUSED
    assert one.interrupted == 1


async def test_while_nobody_can_say_a_stream_goes_on_for_max_stale_and_what_was_known_is_handed_on() -> None:
    world = World()
    streams = world.streams()
    one = Stream(streams)
    await world.tick(streams, times=2)
    world.found["alice"], world.verdict = None, lambda _: UNKNOWN
    world.handed.clear()
    await world.tick(streams, RETRY_SECONDS, times=int(MAX_STALE / RETRY_SECONDS) - 2)
    assert ended_by(one) is None
    assert world.handed
    assert None not in world.handed
    await world.tick(streams, RETRY_SECONDS, times=4)
    assert ended_by(one) is UNKNOWN
    assert one.interrupted == 1
    assert world.handed[-1] is None


async def test_an_outage_that_ends_in_time_starts_max_stale_anew() -> None:
    world = World()
    streams = world.streams()
    one = Stream(streams)
    await world.tick(streams, times=2)
    for _ in range(3):
        world.verdict = lambda _: UNKNOWN
        await world.tick(streams, RETRY_SECONDS, times=int(MAX_STALE / RETRY_SECONDS) - 2)
        world.verdict = lambda _: ADMITTED
        await world.tick(streams, RETRY_SECONDS, times=2)
    assert ended_by(one) is None


async def test_the_end_of_a_credential_is_looked_at_when_it_comes_and_not_for_ordinary_answers() -> None:
    world = World()
    streams = world.streams()
    stream, ordinary = Stream(streams, expires_at=2000), Stream(streams, is_stream=False, expires_at=1500)
    await world.tick(streams, times=2)
    world.judged.clear()
    world.wall = 1999.0
    await world.tick(streams)
    assert world.judged == []
    world.verdict = lambda one: EXPIRED if one is stream else ADMITTED
    world.wall = 2000.0
    await world.tick(streams)
    assert stream.ending is EXPIRED
    assert ordinary.ending is None
    world.judged.clear()
    await world.tick(streams, times=3)
    assert world.judged == []


async def test_a_verdict_that_fails_ends_nothing_and_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: Open) -> Verdict:
        raise ZeroDivisionError

    world = World(verdict=failing)
    streams = world.streams()
    one = Stream(streams)
    await world.tick(streams, times=2)
    assert ended_by(one) is None
    assert "could not be decided" in caplog.text
    world.verdict = lambda _: REFUSED
    await world.tick(streams, RETRY_SECONDS)
    assert ended_by(one) is REFUSED


async def test_thousands_who_change_at_once_are_looked_up_in_turn_and_all_end() -> None:
    world = World()
    streams = world.streams()
    many = [Stream(streams, f"c{number}") for number in range(3000)]
    await world.tick(streams, times=2)
    world.verdict, world.gate = lambda _: REFUSED, asyncio.Event()
    streams.changed(None)
    await asyncio.sleep(0.01)
    world.gate.set()
    await settled(streams)
    assert world.most_at_once == LOOKUPS_AT_ONCE
    assert all(one.interrupted == 1 for one in many)
    await world.tick(streams)
    assert (len(streams), streams._customers) == (0, {})


async def test_the_end_of_the_gateway_leaves_what_is_open_alone() -> None:
    world = World(verdict=lambda _: REFUSED)
    streams = world.streams()
    one = Stream(streams)
    await world.tick(streams)
    world.gate = asyncio.Event()
    streams.tick()
    await asyncio.sleep(0)
    await streams.aclose()
    assert ended_by(one) is None


BOUNDARIES: Final = [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\r\n", b"\r\n\n"]


@pytest.mark.parametrize("end", BOUNDARIES)
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 100])
async def test_the_end_of_an_event_is_found_however_it_was_cut(end: bytes, cut: int) -> None:
    assert await last_event_after(b"data: x" + end, cut) == b"event: access-ended\ndata: {}\n\n"


@pytest.mark.parametrize("text", [b"data: x", b"data: x\n", b"data: x\r\n", b"data: x\n\ndata", b"\n", b": ping\n"])
@pytest.mark.parametrize("cut", [1, 2, 100])
async def test_nothing_is_said_within_an_event(text: bytes, cut: int) -> None:
    assert await last_event_after(text, cut) is None


async def test_a_stream_without_an_event_so_far_is_at_a_boundary() -> None:
    assert await last_event_after(b"", 1) is not None


@pytest.mark.parametrize("header", [(b"Content-Encoding", b"br"), (b"Content-Length", b"9")])
async def test_nothing_is_said_where_it_could_not_be_read(header: tuple[bytes, bytes]) -> None:
    assert await last_event_after(b"data: x\n\n", 100, header) is None


@pytest.mark.parametrize("kind", [b"text/plain", b"text/event-streams", b"application/x-ndjson", b""])
async def test_nothing_is_said_where_there_are_no_events(kind: bytes) -> None:
    assert await last_event_after(b"data: x\n\n", 100, kind=kind) is None


@pytest.mark.parametrize("whole", [True, False])
async def test_an_answer_whose_last_piece_a_slow_caller_still_takes_is_not_ended_once_more(whole: bool) -> None:
    walk: Any = OfARequest()
    walk.send = _taken
    walk.scope[DEPARTURE_KEY] = lambda _: None
    route: Any = None
    one = AnswerUnderWay(walk, route, Caller("alice", "iss", 0))
    interrupted: list[bool] = []
    walk.scope[DEPARTURE_KEY](lambda: interrupted.append(True))
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    await one.send(head)
    await one.send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": not whole})
    one.ending = Refuse(Reason.BLOCKED)
    one.interrupt()
    assert interrupted == ([] if whole else [True])


async def _taken(_: Any) -> None:
    """Takes whatever is sent."""


async def last_event_after(
    body: bytes, cut: int, *more: tuple[bytes, bytes], kind: bytes = b"Text/Event-Stream ; charset=utf-8"
) -> bytes | None:
    """What an answer with this body, sent in pieces of this length, would end with."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    walk: Any = OfARequest()
    walk.send = send
    route: Any = None
    one = AnswerUnderWay(walk, route, Caller("alice", "iss", 0))
    await one.send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", kind), *more]})
    for start in range(0, len(body), cut):
        await one.send({"type": "http.response.body", "body": body[start : start + cut], "more_body": True})
    assert b"".join(message.get("body", b"") for message in sent) == body
    return one.last_event(Answer(Reason.BLOCKED, 403, [], b"{}\n"))
