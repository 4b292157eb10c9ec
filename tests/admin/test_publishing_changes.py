"""From the ledger into a real Redis: published until it holds, marked only then, and never a commit's failure."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from admin.ledger.changes import Changes
from admin.ledger.customers import Customers
from admin.ledger.engine import LedgerDownError
from admin.ledger.pair import Pair
from admin.publishing import CachePublisher
from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import EntitlementPublisher, RedisEntitlements, open_redis
from policies.facts import CustomerFacts
from tests.support.ledgers import fresh_sqlite, opened
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.redis
PAIR = Pair("acct_1", livemode=False)
LIFETIMES = Lifetimes(max_ttl=3600, max_stale=3600, negative_ttl=5)


@dataclass(slots=True)
class Press:
    server: RedisServer
    publisher: CachePublisher
    customers: Customers
    changes: Changes
    client: Redis

    async def grant(self, customer: str) -> int:
        return await self.customers.grant(customer, "pro", None, "a test", "a test", time.time())

    async def held(self, customer: str) -> CustomerFacts | None:
        reader = RedisEntitlements(self.client, "t", lifetimes=LIFETIMES)
        found = await reader.read(customer)
        await reader.aclose()
        return found if isinstance(found, CustomerFacts) else None

    async def waiting(self) -> list[str]:
        return [change.customer for change in await self.changes.unpublished(100, 2.0**60)]


@asynccontextmanager
async def press(directory: Path) -> AsyncIterator[Press]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        database = await opened(fresh_sqlite(directory))
        stack.push_async_callback(database.dispose)
        client = open_redis(server.url)
        stack.push_async_callback(client.aclose)
        customers, changes = Customers(database), Changes(database)
        store = EntitlementPublisher(
            client, "t", lifetimes=LIFETIMES, now=time.time, next_edge=lambda _facts, _now: None, timeout=0.3
        )
        yield Press(server, CachePublisher(store, customers, changes, PAIR, time.time), customers, changes, client)


async def test_what_was_committed_is_in_redis_and_marked(tmp_path: Path) -> None:
    async with press(tmp_path) as one:
        version = await one.grant("alice")
        assert await one.waiting() == ["alice"]
        await one.publisher.published({"alice": version})
        held = await one.held("alice")
        assert held is not None
        assert (held.version, held.grants[0].tier) == (version, "pro")
        assert await one.waiting() == []


async def test_while_redis_is_away_nothing_is_marked_and_nobody_fails(tmp_path: Path) -> None:
    async with press(tmp_path) as one:
        version = await one.grant("alice")
        one.server.kill()
        await one.publisher.published({"alice": version})
        assert await one.waiting() == ["alice"]
        running = asyncio.create_task(one.publisher.run())
        await one.grant("bob")
        one.server.start()
        async with asyncio.timeout(10):
            while await one.waiting():  # noqa: ASYNC110 -- the ledger tells in no other way
                await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [facts is not None for facts in (await one.held("alice"), await one.held("bob"))] == [True, True]


async def test_a_redis_that_never_answers_costs_one_timeout_and_not_one_per_customer(tmp_path: Path) -> None:
    asked: list[str] = []
    async with press(tmp_path) as one:
        versions = {name: await one.grant(name) for name in ("a", "b", "c")}
        publish = one.publisher.publish

        async def watched(customer: str) -> bool:
            asked.append(customer)
            return await publish(customer)

        one.publisher.publish = watched  # type: ignore[method-assign]
        one.server.pause()
        await one.publisher.published(versions)
        one.server.resume()
        assert asked == ["a"]
        assert sorted(await one.waiting()) == ["a", "b", "c"]


async def test_a_ledger_that_goes_away_after_the_commit_is_no_failure_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with press(tmp_path) as one:
        version = await one.grant("alice")

        async def gone(*_: Any) -> Any:
            raise LedgerDownError("no answer in time")

        with monkeypatch.context() as patch:
            patch.setattr(one.customers, "read_facts", gone)
            await one.publisher.published({"alice": version})
        assert await one.waiting() == ["alice"]


async def test_a_newer_entry_in_redis_is_never_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with press(tmp_path) as one:
        await one.grant("alice")
        newest = await one.grant("alice")
        assert await one.publisher.publish("alice")

        async def slow(*_: Any) -> CustomerFacts:
            return CustomerFacts("alice", newest - 1)

        with monkeypatch.context() as patch:
            patch.setattr(one.customers, "read_facts", slow)
            assert await one.publisher.publish("alice")
        held = await one.held("alice")
        assert held is not None
        assert held.version == newest
