"""Memory, Redis and SQL as one answer while all of them are up: what is read from where, and who is told of what."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from gateway.entitlements.redis import (
    MAX_AT_ONCE,
    Down,
    Held,
)
from gateway.entitlements.resolver import Found
from policies.facts import CustomerFacts, encode
from tests.integration.resolvers import (
    LIFETIMES,
    START,
    eventually,
    process,
    publisher,
)
from tests.support.ledger_stub import ScriptedLedger, granted, nothing
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


async def test_one_process_reads_sql_and_another_then_finds_the_answer_in_redis(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as first, process(server.url, prefix) as second:
        first.ledger.commit(granted("cus_1", 7))
        assert await first.source() == "sql"
        await first.refilled()
        assert await second.source() == "redis"
        assert await second.source() == "memory"
        assert second.ledger.reads == []
        assert second.counted == {"redis": 1, "memory": 1}


async def test_that_a_customer_has_nothing_is_shared_through_redis_too(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix) as first, process(server.url, prefix) as second:
        assert await first.source() == "sql"
        await first.refilled()
        assert await second.source() == "redis"
        second.monotonic.advance(LIFETIMES.negative_ttl)
        assert second.resolver.peek("cus_1", START) is None


async def test_two_hundred_lookups_at_once_are_one_read_of_redis_and_one_of_sql(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one:
        one.ledger.commit(granted("cus_1", 7))
        before = (await one.client.info("commandstats"))["cmdstat_get"]["calls"]
        outcomes = await asyncio.gather(*(one.resolver.lookup("cus_1") for _ in range(200)))
        assert outcomes == [Found(granted("cus_1", 7), "sql")] * 200
        assert one.ledger.reads == ["cus_1"]
        await one.refilled()
        gets = (await one.client.info("commandstats"))["cmdstat_get"]["calls"] - before
        assert gets == 1 + 2, "the lookup's, and the two of the refill's script"


async def test_a_thousand_strangers_at_once_are_all_answered(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix, max_entries=2000) as one:
        outcomes = await asyncio.gather(*(one.source(f"cus_{number}") for number in range(1000)))
        assert set(outcomes) == {"sql"}


async def test_waiting_in_our_own_queue_is_not_held_against_redis(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix) as one, AsyncExitStack() as crowd:
        for _ in range(MAX_AT_ONCE):
            await crowd.enter_async_context(one.redis._room)
        outcomes = await asyncio.gather(*(one.redis.read(f"cus_{number}") for number in range(20)))
        assert {type(outcome) for outcome in outcomes} == {Down}
        assert not one.redis.is_open


async def test_a_publication_reaches_the_memory_of_another_process_that_has_no_changes_feed(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one, publisher(server.url, prefix) as publish:
        one.feed_is_healthy = False
        one.ledger.commit(granted("cus_1", 7))
        await one.source()
        assert await one.source() == "memory", "the channel is followed: no need to confirm"
        await publish.publish(nothing("cus_1", 8))
        await eventually(lambda: one.resolver.peek("cus_1", START) is None)
        assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "redis")


async def test_a_change_that_is_not_in_redis_yet_is_read_from_sql(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix) as one, publisher(server.url, prefix) as publish:
        await publish.publish(granted("cus_1", 7))
        one.resolver.changed("cus_1", 8)
        one.ledger.commit(nothing("cus_1", 8))
        assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")
        await one.refilled()
        await eventually(lambda: len(one.resolver._floors) == 0)


async def test_unpublished_changes_are_known_from_the_start(server: RedisServer, prefix: str) -> None:
    ledger = ScriptedLedger()
    ledger.commit(nothing("cus_1", 8))
    async with publisher(server.url, prefix) as publish:
        await publish.publish(granted("cus_1", 7))
        async with process(server.url, prefix, ledger, unpublished=(("cus_1", 8),)) as one:
            assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")


async def test_a_change_known_of_and_not_in_redis_is_no_free_pass_when_sql_is_gone(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one, publisher(server.url, prefix) as publish:
        await publish.publish(granted("cus_1", 7))
        assert await one.source() == "redis"
        one.resolver.changed("cus_1", 8)
        one.ledger.is_gone = True
        assert await one.source() == "unavailable"


async def test_a_publication_lifts_the_floor_and_leaves_none_when_the_notice_comes_after_it(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one, publisher(server.url, prefix) as publish:
        one.resolver.changed("before", 8)
        await publish.publish(granted("before", 8))
        await publish.publish(granted("after", 8))
        await eventually(lambda: one.resolver._floors._held.get("after") == 8)
        one.resolver.changed("after", 8)
        assert len(one.resolver._floors) == 0
        assert await one.source("before") == "redis"


async def test_a_floor_is_lifted_when_redis_is_seen_to_hold_that_version(server: RedisServer, prefix: str) -> None:
    async with publisher(server.url, prefix) as publish:
        await publish.publish(granted("cus_1", 8))
        async with process(server.url, prefix) as one:
            one.resolver.changed("cus_1", 8)
            assert len(one.resolver._floors) == 1
            assert await one.source() == "redis"
            assert len(one.resolver._floors) == 0


async def test_an_answer_older_than_the_one_remembered_is_not_believed_from_redis(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one:
        one.ledger.commit(granted("cus_1", 8))
        await one.source()
        await one.refilled()
        await one.client.delete(one.redis.keys.guard("cus_1"))
        await one.client.set(one.redis.keys.entry("cus_1"), encode(granted("cus_1", 7, tier="enterprise")))
        one.monotonic.advance(LIFETIMES.max_ttl)
        assert await one.resolver.lookup("cus_1") == Found(granted("cus_1", 8), "sql")
        one.monotonic.advance(LIFETIMES.max_ttl)
        await one.client.set(one.redis.keys.entry("cus_1"), encode(granted("cus_1", 7, tier="enterprise")))
        one.ledger.is_gone = True
        assert await one.resolver.lookup("cus_1") == Found(granted("cus_1", 8), "stale")


async def test_an_answer_from_redis_that_was_overtaken_under_way_is_not_believed(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one:
        await one.redis.refill(granted("cus_1", 7), None, START)
        read = one.redis.read

        async def overtaken(customer: str) -> CustomerFacts | Down | None:
            held = await read(customer)
            one.ledger.commit(nothing("cus_1", 8))
            one.resolver.announced("cus_1", 8)
            return held

        one.redis.read = overtaken  # type: ignore[method-assign]
        assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")


async def test_too_many_changes_make_redis_unheard_for_as_long_as_it_could_hold_an_older_answer(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix, max_entries=10) as one, publisher(server.url, prefix) as publish:
        await publish.publish(granted("cus_0", 7))
        for number in range(11):
            one.resolver.changed(f"cus_{number}", 8)
        one.ledger.commit(nothing("cus_0", 8))
        assert await one.source("cus_0") == "sql"
        one.ledger.is_gone = True
        await publish.publish(granted("cus_99", 7))
        assert await one.source("cus_99") == "unavailable"
        one.monotonic.advance(LIFETIMES.max_ttl)
        assert await one.source("cus_99") == "redis"


async def test_sql_gone_leaves_memory_and_redis_and_a_customer_neither_knows_is_unavailable(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one, publisher(server.url, prefix) as publish:
        one.ledger.commit(granted("remembered", 7))
        await one.source("remembered")
        await publish.publish(granted("in_redis", 7))
        one.ledger.is_gone = True
        one.feed_is_healthy = False
        assert await one.source("remembered") == "memory"
        assert await one.source("in_redis") == "redis"
        assert await one.source("stranger") == "unavailable"


async def test_garbage_in_redis_is_read_from_sql_and_replaced(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix) as one:
        one.ledger.commit(granted("cus_1", 7))
        await one.client.set(one.redis.keys.entry("cus_1"), encode(granted("cus_1", 99))[:-3])
        assert await one.version() == 7
        await one.refilled()
        assert await one.redis.read("cus_1") == granted("cus_1", 7)


async def test_an_unreadable_announcement_unconfirms_all_when_nothing_else_tells_of_changes(
    server: RedisServer, prefix: str
) -> None:
    async with process(server.url, prefix) as one:
        one.ledger.commit(granted("cus_1", 7))
        await one.source()
        one.feed_is_healthy = False
        one.monotonic.advance(1)
        await one.client.publish(one.redis.keys.channel, b"\xff{'from': 'the future'}")
        await eventually(lambda: one.resolver.peek("cus_1", START) is None)


async def test_a_flushed_redis_is_filled_again_from_sql(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix) as one, process(server.url, prefix, one.ledger) as two:
        one.ledger.commit(granted("cus_1", 7))
        await one.source()
        await one.refilled()
        await one.client.flushall()
        assert await two.source() == "sql"
        await two.refilled()


async def test_a_publisher_and_its_own_resolver_agree_without_the_channel(server: RedisServer, prefix: str) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(process(server.url, prefix, follows=False))
        publish = await stack.enter_async_context(publisher(server.url, prefix))
        one.resolver.changed("cus_1", 8)
        assert await publish.publish(granted("cus_1", 8)) == Held(8)
        one.resolver.announced("cus_1", 8)
        assert len(one.resolver._floors) == 0


async def test_another_installation_in_the_same_redis_is_neither_read_nor_heard(server: RedisServer) -> None:
    ours, theirs = f"eg:{uuid4().hex}:a:test", f"eg:{uuid4().hex}:a:test"
    async with process(server.url, ours) as one, publisher(server.url, theirs) as publish:
        one.ledger.commit(nothing("cus_1", 1))
        await publish.publish(granted("cus_1", 7))
        assert await one.version() == 1
