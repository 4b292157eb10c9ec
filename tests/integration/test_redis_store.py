"""The write side against a real Redis: compare-and-set, lifetimes, announcements, and what others may have left there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import Down, EntitlementPublisher, Held, Keys, RedisEntitlements, open_redis
from policies.facts import FACTS_FORMAT, CustomerFacts, encode
from tests.support.ledger_stub import granted, nothing
from tests.support.redis_server import running_redis_url

pytestmark = pytest.mark.redis
LIFETIMES = Lifetimes(max_ttl=3600, max_stale=3600, negative_ttl=5)
NOW = 1_800_000_000.0
MICROSECONDS = 1_800_000_000_123_457


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis_url() as url:
        yield url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url, timeout=2)
    yield client
    await client.aclose()


@pytest.fixture
def prefix() -> str:
    return f"eg:{uuid4().hex}:acct_1:test"


@pytest.fixture
async def reader(client: Redis, prefix: str) -> AsyncIterator[RedisEntitlements]:
    reader = RedisEntitlements(client, prefix, lifetimes=LIFETIMES, timeout=2)
    yield reader
    await reader.aclose()


def publisher(client: Redis, prefix: str, edge: float | None = None) -> EntitlementPublisher:
    return EntitlementPublisher(client, prefix, lifetimes=LIFETIMES, now=lambda: NOW, next_edge=lambda _f, _now: edge)


async def test_what_is_published_is_read_back_equal(client: Redis, prefix: str, reader: RedisEntitlements) -> None:
    facts = granted("cus_é {odd} 100% name", MICROSECONDS)
    assert await publisher(client, prefix).publish(facts) == Held(MICROSECONDS)
    assert await reader.read(facts.customer) == facts
    assert await reader.read("cus_other") is None


async def test_a_slow_reader_can_not_put_back_an_old_answer(
    client: Redis, prefix: str, reader: RedisEntitlements
) -> None:
    new = nothing("cus_1", MICROSECONDS + 1)
    await publisher(client, prefix).publish(new)
    assert await reader.refill(granted("cus_1", MICROSECONDS), None, NOW) == Held(MICROSECONDS + 1)
    assert await reader.read("cus_1") == new


async def test_not_even_after_the_new_answer_has_expired(client: Redis, prefix: str, reader: RedisEntitlements) -> None:
    await publisher(client, prefix, edge=NOW).publish(granted("cus_1", MICROSECONDS + 1))
    await asyncio.sleep(0.05)
    assert await reader.read("cus_1") is None
    assert await reader.refill(granted("cus_1", MICROSECONDS), None, NOW) == Held(MICROSECONDS + 1)
    assert await reader.read("cus_1") is None


async def test_not_even_after_the_guard_was_evicted(client: Redis, prefix: str, reader: RedisEntitlements) -> None:
    new = nothing("cus_1", MICROSECONDS + 1)
    await publisher(client, prefix).publish(new)
    await client.delete(Keys(prefix).guard("cus_1"))
    assert await reader.refill(granted("cus_1", MICROSECONDS), None, NOW) == Held(MICROSECONDS + 1)
    assert await reader.read("cus_1") == new


async def test_of_many_writers_at_once_the_newest_version_stays(
    client: Redis, prefix: str, reader: RedisEntitlements
) -> None:
    versions = [MICROSECONDS + (number * 7919) % 101 for number in range(101)]
    await asyncio.gather(*(reader.refill(granted("cus_1", version), None, NOW) for version in versions))
    assert await reader.read("cus_1") == granted("cus_1", MICROSECONDS + 100)


async def test_writing_the_same_version_again_extends_its_life(
    client: Redis, prefix: str, reader: RedisEntitlements
) -> None:
    await reader.refill(granted("cus_1", 5), NOW + 1, NOW)
    assert await reader.refill(granted("cus_1", 5), NOW + 1000, NOW) == Held(5)
    assert 990_000 < await client.pttl(Keys(prefix).entry("cus_1")) <= 1_000_000


@pytest.mark.parametrize(
    ("facts", "edge", "seconds"),
    [
        (granted("cus_1", 5), None, 3600),
        (granted("cus_1", 5), NOW + 120, 120),
        (granted("cus_1", 5), NOW + 999_999, 3600),
        (nothing("cus_1", 5), None, 5),
    ],
)
async def test_an_entry_lives_until_its_edge_and_its_guard_for_the_longest_time(
    client: Redis, prefix: str, facts: CustomerFacts, edge: float | None, seconds: int
) -> None:
    await publisher(client, prefix, edge).publish(facts)
    life = await client.pttl(Keys(prefix).entry("cus_1"))
    guard = await client.pttl(Keys(prefix).guard("cus_1"))
    assert (seconds - 2) * 1000 < life <= seconds * 1000
    assert 3_598_000 < guard <= 3_600_000


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"null",
        b"[]",
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        encode(granted("cus_1", 5))[:-7],
        encode(granted("cus_1", 5)).replace(b'"format":%d' % FACTS_FORMAT, b'"format":%d' % (FACTS_FORMAT + 1)),
        encode(granted("cus_1", 5)).replace(b'"version":5', b'"version":"5"'),
        encode(granted("cus_1", 5)).replace(b'"version":5', b'"version":1' + b"0" * 400),
        encode(granted("cus_1", 5)).replace(b'"grants":[', b'"grants":["x",'),
        encode(granted("cus_2", 5)),
        json.dumps({**json.loads(encode(granted("cus_1", 5))), "extra": 1}).encode(),
    ],
)
async def test_what_is_not_this_customers_facts_counts_as_absent_and_is_replaced(
    client: Redis, prefix: str, reader: RedisEntitlements, garbage: bytes
) -> None:
    await client.set(Keys(prefix).entry("cus_1"), garbage)
    assert await reader.read("cus_1") is None
    assert not reader.is_open
    assert await reader.refill(granted("cus_1", 6), None, NOW) == Held(6)
    assert await reader.read("cus_1") == granted("cus_1", 6)


async def test_keys_of_another_type_count_as_absent_and_are_replaced(
    client: Redis, prefix: str, reader: RedisEntitlements
) -> None:
    keys = Keys(prefix)
    for key in (keys.entry("cus_1"), keys.guard("cus_1")):
        await client.lpush(key, "a")
    for _ in range(10):
        assert await reader.read("cus_1") is None
    assert not reader.is_open, "somebody else's key is no outage"
    assert await reader.refill(granted("cus_1", 6), None, NOW) == Held(6)
    assert await reader.read("cus_1") == granted("cus_1", 6)


@pytest.mark.parametrize("guard", ["", "soon", "inf", "nan", "1e300", "0x7fffffff", "7.5", "-7", " 7 ", "9" * 30])
async def test_a_guard_that_is_no_version_counts_as_absent(
    client: Redis, prefix: str, reader: RedisEntitlements, guard: str
) -> None:
    await client.set(Keys(prefix).guard("cus_1"), guard)
    assert await publisher(client, prefix).publish(granted("cus_1", 6)) == Held(6)
    await client.set(Keys(prefix).guard("cus_1"), guard)
    assert await reader.refill(granted("cus_1", 7), None, NOW) == Held(7)


@pytest.mark.parametrize("version", ["1e400", "-1e400", "NaN", "7.5", "-7", "9" * 30])
async def test_an_entry_of_no_version_counts_as_absent(
    client: Redis, prefix: str, reader: RedisEntitlements, version: str
) -> None:
    await client.set(Keys(prefix).entry("cus_1"), f'{{"version":{version}}}')
    assert await publisher(client, prefix).publish(granted("cus_1", 6)) == Held(6)
    assert await reader.read("cus_1") == granted("cus_1", 6)


async def test_a_publication_is_announced_and_a_refill_or_an_outdated_publication_is_not(
    client: Redis, prefix: str, reader: RedisEntitlements
) -> None:
    async with client.pubsub() as listening:
        await listening.subscribe(Keys(prefix).channel)
        assert (await listening.get_message(timeout=2))["type"] == "subscribe"
        await reader.refill(granted("cus 1", 4), None, NOW)
        await publisher(client, prefix).publish(granted("cus 1", 5))
        await publisher(client, prefix).publish(granted("cus 1", 3))
        await publisher(client, prefix).publish(granted("cus 1", 6))
        heard = [(await listening.get_message(timeout=2))["data"] for _ in range(2)]
        assert heard == [b"5 cus 1", b"6 cus 1"]


def test_both_keys_of_a_customer_share_a_slot_whatever_the_name_holds() -> None:
    keys = Keys("eg:1:acct:test")
    for customer in ("cus_1", "a{b}c", "}x", "{", "{}", "%7B"):
        tags = {key.split("{", 1)[1].split("}", 1)[0] for key in (keys.entry(customer), keys.guard(customer))}
        assert len(tags) == 1
        assert tags != {""}
    assert len({keys.entry(customer) for customer in ("{", "%7B", "%257B")}) == 3


def test_two_installations_or_modes_in_one_redis_share_no_key() -> None:
    assert Keys("eg:1:acct:live").entry("cus_1") != Keys("eg:1:acct:test").entry("cus_1")


async def test_publishing_to_nobody_is_a_value_and_names_no_password() -> None:
    client = open_redis("redis://:hunter2@127.0.0.1:1/0")
    outcome = await publisher(client, "eg").publish(granted("cus_1", 5))
    await client.aclose()
    assert isinstance(outcome, Down)
    assert "hunter2" not in outcome.detail


async def test_a_redis_that_refuses_writes_is_still_read(client: Redis, prefix: str, reader: RedisEntitlements) -> None:
    await reader.refill(granted("cus_1", 5), None, NOW)
    user = f"reader-{uuid4().hex}"
    await client.acl_setuser(user, enabled=True, passwords=["+p"], keys=["*"], commands=["+get", "+hello", "+select"])
    host, port = client.connection_pool.connection_kwargs["host"], client.connection_pool.connection_kwargs["port"]
    restricted_client = open_redis(f"redis://{user}:p@{host}:{port}/0", timeout=2)
    restricted = RedisEntitlements(restricted_client, prefix, lifetimes=LIFETIMES, timeout=2)
    try:
        for _ in range(10):
            assert isinstance(await restricted.refill(granted("cus_1", 6), None, NOW), Down)
        assert not restricted.is_open
        assert await restricted.read("cus_1") == granted("cus_1", 5)
    finally:
        await restricted.aclose()
        await restricted_client.aclose()
        await client.acl_deluser(user)
