"""How long a revocation takes to be in force: two gateways, and a third process that commits.

    python -m bench.revocations                     1,000 revocations each: PostgreSQL with Redis, without, and SQLite
    python -m bench.revocations --revocations 100   a smaller round

Everything is on 127.0.0.1: real Redis and PostgreSQL from the development dependencies. Time runs from the return of the
commit to the second gateway's first 402; each gateway is asked about every 10 ms, over a connection of its own,
and three customers are under way at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from admin.control import Ledger
from admin.ledger.engine import Database
from admin.ledger.opening import open_database
from admin.ledger.schema import upgrade
from tests.support.postgres import shared_postgres
from tests.support.recorder import running_recorder
from tests.support.redis_server import RedisServer
from tests.support.stack import bearer, running_gateway

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

POLL_SECONDS: Final = 0.01
SIDE_BY_SIDE: Final = 3
LONGEST_SECONDS: Final = 30.0


def administer(url: str, pipe: Connection) -> None:
    """The third process: grants and revokes whom it is told to, and says when that was committed."""
    asyncio.run(_administer(url, pipe))


async def _administer(url: str, pipe: Connection) -> None:
    database = await open_database(url)
    assert isinstance(database, Database), database
    customers = Ledger.over(database).customers
    while (order := await asyncio.to_thread(pipe.recv)) is not None:
        verb, customer = order
        if verb == "grant":
            await customers.grant(customer, "pro", None, "bench", "bench", time.time())
        else:
            await customers.revoke(customer, "bench", "bench", time.time())
        # One clock for all processes of a machine.
        pipe.send(time.monotonic())
    await database.dispose()


async def _until_refused(address: str, customer: str) -> float:
    """When a gateway first refuses this customer."""
    async with httpx.AsyncClient(trust_env=False, timeout=10, headers=bearer(customer)) as client:
        assert (await client.get(f"{address}/pro/x")).status_code == 200, "it is to be remembered"
        _warm[customer] += 1
        deadline = time.monotonic() + LONGEST_SECONDS
        while (await client.get(f"{address}/pro/x")).status_code != 402:
            assert time.monotonic() < deadline, f"{customer} was never refused"
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic()


_warm: Counter[str] = Counter()


async def revoke_all(addresses: list[str], pipe: Connection, revocations: int) -> list[float]:
    """Milliseconds from each commit until the last gateway refused."""
    times: list[float] = []
    _warm.clear()

    pipe_is_free = asyncio.Lock()

    async def order(verb: str, customer: str) -> float:
        async with pipe_is_free:
            pipe.send((verb, customer))
            return float(await asyncio.to_thread(pipe.recv))

    numbers = iter(range(revocations))

    async def one_after_the_other() -> None:
        for number in numbers:
            customer = f"customer-{number}"
            await order("grant", customer)
            await _both_serve(addresses, customer)
            watchers = [asyncio.create_task(_until_refused(address, customer)) for address in addresses]
            while _warm[customer] < len(addresses) and not any(one.done() for one in watchers):  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
            committed = await order("revoke", customer)
            times.append((max(await asyncio.gather(*watchers)) - committed) * 1000)

    await asyncio.gather(*(one_after_the_other() for _ in range(SIDE_BY_SIDE)))
    return times


async def _both_serve(addresses: list[str], customer: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=10, headers=bearer(customer)) as client:
        for address in addresses:
            while (await client.get(f"{address}/pro/x")).status_code != 200:  # noqa: ASYNC110 - it tells in no other way
                await asyncio.sleep(POLL_SECONDS)


def measure(directory: Path, database: str, redis_url: str | None, revocations: int) -> list[float]:
    """One installation, and the time of every revocation."""
    directory.mkdir()
    done = asyncio.run(upgrade(database))
    assert not hasattr(done, "detail"), done
    with ExitStack() as stack:
        upstream = stack.enter_context(running_recorder())
        named = {"upstream": upstream.url, "database": database, **({"redis": redis_url} if redis_url else {})}
        gateways = [stack.enter_context(running_gateway(directory / name, **named)) for name in ("one", "two")]
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        admin = context.Process(target=administer, args=(database, theirs), daemon=True)
        admin.start()
        try:
            return asyncio.run(revoke_all([one.base for one in gateways], ours, revocations))
        finally:
            ours.send(None)
            admin.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revocations", type=int, default=1000, help="of each installation")
    count = parser.parse_args().revocations
    load = os.getloadavg()[0]
    rows: list[tuple[str, list[float]]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(RedisServer())
        postgres = shared_postgres()
        urls = [stack.enter_context(postgres.fresh_database()) for _ in range(2)]
        rows.append(("PostgreSQL and Redis", measure(directory / "a", urls[0], server.url, count)))
        rows.append(("PostgreSQL", measure(directory / "b", urls[1], None, count)))
        rows.append(("SQLite", measure(directory / "c", f"sqlite:///{directory}/ledger.db", None, count)))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.0f} at the start"
    )
    print("\n| | revocations | p50 | p99 | worst |\n|---|---|---|---|---|")
    for name, times in rows:
        p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
        print(f"| {name} | {len(times):,} | {statistics.median(times):.0f} ms | {p99:.0f} ms | {max(times):.0f} ms |")


if __name__ == "__main__":
    main()
