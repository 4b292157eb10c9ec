"""Section 8's rows for Redis and SQL, with a real Redis that is killed, paused, emptied and restored under way."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import (
    BREAKER_IS_OPEN,
    MAX_AT_ONCE,
    Down,
    EntitlementPublisher,
    Held,
    Keys,
    RedisEntitlements,
    open_redis,
)
from gateway.entitlements.resolver import Found, Resolver
from policies.facts import CustomerFacts, encode
from tests.support.doors import Door
from tests.support.ledger_stub import Clock, ScriptedLedger, granted, nothing
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis
LIFETIMES = Lifetimes(max_ttl=3600, max_stale=1800, negative_ttl=5)
START = 1_800_000_000.0
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"eg:{uuid4().hex}:acct_1:test"


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


async def test_redis_killed_leaves_memory_then_sql_and_is_used_again_when_it_is_back(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            one.ledger.commit(granted("cus_1", 7))
            await one.source()
            own.kill()
            await one.is_degraded()
            assert await one.source() == "memory"
            assert {await one.source(f"cus_{number}") for number in range(2, 12)} == {"sql"}
            own.start()
            await one.is_ok()
            one.ledger.commit(granted("cus_20", 7))
            await one.source("cus_20")
            await one.refilled("cus_20")


async def test_redis_paused_is_as_harmless_as_dead(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            one.ledger.commit(granted("cus_1", 7))
            await one.source()
            await one.refilled()
            own.pause()
            assert await one.source() == "memory"
            for number in range(100, 100 + 3):
                assert await one.source(f"cus_{number}") == "sql"
            await eventually(lambda: one.redis.is_open)
            assert one.resolver.health() == "degraded"
            outcomes = await asyncio.gather(*(one.source(f"cus_{number}") for number in range(200, 400)))
            assert set(outcomes) == {"sql"}
            own.resume()
            await one.is_ok()
            assert not one.redis.is_open
            assert await one.redis.read("cus_1") == granted("cus_1", 7)


async def test_while_the_breaker_is_open_nobody_asks_redis_and_all_are_told_so(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            own.pause()
            await asyncio.gather(*(one.redis.read(f"cus_{number}") for number in range(3)))
            assert one.redis.is_open
            asked: list[str] = []

            async def overheard(key: str) -> None:
                asked.append(key)

            one.redis._get = overheard  # type: ignore[method-assign]
            assert await asyncio.gather(*(one.redis.read("cus_1") for _ in range(50))) == [BREAKER_IS_OPEN] * 50
            assert asked == []
            own.resume()


async def test_nobody_waits_twice_for_a_paused_redis(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            own.pause()
            asked = Counter[str]()
            read = one.redis.read

            async def counting(customer: str) -> object:
                asked[customer] += 1
                return await read(customer)

            one.redis.read = counting  # type: ignore[method-assign, assignment]
            one.ledger.is_gone = True
            outcomes = await asyncio.gather(*(one.source(f"cus_{number}") for number in range(100)))
            assert set(outcomes) == {"unavailable"}
            assert set(asked.values()) == {1}
            own.resume()


async def test_connections_given_up_on_a_paused_redis_are_not_lost_and_answer_nobody_else(prefix: str) -> None:
    """A reply that arrives after its reader gave up must not become the next reader's (CVE-2023-28858)."""
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            for number in range(150):
                await one.redis.refill(granted(f"cus_{number}", number + 1), None, START)
            for _ in range(3):
                own.pause()
                await asyncio.gather(*(one.redis.read(f"cus_{number}") for number in range(150)))
                own.resume()
                await eventually(lambda: not one.redis.is_open)
                for number in range(150):
                    held = await one.redis.read(f"cus_{number}")
                    assert isinstance(held, CustomerFacts)
                    assert held == granted(f"cus_{number}", number + 1)
            assert len(one.client.connection_pool._in_use_connections) <= 1, "only the subscription's"


