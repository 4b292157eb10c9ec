"""What a customer is entitled to, looked up: memory, then Redis, then SQL (docs/design.md, sections 7 and 8).

Decides whose answer is believed and for how long, never what it means: access follows from the facts and the time.

1. An answer is *confirmed* when the ledger said it, or Redis while its changes were being followed. It stays so for as
   long as this process follows the changes feed or the Redis channel, because it would have been told.
2. A process that follows neither confirms an entry with SQL, at most once a second per customer.
3. A change that is known of is never un-known: an older answer, from Redis or from a read under way, is not stored.
4. When no source answers, what was last confirmed serves for `max_stale`, counted from the last moment at which it
   would have been heard that it changed. That nobody knows a customer is never remembered beyond its time: such an
   answer would refuse someone who may have paid. Then, and for a customer not remembered, the answer is `Unavailable`.
5. One lookup per customer is under way at a time, and it asks each source at most once, but for SQL when a change
   overtook the read. Nobody who gives up waiting takes the answer from the others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

from gateway.entitlements.channel import ChangeChannel
from gateway.entitlements.floors import Floors
from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.local import Entry, Memory
from gateway.entitlements.redis import Down, Held, RedisEntitlements
from gateway.entitlements.tasks import end
from policies.facts import CustomerFacts

logger = logging.getLogger(__name__)
E = TypeVar("E")

CONFIRM_SECONDS: Final = 1.0
"""While no change would be heard of, a customer is confirmed with SQL at most this often, and asked about again at
most this often when every source failed."""
SQL_SECONDS: Final = 2.0
OVERTAKEN_READS: Final = 3
MAX_REFILLS: Final = 256
"""Refills under way; beyond it they are left out, since the next lookup makes up for one."""

Source = Literal["memory", "redis", "sql", "stale"]


@dataclass(frozen=True, slots=True)
class Found(Generic[E]):
    """An answer, and who gave it. `stale`: no source answered, and this is what was known last."""

    entitlement: E
    source: Source


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Nobody could say: a 503 where the answer depends on it, never a 402 and never a free pass."""

    detail: str


@dataclass(slots=True)
class _Flight(Generic[E]):
    """A lookup under way, and the newest version heard of since it began."""

    floor: int = -1
    task: asyncio.Task[Found[E] | Unavailable] = field(init=False)


@dataclass(frozen=True, slots=True)
class _Read:
    """What SQL said, in a read that began `at`. Overtaken: it may be older than a change that is known of."""

    facts: CustomerFacts
    at: float
    is_overtaken: bool


