"""What the ledger takes and gives: webhooks, events, a sync of everybody, and a lookup among a million customers.

    python -m bench.ledger                        SQLite, and PostgreSQL from the development dependencies
    python -m bench.ledger --customers 1000 --many 100000      a smaller round

Everything is on 127.0.0.1 and in a temporary directory. The simulated Stripe runs in a process of its own; where its
calls are counted, the budget of calls is lifted unless a line says otherwise, so that our own cost is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import platform
import random
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import uvicorn
from sqlalchemy import text

from admin.control import Ledger
from admin.ledger.budgets import CallBudgets
from admin.ledger.engine import Database
from admin.ledger.opening import open_database
from admin.ledger.pair import Pair
from admin.ledger.schema import upgrade
from admin.simulator import DEFAULT_API_KEY, Offer, Simulator
from admin.simulator.delivery import sign
from admin.stripe.account import find_pair
from admin.stripe.budget import Priority
from admin.stripe.catalog import PriceCatalog
from admin.stripe.client import StripeGateway
from admin.stripe.everybody import Everybody, Looked
from admin.stripe.fetch import Failed
from admin.stripe.shared_budget import SharedBudget, calls_of
from admin.stripe.sync import CustomerSync
from admin.stripe.webhook import WebhookReceiver
from admin.stripe.work import EventWork, NotYet
from admin.stripe.worker import InboxWorker
from policies.facts import ItemFact, SubscriptionFact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

SECRET: Final = "whsec_bench"
SIDE_BY_SIDE: Final = 16
LOOKUPS: Final = 3000
PACED: Final = 150


class Unhurried:
    """A budget that never runs out."""

    async def acquire(self, priority: Priority) -> None:
        """At once."""


class Later:
    """Work that is always left to the worker: what is measured is taking an event in."""

    async def process(self, _notice: object, _priority: object = None) -> NotYet:
        return NotYet("later", attempted=False)


def simulate(listener: socket.socket, customers: int, ready: Any) -> None:
    """A Stripe with this many subscribers, until it is ended."""
    port = listener.getsockname()[1]
    simulator = Simulator(wall_clock=time.time, public_base=f"http://127.0.0.1:{port}")
    simulator.seed([Offer("price_pro_monthly", "Pro", 2900)])
    asyncio.run(_subscribe(simulator, customers))
    ready.set()
    config = uvicorn.Config(simulator.asgi, log_config=None, access_log=False, ws="none")
    uvicorn.Server(config).run(sockets=[listener])


async def _subscribe(simulator: Simulator, customers: int) -> None:
    transport = httpx.ASGITransport(simulator.asgi)
    headers = {"Authorization": f"Bearer {DEFAULT_API_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://bench", headers=headers) as client:
        for number in range(customers):
            form = {"metadata[gateway_customer]": f"customer-{number}"}
            made = (await client.post("/v1/customers", data=form)).json()["id"]
            simulator.world.store.customers[made].card = "works"
            wish = {"customer": made, "items[0][price]": "price_pro_monthly"}
            (await client.post("/v1/subscriptions", data=wish)).raise_for_status()


async def side_by_side(pieces: Iterable[Any], work: Callable[[Any], Awaitable[object]]) -> float:
    """Seconds for all pieces."""
    left = iter(pieces)

    async def one_after_the_other() -> None:
        for piece in left:
            await work(piece)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(SIDE_BY_SIDE)))
    return time.perf_counter() - started


def event(number: int, stripe_customer: str) -> bytes:
    about = {"id": f"in_{number}", "object": "invoice", "customer": stripe_customer}
    whole = {"id": f"evt_{number}", "object": "event", "type": "invoice.paid", "created": 1, "livemode": False}
    return json.dumps({**whole, "data": {"object": about}}).encode()


class Bench:
    """One ledger and the simulated Stripe."""

    def __init__(self, database: Database, gateway: StripeGateway, pair: Pair) -> None:
        self.database, self.gateway, self.pair = database, gateway, pair
        self.ledger = Ledger.over(database)
        self.sync = CustomerSync(
            gateway,
            self.ledger.stripe_customers,
            pair,
            edge_after=lambda _subscriptions, _at: None,
            now=time.time,
            published=self._published,
        )
        self.work = EventWork(
            gateway,
            self.sync,
            PriceCatalog(gateway, self.ledger.catalog, pair, tiers=lambda: (), now=time.time),
            pair=pair,
            inbox=self.ledger.inbox,
            stripe_customers=self.ledger.stripe_customers,
            checkouts=self.ledger.checkouts,
            now=time.time,
        )

    async def _published(self, _versions: dict[str, int]) -> None:
        """Nobody listens."""

    async def accept(self, stripe_customers: list[str]) -> float:
        """Webhooks a second: verified, stored, durable, answered."""
        receiver = WebhookReceiver(SECRET, self.pair, self.ledger.inbox, Later(), wall=time.time)  # type: ignore[arg-type]
        bodies = [event(number, one) for number, one in enumerate(stripe_customers)]

        async def deliver(body: bytes) -> None:
            now = time.time()
            verdict = await receiver.receive(body, sign(body, SECRET, int(now)), now)
            assert verdict.status == 200, verdict

        return len(bodies) / await side_by_side(bodies, deliver)

    async def work_off(self) -> float:
        """Events a second: fetched from Stripe, written, settled."""
        worker = InboxWorker(self.work, self.ledger.inbox, self.pair, wall=lambda: time.time() + 3600)
        waiting = (await self.ledger.inbox.counts(self.pair))["pending"]
        started = time.perf_counter()
        while await worker.run_once():
            pass
        assert (await self.ledger.inbox.counts(self.pair)).get("done") == waiting
        return waiting / (time.perf_counter() - started)

    async def sync_everybody(self) -> tuple[float, int]:
        """Seconds for everybody on record, and of how many Stripe took longer to tell than a gateway waits."""

        async def look(one: str) -> Looked:
            outcome = await self.sync.sync_customer(one, Priority.NIGHTLY)
            return (
                Looked(problem=outcome.detail, is_everybodys=outcome.unavailable)
                if isinstance(outcome, Failed)
                else Looked()
            )

        started = time.perf_counter()
        sweep = await Everybody(look, self.ledger.stripe_customers, self.ledger.meta, self.pair, "bench").run(_ignored)
        assert sweep.finished, sweep
        return time.perf_counter() - started, sweep.failed

    async def paced(self, stripe_customers: list[str]) -> float:
        """Customers a second under the budget of calls that a gateway has."""
        budget = SharedBudget(CallBudgets(self.database), calls_of(self.pair))
        self.gateway.use_budget(budget)
        seconds = await side_by_side(stripe_customers, lambda one: self.sync.sync_customer(one, Priority.NIGHTLY))
        self.gateway.use_budget(Unhurried())
        await budget.aclose()
        return len(stripe_customers) / seconds

    async def lookups(self, customers: int) -> tuple[float, float]:
        """Median and 99th percentile in milliseconds, one at a time, among this many."""
        pair = Pair("acct_many", livemode=False)
        await self._fill(pair, customers)
        chance = random.Random(1)
        times = []
        for _ in range(LOOKUPS):
            name = f"many-{chance.randrange(customers)}"
            started = time.perf_counter()
            facts = await self.ledger.customers.read_facts(pair, name, time.time())
            times.append((time.perf_counter() - started) * 1000)
            assert facts.subscriptions, name
        return statistics.median(times), statistics.quantiles(times, n=100)[98]

    async def _fill(self, pair: Pair, customers: int) -> None:
        item = ItemFact("price_pro_monthly", "prod_pro", "pro", 1, 2_000_000_000, 1)
        facts = json.dumps([asdict(SubscriptionFact("sub_1", "active", (item,), created=1))])
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)"
            if self.database.is_sqlite
            else "WITH n(i) AS (SELECT generate_series(0, :count - 1))"
        )
        more = "ON CONFLICT DO NOTHING"
        # Beside the ledger's own engine: filling takes longer than any transaction of a gateway may.
        async with self.database._writer.connect() as connection, connection.begin():
            if not self.database.is_sqlite:
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
            wanted = {"count": customers, "facts": facts, "account": pair.account}
            insert = f"INSERT INTO customers (customer, version, created_at) {numbers} SELECT 'many-' || i, 1, 1 FROM n"
            where = " WHERE true " if self.database.is_sqlite else " "
            await connection.execute(text(insert + where + more), {"count": customers})
            insert = (
                "INSERT INTO stripe_customers (account, livemode, id, customer, facts, fetched_at, created_at) "
                f"{numbers} SELECT :account, false, 'cus_many_' || i, 'many-' || i, :facts, 1, 1 FROM n"
            )
            await connection.execute(text(insert + where + more), wanted)


def _ignored(_sweep: object) -> None:
    """Nobody watches."""


async def _ids(gateway: StripeGateway) -> list[str]:
    """Every customer of the simulated Stripe."""
    found: list[str] = []
    while True:
        query = {"limit": 100, **({"starting_after": found[-1]} if found else {})}
        page: Any = await gateway.get("/v1/customers", query, priority=Priority.NIGHTLY)
        found += (one["id"] for one in page["data"])
        if not page["has_more"]:
            return found


async def measure(name: str, url: str, base: str, options: argparse.Namespace) -> list[tuple[str, str]]:
    done = await upgrade(url)
    assert not hasattr(done, "detail"), done
    database = await open_database(url)
    assert isinstance(database, Database), database
    gateway = StripeGateway(DEFAULT_API_KEY, base, budget=Unhurried())
    pair = await find_pair(gateway, Ledger.over(database).meta)
    assert isinstance(pair, Pair), pair
    bench = Bench(database, gateway, pair)
    ids = await _ids(gateway)
    found = [("webhooks accepted a second", f"{await bench.accept(ids[: options.events]):,.0f}")]
    found.append(("events worked off a second", f"{await bench.work_off():,.0f}"))
    for one in ids:
        await bench.ledger.stripe_customers.take_ticket(pair, one, time.time())
    seconds, failed = await bench.sync_everybody()
    fate = f", {failed} given up" if failed else ""
    found.append((f"sync of {len(ids):,} customers", f"{seconds:,.0f} s ({len(ids) / seconds:,.0f} a second){fate}"))
    found.append(("the same under the budget of calls", f"{await bench.paced(ids[:PACED]):,.1f} customers a second"))
    for customers in (1000, options.many):
        median, worst = await bench.lookups(customers)
        found.append((f"lookup among {customers:,} customers", f"{median:.2f} ms, p99 {worst:.2f} ms"))
    await bench.sync.aclose()
    await gateway.aclose()
    await database.dispose()
    print(f"{name}, load {os.getloadavg()[0]:.0f} at its end: {found}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=10_000, help="subscribers of the simulated Stripe")
    parser.add_argument("--events", type=int, default=3000, help="webhooks")
    parser.add_argument("--many", type=int, default=1_000_000, help="customers on record for the lookups")
    options = parser.parse_args()
    logging.getLogger("admin").setLevel(logging.ERROR)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listener = socket.create_server(("127.0.0.1", 0))
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        stripe = context.Process(target=simulate, args=(listener, options.customers, ready), daemon=True)
        stripe.start()
        stack.callback(stripe.join)
        stack.callback(stripe.terminate)
        assert ready.wait(600), "the simulated Stripe did not start"
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        columns = {"SQLite": asyncio.run(measure("SQLite", f"sqlite:///{directory}/bench.db", base, options))}
        from tests.support.postgres import shared_postgres  # noqa: PLC0415 -- only in a development environment

        url = stack.enter_context(shared_postgres().fresh_database())
        columns["PostgreSQL"] = asyncio.run(measure("PostgreSQL", url, base, options))
    print(
        f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n"
    )
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for rows in zip(*columns.values(), strict=True):
        print(f"| {rows[0][0]} | {' | '.join(value for _, value in rows)} |")


if __name__ == "__main__":
    main()
