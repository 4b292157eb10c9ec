"""All processes of a ledger together stay under Stripe's limit, and the most urgent goes first wherever it waits."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from admin.ledger.budgets import Bucket, CallBudgets, Taken
from admin.ledger.engine import Database, LedgerDownError
from admin.ledger.pair import Pair
from admin.stripe.budget import Priority
from admin.stripe.shared_budget import SharedBudget, calls_of, looks_of
from tests.support.ledgers import fresh_postgres, fresh_sqlite, opened

PAIR = Pair("acct_1", livemode=False)
DRY = Bucket("dry", 1e-9, 7.0)
"""So slow that only what it holds at first is ever there."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield fresh_sqlite(tmp_path)
        return
    with fresh_postgres() as found:
        yield found


@pytest.fixture
async def databases(url: str) -> AsyncIterator[tuple[Database, Database]]:
    """One ledger, as two processes have it open."""
    first, second = await opened(url), await opened(url)
    yield first, second
    await first.dispose()
    await second.dispose()


async def test_a_bucket_gives_what_it_holds_and_says_how_long_the_next_takes(
    databases: tuple[Database, Database],
) -> None:
    first, second = (CallBudgets(database) for database in databases)
    assert await first.take(DRY, [0.0] * 5) == Taken(5, 0.0)
    left = await second.take(DRY, [0.0] * 5)
    assert left.count == 2
    assert left.wait_seconds > 1e8


async def test_the_less_urgent_must_leave_more_behind(databases: tuple[Database, Database]) -> None:
    first, second = (CallBudgets(database) for database in databases)
    assert (await first.take(DRY, [4.0] * 7)).count == 3
    assert (await first.take(DRY, [4.0])).count == 0
    assert (await second.take(DRY, [0.0, 2.0, 2.0])).count == 2
    assert (await second.take(DRY, [0.0] * 7)).count == 2


async def test_two_buckets_know_nothing_of_each_other(databases: tuple[Database, Database]) -> None:
    budgets = CallBudgets(databases[0])
    await budgets.take(DRY, [0.0] * 7)
    assert (await budgets.take(Bucket("other", 1e-9, 1.0), [0.0, 0.0])).count == 1
    assert calls_of(PAIR).name != calls_of(Pair("acct_1", livemode=True)).name


async def test_a_bucket_never_holds_more_than_its_capacity(databases: tuple[Database, Database]) -> None:
    quick = Bucket("quick", 1e9, 3.0)
    budgets = CallBudgets(databases[0])
    await budgets.take(quick, [0.0])
    await asyncio.sleep(0.01)
    assert (await budgets.take(quick, [0.0] * 10)).count == 3


def test_what_is_allowed_in_any_second_is_what_stripe_allows() -> None:
    calls, looks = calls_of(PAIR), looks_of(PAIR)
    assert calls.per_second + calls.capacity <= 25
    assert looks.per_second + looks.capacity <= 5
    assert calls.capacity > max(Priority) + 1, "the least urgent would wait for ever"


async def test_ten_thousand_renewals_in_a_burst_do_not_hold_up_one_customer_at_checkout(
    databases: tuple[Database, Database],
) -> None:
    """The backlog is one process's, the customer comes to it and to another one."""
    busy, other = (SharedBudget(CallBudgets(database), calls_of(PAIR)) for database in databases)
    order: list[str] = []

    async def take(budget: SharedBudget, name: str, priority: Priority) -> None:
        await budget.acquire(priority)
        order.append(name)

    renewals = [asyncio.create_task(take(busy, "renewal", Priority.WEBHOOK)) for _ in range(10_000)]
    await asyncio.wait(renewals[:5])
    for budget in (busy, other):
        before = len(order)
        await take(budget, "customer", Priority.CUSTOMER)
        # What was being asked for when the customer came may still be let out; nobody of the queue is.
        assert order[before:].count("renewal") <= calls_of(PAIR).capacity
    assert busy.waiting > 9_900
    await busy.aclose()
    await other.aclose()
    await asyncio.gather(*renewals, return_exceptions=True)


async def test_a_cancellation_of_one_process_goes_before_the_nights_of_another(
    databases: tuple[Database, Database],
) -> None:
    night, day = (SharedBudget(CallBudgets(database), calls_of(PAIR)) for database in databases)
    order: list[Priority] = []

    async def take(budget: SharedBudget, priority: Priority) -> None:
        await budget.acquire(priority)
        order.append(priority)

    nightly = [asyncio.create_task(take(night, Priority.NIGHTLY)) for _ in range(500)]
    urgent = [asyncio.create_task(take(day, Priority.CANCELLATION)) for _ in range(20)]
    await asyncio.gather(*urgent)
    assert order.count(Priority.NIGHTLY) <= 15
    await night.aclose()
    await day.aclose()
    await asyncio.gather(*nightly, return_exceptions=True)