class Resolver(Generic[E]):
    """`start` it once its feed has a position, `aclose` it at the end. `count` is called per lookup and must be cheap.

    `feed_healthy` says that every change committed until a moment ago has been given to `changed`.
    """

    def __init__(
        self,
        *,
        read_facts: Callable[[str], Awaitable[CustomerFacts]],
        derive: Callable[[CustomerFacts], E],
        next_edge: Callable[[E, float], float | None],
        lifetimes: Lifetimes,
        max_entries: int,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        feed_healthy: Callable[[], bool],
        redis: RedisEntitlements | None = None,
        unpublished: Iterable[tuple[str, int]] = (),
        published: Iterable[tuple[str, int]] = (),
        count: Callable[[str], object] = lambda _result: None,
        sql_timeout: float = SQL_SECONDS,
    ) -> None:
        self._read_facts = read_facts
        self._derive = derive
        self._next_edge = next_edge
        self._lifetimes = lifetimes
        self._now = now
        self._monotonic = monotonic
        self._feed_healthy = feed_healthy
        self._redis = redis
        self._channel = ChangeChannel(redis.client, redis.keys.channel, self) if redis else None
        self._count = count
        self._sql_timeout = sql_timeout
        self._memory: Memory[E] = Memory(max_entries)
        self._floors = Floors(max_entries, lifetimes.max_ttl)
        self._flights: dict[str, _Flight[E]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._generation = 0
        self._unheard_at = -sys.float_info.max  # above the -inf of what was never confirmed
        self._followed_at = -math.inf
        self._doubted_until = -math.inf
        self._on_change: Callable[[str | None], None] = _told_nobody
        if redis is not None:
            self._floors.start_from(unpublished, published, monotonic())

    def on_change(self, told: Callable[[str | None], None]) -> None:
        """Whom to tell that the answer for a customer may be another one now; for anybody, when told None. At once, always."""
        self._on_change = told

    def start(self) -> None:
        """Begin to follow the Redis channel, where there is one."""
        if self._channel is not None:
            self._following = asyncio.get_running_loop().create_task(self._channel.run())

    async def aclose(self) -> None:
        """Let lookups under way end (each is bounded), and stop everything else."""
        if self._flights:
            await asyncio.wait([flight.task for flight in self._flights.values()])
        await end([*self._background, *([self._following] if self._following else [])])
        if self._redis is not None:
            await self._redis.aclose()

    def health(self) -> Literal["ok", "degraded", "off"]:
        """How Redis is, for /readyz: without it everything works, from SQL."""
        if self._redis is None or self._channel is None:
            return "off"
        return "ok" if self._channel.is_followed and not self._redis.is_open else "degraded"

    def peek(self, customer: str, now: float) -> E | None:
        """The answer at `now` if memory has it; asks nobody."""
        known = self.glance(customer, now)
        if known is not None:
            self.used_memory()
        return known

    def glance(self, customer: str, now: float) -> E | None:
        """As `peek`, for one who may come again with the same question: whoever uses the answer says so by `used_memory`."""
        entry = self._memory.get(customer)
        return entry.entitlement if entry is not None and self._serves(entry, now) else None

    def used_memory(self) -> None:
        """An answer of `glance` was used."""
        self._count("memory")

    async def lookup(self, customer: str) -> Found[E] | Unavailable:
        """The answer from memory, Redis or SQL."""
        outcome: Found[E] | Unavailable | None = self._remembered(customer)
        if outcome is None:
            flight = self._flights.get(customer)
            if flight is None:
                self._flights[customer] = flight = _Flight()
                flight.task = asyncio.get_running_loop().create_task(self._fly(customer, flight))
            outcome = await asyncio.shield(flight.task)
        self._count(outcome.source if isinstance(outcome, Found) else "unavailable")
        return outcome

    def changed(self, customer: str, version: int) -> None:
        """From the changes feed: the ledger holds `version` of `customer`."""
        if self._redis is not None:
            self._floors.raise_to(customer, version, self._monotonic())
        self._outdate(customer, version)

    def announced(self, customer: str, version: int) -> None:
        """From the Redis channel, or after an own publication: Redis holds `version` of `customer`."""
        self._floors.lift(customer, version)
        self._outdate(customer, version)

    def missed_announcements(self, *, redis_may_have_lost_writes: bool) -> None:
        """From the Redis channel: (re)subscribed, and unable to tell what was said before."""
        if redis_may_have_lost_writes:
            self._doubted_until = self._monotonic() + self._lifetimes.max_ttl
        if not self._feed_healthy():
            self.unconfirm_all()

    def unconfirm_all(self) -> None:
        """Changes may have been missed: each remembered answer must be confirmed before it serves again."""
        self._unheard_at = self._monotonic()
        self._on_change(None)

    def forget_all(self, derive: Callable[[CustomerFacts], E] | None = None) -> None:
        """After a reload: every answer is derived anew, from facts that are as good as they were."""
        self._derive = derive or self._derive
        self._generation += 1
        self._on_change(None)

    def _serves(self, entry: Entry[E], now: float) -> bool:
        at = self._monotonic()
        confirmed_since = self._unheard_at if self._follows(at) else at - CONFIRM_SECONDS
        return (
            now < entry.edge
            and at < entry.fresh_until
            and entry.confirmed_at > confirmed_since
            and entry.generation == self._generation
        )

    def _follows(self, at: float) -> bool:
        if (self._channel is not None and self._channel.is_followed) or self._feed_healthy():
            self._followed_at = at
            return True
        return False

    def _remembered(self, customer: str) -> Found[E] | None:
        entry = self._memory.get(customer)
        if entry is None:
            return None
        now, at = self._now(), self._monotonic()
        if entry.generation != self._generation:
            self._derive_anew(entry, now)
        if self._serves(entry, now):
            return Found(entry.entitlement, "memory")
        if at < entry.retry_at and self._outlasts_its_sources(entry, at):
            return Found(entry.entitlement, "stale")
        return None

    def _outlasts_its_sources(self, entry: Entry[E], at: float) -> bool:
        if entry.facts.is_empty:
            return False
        heard_of = entry.confirmed_at > self._unheard_at
        known_at = max(entry.read_at, self._followed_at) if heard_of else entry.read_at
        return at < known_at + self._lifetimes.max_stale

    async def _fly(self, customer: str, flight: _Flight[E]) -> Found[E] | Unavailable:
        try:
            return await self._ask_sources(customer, flight)
        finally:
            del self._flights[customer]

    async def _ask_sources(self, customer: str, flight: _Flight[E]) -> Found[E] | Unavailable:
        at = self._monotonic()
        redis_leads = self._redis_leads(at)
        if redis_leads and (held := await self._ask_redis(customer, flight)) is not None:
            return Found(self._remember(held, read_at=at, confirmed_at=at).entitlement, "redis")

        answer = await self._ask_sql(customer, flight)
        if isinstance(answer, _Read):
            if answer.is_overtaken:
                return Found(self._derive(answer.facts), "sql")
            entry = self._remember(answer.facts, read_at=answer.at, confirmed_at=answer.at)
            self._refill(answer.facts, entry.edge)
            return Found(entry.entitlement, "sql")

        at = self._monotonic()
        if not redis_leads and (held := await self._ask_redis(customer, flight)) is not None and not held.is_empty:
            entry = self._remember(held, read_at=at, confirmed_at=-math.inf)
            entry.retry_at = at + CONFIRM_SECONDS
            return Found(entry.entitlement, "redis")
        last_known = self._memory.get(customer)
        if last_known is not None and self._outlasts_its_sources(last_known, at):
            last_known.retry_at = at + CONFIRM_SECONDS
            return Found(last_known.entitlement, "stale")
        return answer

    def _redis_leads(self, at: float) -> bool:
        """Whether what Redis holds is as good as what SQL would say."""
        return self._channel is not None and self._channel.is_followed and at >= self._doubted_until

    async def _ask_redis(self, customer: str, flight: _Flight[E]) -> CustomerFacts | None:
        if self._redis is None or self._monotonic() < self._floors.distrusted_until:
            return None
        held = await self._redis.read(customer)
        if held is None or isinstance(held, Down):
            return None
        remembered = self._memory.get(customer)
        known_version = max(flight.floor, remembered.facts.version if remembered else -1)
        if held.version < known_version or not self._floors.admits(customer, held.version):
            return None
        self._floors.seen(customer, held.version)
        return held

    async def _ask_sql(self, customer: str, flight: _Flight[E]) -> _Read | Unavailable:
        for _ in range(OVERTAKEN_READS):
            floor, at = flight.floor, self._monotonic()
            try:
                async with asyncio.timeout(self._sql_timeout):
                    facts = await self._read_facts(customer)
            except Exception as error:
                # Whatever a driver raises: the ledger gave no answer.
                logger.debug("ledger: a lookup failed", exc_info=True)
                return Unavailable(f"the ledger gave no answer ({type(error).__name__})")
            # A change that arrived while we read may not be in what we read. One that arrived before is: the feed
            # tells of commits, so an older version then means a ledger that was restored, and it is the truth.
            if facts.version >= flight.floor or flight.floor == floor:
                return _Read(facts, at, is_overtaken=False)
        return _Read(facts, at, is_overtaken=True)

    def _remember(self, facts: CustomerFacts, *, read_at: float, confirmed_at: float) -> Entry[E]:
        entitlement = self._derive(facts)
        entry = Entry(
            facts=facts,
            entitlement=entitlement,
            generation=self._generation,
            edge=self._edge(entitlement, self._now()),
            fresh_until=read_at + self._lifetimes.age_limit(facts),
            confirmed_at=confirmed_at,
            read_at=read_at,
            retry_at=-math.inf,
        )
        self._memory.put(facts.customer, entry)
        return entry

    def _edge(self, entitlement: E, now: float) -> float:
        edge = self._next_edge(entitlement, now)
        return math.inf if edge is None else edge

    def _derive_anew(self, entry: Entry[E], now: float) -> None:
        entry.entitlement = self._derive(entry.facts)
        entry.generation = self._generation
        if now < entry.edge:  # one whose edge has passed is looked up, whatever the new rules say
            entry.edge = self._edge(entry.entitlement, now)

    def _outdate(self, customer: str, version: int) -> None:
        entry = self._memory.get(customer)
        if entry is not None and entry.facts.version < version:
            self._memory.forget(customer)
        flight = self._flights.get(customer)
        if flight is not None:
            flight.floor = max(flight.floor, version)
        self._on_change(customer)

    def _refill(self, facts: CustomerFacts, edge: float) -> None:
        if self._redis is None or self._redis.is_open or len(self._background) >= MAX_REFILLS:
            return
        task = asyncio.get_running_loop().create_task(self._put_back(self._redis, facts, edge))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _put_back(self, redis: RedisEntitlements, facts: CustomerFacts, edge: float) -> None:
        held = await redis.refill(facts, edge, self._now())
        if isinstance(held, Held):
            self._floors.seen(facts.customer, held.version)


def _told_nobody(_customer: str | None) -> None:
    return