async def test_redis_and_sql_gone_leaves_known_customers_until_max_stale(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            one.ledger.commit(granted("known", 7))
            await one.source("known")
            own.kill()
            one.ledger.is_gone, one.feed_is_healthy = True, False
            await one.is_degraded()
            await one.notices_that_the_channel_is_lost()
            one.monotonic.advance(2)
            assert await one.source("known") == "stale"
            assert await one.source("stranger") == "unavailable"
            one.monotonic.advance(LIFETIMES.max_stale)
            assert await one.source("known") == "unavailable"


async def test_after_the_channel_was_lost_without_a_feed_each_answer_is_confirmed_with_sql(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            one.feed_is_healthy = False
            one.ledger.commit(granted("cus_1", 7))
            await one.source()
            own.kill()
            await one.notices_that_the_channel_is_lost()
            one.ledger.commit(nothing("cus_1", 8))
            one.monotonic.advance(0.5)
            own.start()
            await one.is_ok()
            assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")


async def test_a_channel_that_falls_silent_without_a_word_is_noticed_and_answers_are_confirmed(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            one.feed_is_healthy = False
            one.ledger.commit(granted("cus_1", 7))
            await one.source()
            one.monotonic.advance(2)
            assert await one.source() == "memory"
            own.pause()
            await one.notices_that_the_channel_is_lost()
            assert await one.source() == "sql"
            own.resume()
            await one.is_ok()


async def test_a_quiet_channel_on_a_healthy_redis_stays_followed(server: RedisServer, prefix: str) -> None:
    async with process(server.url, prefix) as one:
        channel = one.resolver._channel
        assert channel is not None
        one.feed_is_healthy = False
        one.ledger.commit(granted("cus_1", 7))
        await one.source()
        one.monotonic.advance(2)
        await asyncio.sleep(4 * channel._check_seconds)
        assert one.resolver.peek("cus_1", START) == granted("cus_1", 7)


@pytest.mark.parametrize(
    "speech",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$5\r\nab",
        b"*-7\r\n",
        b"\x00\xff" * 50,
        b"-ERR no\r\n" * 20,
        b"$9999999999\r\n",
    ],
)
async def test_something_that_is_no_redis_is_as_harmless_as_none(prefix: str, speech: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(speech)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with process(f"redis://127.0.0.1:{port}", prefix, follows=False) as one:
        one.resolver.start()
        one.ledger.commit(granted("cus_1", 7))
        assert await one.source() == "sql"
        for number in range(5):
            await one.redis.read(f"cus_{number}")
        assert one.redis.is_open
        assert one.resolver.health() == "degraded"
    server.close()
    await server.wait_closed()


async def test_after_the_channel_was_lost_a_healthy_feed_keeps_what_is_remembered(prefix: str) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one:
            one.ledger.commit(granted("cus_1", 7))
            await one.source()
            own.kill()
            await one.notices_that_the_channel_is_lost()
            one.monotonic.advance(0.5)
            own.start()
            await one.is_ok()
            assert await one.source() == "memory"


async def test_redis_restored_from_an_old_snapshot_is_asked_only_after_sql_until_its_old_entries_have_expired(
    prefix: str,
) -> None:
    with RedisServer() as own:
        async with process(own.url, prefix) as one, publisher(own.url, prefix) as publish:
            await publish.publish(granted("cus_1", 7))
            await publish.publish(granted("cus_2", 7))
            await one.client.save()
            await publish.publish(nothing("cus_1", 8))
            one.ledger.commit(nothing("cus_1", 8))
            own.restart()
            await one.notices_that_the_channel_is_lost()
            await one.is_ok()
            assert await one.redis.read("cus_1") == granted("cus_1", 7), "Redis went back in time"
            assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")
            one.ledger.is_gone = True
            assert await one.source("cus_2") == "redis", "better than nothing"


@pytest.fixture(scope="module")
def lagging() -> Iterator[RedisServer]:
    """A replica that was behind when its primary was lost."""
    with RedisServer() as server:
        yield server


async def test_a_replica_that_was_behind_is_not_believed_about_what_was_known_before(
    server: RedisServer, lagging: RedisServer, prefix: str
) -> None:
    """Redis fails over, and the connection over which changes are heard has not noticed yet."""
    address = [server.port]
    door = Door(lambda: socket.create_connection(("127.0.0.1", address[0]), timeout=5))
    try:
        async with process(f"redis://127.0.0.1:{door.port}/0", prefix) as one:
            async with publisher(lagging.url, prefix) as to_the_replica:
                for customer in ("cus_1", "cus_2"):
                    await to_the_replica.publish(granted(customer, 7))
            async with publisher(server.url, prefix) as publish:
                await publish.publish(nothing("cus_1", 8))
                await publish.publish(granted("cus_2", 7))
            one.ledger.commit(nothing("cus_1", 8))
            one.resolver.changed("cus_1", 8)
            await eventually(lambda: len(one.resolver._floors) == 0)
            address[0] = lagging.port
            await one.client.connection_pool.disconnect(inuse_connections=False)
            assert await one.redis.read("cus_1") == granted("cus_1", 7), "the replica is behind"
            assert one.resolver.health() == "ok", "and nothing tells so"
            assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")
            assert await one.source("cus_2") == "redis"
    finally:
        door.shut()


async def test_a_process_that_begins_behind_a_replica_that_was_behind_knows_what_was_published_before(
    server: RedisServer, prefix: str
) -> None:
    ledger = ScriptedLedger()
    ledger.commit(nothing("cus_1", 8))
    async with publisher(server.url, prefix) as publish:
        await publish.publish(granted("cus_1", 7))
        await publish.publish(granted("cus_2", 7))
    async with process(server.url, prefix, ledger, published=(("cus_1", 8), ("cus_2", 7))) as one:
        assert await one.resolver.lookup("cus_1") == Found(nothing("cus_1", 8), "sql")
        assert await one.source("cus_2") == "redis"


async def test_a_process_that_begins_without_redis_works_from_sql_and_finds_redis_later(prefix: str) -> None:
    with RedisServer() as own:
        own.kill()
        async with process(own.url, prefix, follows=False) as one:
            one.resolver.start()
            one.ledger.commit(granted("cus_1", 7))
            assert await one.source() == "sql"
            assert one.resolver.health() == "degraded"
            own.start()
            await one.is_ok()


async def test_a_process_that_follows_nothing_asks_sql_before_redis_and_redis_when_sql_is_gone(
    server: RedisServer, prefix: str
) -> None:
    async with (
        process(server.url, prefix, follows=False) as one,
        publisher(server.url, prefix) as publish,
    ):
        one.feed_is_healthy = False
        await publish.publish(granted("cus_1", 7))
        await publish.publish(nothing("cus_2", 7))
        one.ledger.commit(granted("cus_1", 8))
        assert await one.version() == 8
        one.ledger.is_gone = True
        await publish.publish(granted("cus_3", 7))
        assert await one.source("cus_3") == "redis"
        assert await one.source("cus_3") == "stale", "asked again in a second"
        assert await one.source("cus_2") == "unavailable", "that someone has nothing is not believed unconfirmed"


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
