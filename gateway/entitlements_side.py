"""What each customer has, joined: the lookup, the feed that keeps it fresh, and its way into Redis where there is one.

A part of the composition root. It decides nothing about a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from admin.control import BackgroundJob, Ledger
from admin.ledger.feed import ChangesFeed
from admin.ledger.pair import Pair
from admin.publishing import CachePublisher
from gateway.credentials import ApiKeys
from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import PUBLISH_SECONDS, EntitlementPublisher, RedisEntitlements, open_redis
from gateway.entitlements.resolver import Found, Resolver
from gateway.in_force import InForce
from policies.entitlement import Entitlement
from policies.facts import CustomerFacts

MOST_UNPUBLISHED: Final = 100_000
_ANY_TIME: Final = 2.0**60


@dataclass(frozen=True, slots=True)
class EntitlementsSide:
    """The lookup, what keeps it fresh, and its way into Redis where there is one."""

    resolver: Resolver[Entitlement]
    feed: ChangesFeed
    publisher: CachePublisher | None
    jobs: tuple[BackgroundJob, ...]

    async def lookup(self, customer: str) -> Entitlement | None:
        """None where nothing could be looked up."""
        found = await self.resolver.lookup(customer)
        return found.entitlement if isinstance(found, Found) else None

    async def published(self, versions: dict[str, int]) -> None:
        """After a commit of this process: it forgets at once, the others hear of it from Redis and from `changes`."""
        for customer, version in versions.items():
            self.resolver.changed(customer, version)
        if self.publisher is not None:
            await self.publisher.published(versions)


async def open_entitlements(
    in_force: InForce,
    ledger: Ledger,
    pair: Pair,
    ledger_id: str,
    now: Callable[[], float],
    api_keys: ApiKeys,
    stack: AsyncExitStack,
) -> EntitlementsSide:
    """It is closed with `stack`; the feed and the jobs are for the caller to run. Raises LedgerDownError."""
    cache, url = in_force.config.cache, in_force.config.redis.get_secret_value()
    lifetimes = Lifetimes(max_ttl=cache.max_ttl, max_stale=cache.max_stale, negative_ttl=cache.negative_ttl)
    redis: RedisEntitlements | None = None
    publisher: CachePublisher | None = None
    unpublished: list[tuple[str, int]] = []
    published: list[tuple[str, int]] = []
    if url:
        prefix = f"gw:{ledger_id}:{pair.account}:{'live' if pair.livemode else 'test'}"
        reading, publishing = open_redis(url), open_redis(url, timeout=PUBLISH_SECONDS)
        stack.push_async_callback(publishing.aclose)
        stack.push_async_callback(reading.aclose)
        redis = RedisEntitlements(reading, prefix, lifetimes=lifetimes)
        store = EntitlementPublisher(publishing, prefix, lifetimes=lifetimes, now=now, next_edge=in_force.next_edge)
        publisher = CachePublisher(store, ledger.customers, ledger.changes, pair, now)
        waiting = await ledger.changes.unpublished(MOST_UNPUBLISHED, _ANY_TIME)
        unpublished = [(change.customer, change.version) for change in waiting]
        # Redis may have lost what it was given: an entry from before such a change can still live there.
        published = await ledger.changes.published(min(cache.max_entries, MOST_UNPUBLISHED), now() - cache.max_ttl)

    async def read_facts(customer: str) -> CustomerFacts:
        return await ledger.customers.read_facts(pair, customer, now())

    def changed(customer: str, version: int) -> None:
        api_keys.changed(customer, version)
        resolver.changed(customer, version)

    def unconfirm_all() -> None:
        api_keys.unconfirm_all()
        resolver.unconfirm_all()

    feed = ChangesFeed(ledger.database, changed, on_gap=unconfirm_all)
    resolver: Resolver[Entitlement] = Resolver(
        read_facts=read_facts,
        derive=in_force.derive,
        next_edge=lambda entitlement, at: entitlement.next_edge(at),
        lifetimes=lifetimes,
        max_entries=cache.max_entries,
        now=now,
        monotonic=time.monotonic,
        feed_healthy=lambda: feed.healthy,
        redis=redis,
        unpublished=unpublished,
        published=published,
        count=in_force.count_lookup,
    )
    stack.push_async_callback(resolver.aclose)
    jobs = (BackgroundJob("publisher", publisher.run),) if publisher is not None else ()
    return EntitlementsSide(resolver, feed, publisher, jobs)