async def test_in_one_process_the_more_urgent_go_first_and_equals_in_order(
    databases: tuple[Database, Database],
) -> None:
    budgets = CallBudgets(databases[0])
    slow = Bucket("slow", 50.0, 7.0)
    budget = SharedBudget(budgets, slow)
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        await budget.acquire(priority)
        order.append(name)

    wishes = [
        ("night 1", Priority.NIGHTLY),
        ("edge", Priority.EDGE),
        ("webhook 1", Priority.WEBHOOK),
        ("cancellation", Priority.CANCELLATION),
        ("night 2", Priority.NIGHTLY),
        ("webhook 2", Priority.WEBHOOK),
        ("customer", Priority.CUSTOMER),
    ]
    await asyncio.gather(*(take(*wish) for wish in wishes))
    assert order == ["customer", "cancellation", "webhook 1", "webhook 2", "edge", "night 1", "night 2"]
    assert budget.waiting == 0


async def test_who_gave_up_costs_nothing(databases: tuple[Database, Database]) -> None:
    budget = SharedBudget(CallBudgets(databases[0]), Bucket("few", 1e-9, 1.0))
    leaving = [asyncio.create_task(budget.acquire(Priority.CUSTOMER)) for _ in range(500)]
    staying = asyncio.create_task(budget.acquire(Priority.CUSTOMER))
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    async with asyncio.timeout(5):
        await staying
    assert budget.waiting == 0


async def test_without_the_ledger_a_process_goes_on_alone_and_slower() -> None:
    class Gone:
        asked = 0

        async def take(self, bucket: Bucket, left_behind: list[float]) -> Taken:
            self.asked += 1
            raise LedgerDownError("gone")

    gone = Gone()
    budget = SharedBudget(gone, Bucket("calls", 500.0, 7.0))  # type: ignore[arg-type]
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        await asyncio.gather(*(budget.acquire(Priority.WEBHOOK) for _ in range(5)))
    elapsed = asyncio.get_running_loop().time() - started
    assert elapsed > 4 / 500, "five at the pace of all"
    assert gone.asked == 1, "it was asked again at once"


async def test_a_fault_in_the_ledger_is_told_to_whoever_waits() -> None:
    class Broken:
        async def take(self, bucket: Bucket, left_behind: list[float]) -> Taken:
            raise ZeroDivisionError

    budget = SharedBudget(Broken(), DRY)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await budget.acquire(Priority.WEBHOOK)


async def test_closing_lets_nobody_wait_for_ever(databases: tuple[Database, Database]) -> None:
    budget = SharedBudget(CallBudgets(databases[0]), Bucket("none", 1e-9, 0.5))
    waiting = asyncio.create_task(budget.acquire(Priority.CUSTOMER))
    await asyncio.sleep(0.05)
    await budget.aclose()
    async with asyncio.timeout(5):
        await asyncio.wait({waiting})
    assert waiting.cancelled()


PROCESS = """
import asyncio, sys, time
from admin.ledger.budgets import CallBudgets
from admin.ledger.opening import open_database
from admin.ledger.pair import Pair
from admin.stripe.budget import Priority
from admin.stripe.shared_budget import SharedBudget, calls_of

async def main():
    database = await open_database(sys.argv[1])
    budget = SharedBudget(CallBudgets(database), calls_of(Pair("acct_1", livemode=False)))
    print("ready", flush=True)
    sys.stdin.readline()
    calls = 0
    try:
        async with asyncio.timeout(float(sys.argv[2])):
            while True:
                await budget.acquire(Priority.WEBHOOK)
                calls += 1
    except TimeoutError:
        pass
    await budget.aclose()
    await database.dispose()
    print(calls)

asyncio.run(main())
"""


async def test_two_processes_together_stay_under_the_limit(url: str) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, url, "2.0", stdin=pipe, stdout=pipe)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    started = time.monotonic()
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    elapsed = time.monotonic() - started
    calls = [int(output) for output, _ in outputs]
    bucket = calls_of(PAIR)
    assert min(calls) > 0
    assert sum(calls) <= bucket.capacity + bucket.per_second * elapsed
