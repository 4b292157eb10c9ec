"""Resolvers as gateway processes have them, each on a client and breaker of its own, over one real Redis."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import (
    EntitlementPublisher,
    Keys,
    RedisEntitlements,
    open_redis,
)
from gateway.entitlements.resolver import Found, Resolver
from policies.facts import CustomerFacts
from tests.support.ledger_stub import Clock, ScriptedLedger

LIFETIMES = Lifetimes(max_ttl=3600, max_stale=1800, negative_ttl=5)
START = 1_800_000_000.0
PATIENCE_SECONDS = 30.0


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.01)


def identity(facts: CustomerFacts) -> CustomerFacts:
    return facts


def no_edge(_facts: CustomerFacts, _now: float) -> None:
    return None


@dataclass
class Process:
    """One gateway process's resolver, on a client and breaker of its own."""

    resolver: Resolver[CustomerFacts]
    redis: RedisEntitlements
    client: Redis
    ledger: ScriptedLedger
    monotonic: Clock
    feed_is_healthy: bool = True
    counted: Counter[str] = field(default_factory=Counter)

    async def source(self, customer: str = "cus_1") -> str:
        outcome = await self.resolver.lookup(customer)
        return outcome.source if isinstance(outcome, Found) else "unavailable"

    async def version(self, customer: str = "cus_1") -> int:
        outcome = await self.resolver.lookup(customer)
        assert isinstance(outcome, Found)
        return outcome.entitlement.version

    async def refilled(self, customer: str = "cus_1") -> None:
        await eventually(lambda: not self.resolver._background)
        assert await self.client.exists(Keys(self.redis.keys.prefix).entry(customer))

    async def is_ok(self) -> None:
        await eventually(lambda: self.resolver.health() == "ok")

    async def is_degraded(self) -> None:
        await eventually(lambda: self.resolver.health() == "degraded")

    async def notices_that_the_channel_is_lost(self) -> None:
        channel = self.resolver._channel
        assert channel is not None
        await eventually(lambda: not channel.is_followed)


@asynccontextmanager
async def process(
    url: str,
    prefix: str,
    ledger: ScriptedLedger | None = None,
    *,
    max_entries: int = 100,
    unpublished: tuple[tuple[str, int], ...] = (),
    published: tuple[tuple[str, int], ...] = (),
    follows: bool = True,
) -> AsyncIterator[Process]:
    ledger = ledger or ScriptedLedger()
    client = open_redis(url)
    redis = RedisEntitlements(client, prefix, lifetimes=LIFETIMES, probe_seconds=0.05)
    monotonic = Clock(50.0)
    made: list[Process] = []
    counted: Counter[str] = Counter()
    resolver: Resolver[CustomerFacts] = Resolver(
        read_facts=ledger.read,
        derive=identity,
        next_edge=no_edge,
        lifetimes=LIFETIMES,
        max_entries=max_entries,
        now=Clock(START),
        monotonic=monotonic,
        feed_healthy=lambda: bool(made) and made[0].feed_is_healthy,
        redis=redis,
        unpublished=unpublished,
        published=published,
        count=lambda result: counted.update([result]),
    )
    made.append(Process(resolver, redis, client, ledger, monotonic, counted=counted))
    channel = resolver._channel
    assert channel is not None
    channel._check_seconds, channel._retry_seconds = 0.3, 0.05
    try:
        if follows:
            resolver.start()
            await made[0].is_ok()
        yield made[0]
    finally:
        await resolver.aclose()
        await client.aclose()


@asynccontextmanager
async def publisher(url: str, prefix: str) -> AsyncIterator[EntitlementPublisher]:
    client = open_redis(url, timeout=2)
    try:
        yield EntitlementPublisher(client, prefix, lifetimes=LIFETIMES, now=Clock(START), next_edge=no_edge)
    finally:
        await client.aclose()
