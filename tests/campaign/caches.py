"""A second gateway process's memory beside the house: it hears of changes by Redis and by the ledger's feed alone.

Two readers over one Redis: one is told at once of what its own process commits, the other only as another process is.
What they answer is held against the oracle like the ledger itself. Redis is a real one and may be restarted, empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.ledger.feed import ChangesFeed
from admin.publishing import CachePublisher
from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import PUBLISH_SECONDS, EntitlementPublisher, RedisEntitlements, open_redis
from gateway.entitlements.resolver import Found, Resolver
from policies.entitlement import Entitlement, derive
from policies.facts import CustomerFacts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from admin.rehearsal.house import House
    from tests.support.redis_server import RedisServer

LIFETIMES: Final = Lifetimes(max_ttl=3600.0, max_stale=3600.0, negative_ttl=5.0)
_ANY_TIME: Final = 2.0**60


@dataclass(slots=True)
class Caches:
    """Both readers and the way into Redis."""

    server: RedisServer
    own: Resolver[Entitlement]
    other: Resolver[Entitlement]
    feed: ChangesFeed
    publisher: CachePublisher
    house: House

    async def answers(self, customer: str) -> list[Entitlement]:
        """What each process would decide by, a moment after the last commit."""
        await self.feed._look()  # at most 250 ms later in real life
        found = [await reader.lookup(customer) for reader in (self.own, self.other)]
        assert all(isinstance(one, Found) for one in found), found
        return [one.entitlement for one in found if isinstance(one, Found)]

    async def catch_up_with_redis(self) -> None:
        """As the publisher's background job: what Redis has not been told of."""
        for change in await self.house.changes.unpublished(1000, _ANY_TIME):
            await self.publisher.publish(change.customer)

    async def restart_redis(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def committed(self, versions: dict[str, int]) -> None:
        """After a commit of the first process."""
        for customer, version in versions.items():
            self.own.changed(customer, version)
        await self.publisher.published(versions)


@asynccontextmanager
async def caches_of(house: House, server: RedisServer) -> AsyncIterator[Caches]:
    """Caches that follow `house`."""
    prefix = f"campaign:{time.monotonic_ns()}"
    async with AsyncExitStack() as stack:

        def client(timeout: float = 0.1) -> Redis:
            opened = open_redis(server.url, timeout=timeout)
            stack.push_async_callback(opened.aclose)
            return opened

        store = EntitlementPublisher(
            client(PUBLISH_SECONDS),
            prefix,
            lifetimes=LIFETIMES,
            now=house.clock,
            next_edge=lambda facts, at: derive(facts, house.ladder, house.terms.rules).next_edge(at),
        )
        publisher = CachePublisher(store, house.customers, house.changes, house.pair, house.clock)
        own, other = (_reader(house, RedisEntitlements(client(), prefix, lifetimes=LIFETIMES)) for _ in range(2))

        def changed(customer: str, version: int) -> None:
            own.changed(customer, version)
            other.changed(customer, version)

        feed = ChangesFeed(house.database, changed)
        await feed._tail.open()
        stack.push_async_callback(feed._tail.close)
        await feed._look()
        for reader in (own, other):
            reader.start()
            stack.push_async_callback(reader.aclose)
        caches = Caches(server, own, other, feed, publisher, house)
        house.published = caches.committed
        yield caches


def _reader(house: House, redis: RedisEntitlements) -> Resolver[Entitlement]:
    async def read_facts(customer: str) -> CustomerFacts:
        return await house.customers.read_facts(house.pair, customer, house.clock())

    return Resolver(
        read_facts=read_facts,
        derive=lambda facts: derive(facts, house.ladder, house.terms.rules),
        next_edge=lambda entitlement, at: entitlement.next_edge(at),
        lifetimes=LIFETIMES,
        max_entries=1000,
        now=house.clock,
        monotonic=time.monotonic,
        # It is looked at before each answer: what it would tell within 250 ms is told.
        feed_healthy=lambda: True,
        redis=redis,
    )
