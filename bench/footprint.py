"""What one customer takes: bytes of a gateway's memory, and of Redis.

    python -m bench.footprint                     10,000 customers with a subscription each, none of whom runs out
    python -m bench.footprint --customers 1000    a smaller round

Entries are written as a gateway writes them, into a real Redis of its own, and live until long after the end. Redis is
asked twice: how much more memory it uses altogether, and what `MEMORY USAGE` says of each key.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import time
import tracemalloc
from typing import Any, Final

from redis import Redis

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.local import Entry, Memory
from gateway.entitlements.redis import EntitlementPublisher, Held, Keys, open_redis
from policies.entitlement import BillingRules, derive
from policies.facts import CustomerFacts, ItemFact, SubscriptionFact, decode, encode
from policies.schema import Tier
from policies.tiers import build_ladder
from tests.support.redis_server import RedisServer

PREFIX: Final = "gw:0123456789abcdef0123456789abcdef:acct_1PxYzAbCdEfGhIjK:live"
DAY: Final = 86_400


def subscriber(number: int, now: int) -> CustomerFacts:
    """Somebody with one subscription, as read from the ledger."""
    item = ItemFact("price_1PxYzAbCdEfGhIjKLmNoPqRs", "prod_QrStUvWxYzAbCd", "pro_monthly", now, now + 30 * DAY, 1)
    subscription = SubscriptionFact(f"sub_{number:024}", "active", (item,), created=now)
    facts = CustomerFacts(f"user-{number:012}", now * 1_000_000 + number, (subscription,), fetched_at=now)
    read = decode(encode(facts))
    assert read is not None
    return read


def memory_of_each(customers: int, now: int) -> float:
    """Bytes that a gateway process keeps per customer it remembers."""
    ladder = build_ladder((Tier(name="free"), Tier(name="pro", lookup_keys=("pro_monthly",), features=("export",))))
    rules = BillingRules(renewal_leeway=172_800.0, past_due_grace=259_200.0)
    memory: Memory[Any] = Memory(customers)
    tracemalloc.start()
    for number in range(customers):
        facts = subscriber(number, now)
        entitlement = derive(facts, ladder, rules)
        edge = float(entitlement.next_edge(now + 1) or 0)
        memory.put(facts.customer, Entry(facts, entitlement, 1, edge, number + 0.5, number + 0.25, number + 0.125, 0.0))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(memory) == customers
    return used / customers


async def publish(url: str, customers: int, now: int) -> None:
    """All of them, as a gateway would."""
    client = open_redis(url, timeout=10)
    lifetimes = Lifetimes(max_ttl=30.0 * DAY, max_stale=3600.0, negative_ttl=5.0)
    publisher = EntitlementPublisher(
        client,
        PREFIX,
        lifetimes=lifetimes,
        now=lambda: float(now),
        next_edge=lambda _facts, _now: None,
        timeout=10,
    )
    for number in range(customers):
        outcome = await publisher.publish(subscriber(number, now))
        assert isinstance(outcome, Held), outcome
    await client.aclose()


def redis_of_each(customers: int, now: int) -> tuple[float, float, float, float]:
    """Bytes per customer: altogether, of the entry, of its guard, and of the entry's text."""
    with RedisServer() as server, Redis(port=server.port) as asked:
        asyncio.run(publish(server.url, 1, now))  # the script and the connection are no customer's
        empty = asked.info("memory")["used_memory"]
        asyncio.run(publish(server.url, customers + 1, now))
        full = asked.info("memory")["used_memory"]
        assert asked.dbsize() == 2 * (customers + 1), "nothing ran out"
        keys = Keys(PREFIX)
        names = [f"user-{number:012}" for number in range(1, customers + 1)]
        entries = statistics.mean(asked.memory_usage(keys.entry(name)) for name in names)
        guards = statistics.mean(asked.memory_usage(keys.guard(name)) for name in names)
        texts = statistics.mean(asked.strlen(keys.entry(name)) for name in names)
    return (full - empty) / customers, entries, guards, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=10_000)
    customers = parser.parse_args().customers
    now = int(time.time())
    whole, entry, guard, text = redis_of_each(customers, now)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {customers:,} customers\n"
    )
    print("| of one customer | bytes |\n|---|---|")
    print(f"| memory of a gateway process | {memory_of_each(customers, now):,.0f} |")
    print(f"| Redis, altogether (`used_memory`) | {whole:,.0f} |")
    print(f"| of that the entry (`MEMORY USAGE`) | {entry:,.0f}, of which its text {text:,.0f} |")
    print(f"| of that its guard (`MEMORY USAGE`) | {guard:,.0f} |")


if __name__ == "__main__":
    main()
