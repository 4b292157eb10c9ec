"""A gateway process reduced to its resolver, driven over pipes by test_redis_processes.py.

Its ledger is a directory of files, one per customer. Each line on stdin is a customer; the answer is `SOURCE VERSION`.
It has no changes feed: what it hears of another process's commits, it hears through Redis.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import RedisEntitlements, open_redis
from gateway.entitlements.resolver import Found, Resolver
from policies.facts import CustomerFacts, decode


async def main(url: str, prefix: str, ledger: Path) -> None:
    lifetimes = Lifetimes(max_ttl=3600, max_stale=3600, negative_ttl=5)

    async def read(customer: str) -> CustomerFacts:
        facts = decode((ledger / customer).read_bytes())
        assert facts is not None
        return facts

    client = open_redis(url)
    resolver: Resolver[CustomerFacts] = Resolver(
        read_facts=read,
        derive=lambda facts: facts,
        next_edge=lambda _facts, _now: None,
        lifetimes=lifetimes,
        max_entries=100,
        now=time.time,
        monotonic=time.monotonic,
        feed_healthy=lambda: False,
        redis=RedisEntitlements(client, prefix, lifetimes=lifetimes),
    )
    resolver.start()
    while resolver.health() != "ok":  # noqa: ASYNC110 - it is polled by /readyz, too
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        outcome = await resolver.lookup(line.strip())
        said = f"{outcome.source} {outcome.entitlement.version}" if isinstance(outcome, Found) else "unavailable 0"
        print(said, flush=True)
    await resolver.aclose()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
