"""Everybody is looked at once, a page at a time; whoever cuts it off repeats a page at most."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from admin.ledger.engine import Database
from admin.ledger.meta import Meta
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import StripeCustomers
from admin.ledger.tables import stripe_customers
from admin.stripe.everybody import NAMED_FAILURES, PAGE, Everybody, Look, Looked, Sweep
from tests.support.ledgers import fresh_sqlite, opened

PAIR = Pair("acct_1", livemode=False)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = await opened(fresh_sqlite(tmp_path))
    yield found
    await found.dispose()


async def known(database: Database, count: int, pair: Pair = PAIR) -> None:
    common = {"account": pair.account, "livemode": pair.livemode, "created_at": 1}
    async with database.write(60) as connection:
        for start in range(0, count, 10_000):
            numbers = range(start, min(start + 10_000, count))
            rows = [{**common, "id": f"cus_{number:06}"} for number in numbers]
            await connection.execute(stripe_customers.insert(), rows)


def sweep(database: Database, look: Look, name: str = "sync") -> Everybody:
    return Everybody(look, StripeCustomers(database), Meta(database), PAIR, name)


def ignore(_sweep: Sweep) -> None:
    """Nobody watches."""


async def test_a_hundred_thousand_are_each_looked_at_once_and_never_held_together(database: Database) -> None:
    await known(database, 100_000)
    seen: Counter[str] = Counter()

    async def look(one: str) -> Looked:
        seen[one] += 1
        return Looked(repaired=one.endswith("7"))

    told: list[int] = []
    peaks: list[int] = []

    def tell(at: Sweep) -> None:
        told.append(at.done)
        if at.done == 10 * PAGE:
            tracemalloc.start()
        elif at.done == 20 * PAGE:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    outcome = await sweep(database, look).run(tell)
    assert outcome == Sweep(100_000, 100_000, repaired=10_000, finished=True)
    assert len(seen) == 100_000
    assert set(seen.values()) == {1}
    assert told == list(range(100_001))
    assert peaks[0] < 5_000_000, "a hundred thousand ids take more"


async def test_one_that_was_cut_off_goes_on_where_it_was(database: Database) -> None:
    await known(database, 5 * PAGE)
    seen: Counter[str] = Counter()
    cut = asyncio.Event()

    async def look(one: str) -> Looked:
        if one == f"cus_{3 * PAGE + 50:06}" and not cut.is_set():
            cut.set()
            await asyncio.Event().wait()
        seen[one] += 1
        return Looked()

    running = asyncio.create_task(sweep(database, look).run(ignore))
    await cut.wait()
    running.cancel()
    await asyncio.wait({running})
    again = sweep(database, look)
    assert await again.left_off() == 3 * PAGE
    outcome = await again.run(ignore)
    assert (outcome.done, outcome.finished) == (5 * PAGE, True)
    assert len(seen) == 5 * PAGE
    assert sum(count > 1 for count in seen.values()) < PAGE
    assert await again.left_off() == 0


@pytest.mark.parametrize("how", ["stopped", "Stripe is away"])
async def test_what_the_page_that_was_cut_off_had_repaired_is_counted_in_the_end(database: Database, how: str) -> None:
    await known(database, 2 * PAGE)
    behind = {f"cus_{number:06}" for number in range(PAGE - 10, PAGE + 10)}
    cut = asyncio.Event()

    async def look(one: str) -> Looked:
        if one == f"cus_{PAGE + 50:06}":
            cut.set()
            if how == "stopped":
                await asyncio.Event().wait()
        if cut.is_set():
            return Looked(problem=how, is_everybodys=True)
        found = one in behind
        behind.discard(one)
        return Looked(repaired=found)

    running = asyncio.create_task(sweep(database, look).run(ignore))
    await cut.wait()
    if how == "stopped":
        running.cancel()
    await asyncio.wait({running})

    async def works(one: str) -> Looked:
        return Looked(repaired=one in behind)

    again = sweep(database, works)
    assert await again.left_off() == PAGE
    outcome = await again.run(ignore)
    assert (outcome.done, outcome.failed, outcome.repaired, outcome.finished) == (2 * PAGE, 0, 20, True)


async def test_one_that_is_begun_anew_and_cut_off_at_once_does_not_go_on_where_an_older_one_was(
    database: Database,
) -> None:
    await known(database, 3 * PAGE)
    cut = asyncio.Event()

    def until(last: int) -> Look:
        async def look(one: str) -> Looked:
            if one >= f"cus_{last:06}":
                cut.set()
                await asyncio.Event().wait()
            return Looked()

        return look

    for last, anew in ((2 * PAGE + 5, False), (5, True)):
        cut.clear()
        running = asyncio.create_task(sweep(database, until(last)).run(ignore, anew=anew))
        await cut.wait()
        assert await sweep(database, until(0)).left_off() == (0 if anew else 2 * PAGE)
        running.cancel()
        await asyncio.wait({running})
    assert await sweep(database, until(0)).left_off() == 0


async def test_one_that_came_to_its_end_begins_anew(database: Database) -> None:
    await known(database, PAGE)
    seen: Counter[str] = Counter()

    async def look(one: str) -> Looked:
        seen[one] += 1
        return Looked()

    for _ in range(2):
        await sweep(database, look).run(ignore)
    assert set(seen.values()) == {2}


async def test_when_stripe_is_away_it_stops_and_moves_on_past_nobody(database: Database) -> None:
    await known(database, 3 * PAGE)
    away = False
    seen: set[str] = set()

    async def look(one: str) -> Looked:
        nonlocal away
        away = away or one == f"cus_{PAGE + 30:06}"
        if away:
            return Looked(problem="Stripe is away", is_everybodys=True)
        seen.add(one)
        return Looked()

    stopped = await sweep(database, look).run(ignore)
    assert (stopped.done, stopped.finished, stopped.stopped_by) == (PAGE, False, "Stripe is away")

    async def works(one: str) -> Looked:
        seen.add(one)
        return Looked()

    assert (await sweep(database, works).run(ignore)).finished
    assert len(seen) == 3 * PAGE


async def test_single_failures_are_counted_named_and_passed(database: Database) -> None:
    await known(database, 2 * PAGE)

    async def look(one: str) -> Looked:
        return Looked(problem="odd") if one.endswith("5") else Looked()

    outcome = await sweep(database, look).run(ignore)
    assert outcome.finished
    assert outcome.failed == 20
    assert len(outcome.failures) == NAMED_FAILURES
    assert outcome.failures[0] == "cus_000005: odd"


async def test_what_is_wrong_with_a_few_neighbours_does_not_stop_it_in_front_of_them(database: Database) -> None:
    await known(database, PAGE)

    async def look(one: str) -> Looked:
        return Looked(problem="odd") if one < "cus_000020" else Looked()

    outcome = await sweep(database, look).run(ignore)
    assert (outcome.done, outcome.failed, outcome.finished) == (PAGE, 20, True)


async def test_other_accounts_and_other_sweeps_are_left_alone(database: Database) -> None:
    await known(database, 3)
    await known(database, 2, Pair("acct_1", livemode=True))
    looked: list[str] = []

    async def look(one: str) -> Looked:
        looked.append(one)
        return Looked()

    assert (await sweep(database, look).run(ignore)).total == 3
    assert sorted(looked) == ["cus_000000", "cus_000001", "cus_000002"]


@pytest.mark.parametrize("junk", ["x", "[]", "[1,2,3,4,5]", '["a","b",0,0,[]]', "null", '{"a":1}'])
async def test_a_place_that_cannot_be_read_is_the_beginning(database: Database, junk: str) -> None:
    await known(database, 2)
    await Meta(database).set("stripe.sync.acct_1.test", junk)

    async def look(_one: str) -> Looked:
        return Looked()

    assert (await sweep(database, look).run(ignore)).done == 2
