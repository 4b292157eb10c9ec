"""Section 8's rows for Redis and SQL, with a real Redis that is killed, paused, emptied and restored under way."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from gateway.entitlements.redis import (
    BREAKER_IS_OPEN,
)
from gateway.entitlements.resolver import Found
from policies.facts import CustomerFacts
from tests.integration.resolvers import (
    LIFETIMES,
    START,
    eventually,
    process,
    publisher,
)
from tests.support.doors import Door
from tests.support.ledger_stub import ScriptedLedger, granted, nothing
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


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
