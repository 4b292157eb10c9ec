from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from admin.ledger.leases import TTL_SECONDS, Lease
from tests.support.ledgers import fresh_postgres, opened
from tests.support.relay import Relay

if TYPE_CHECKING:
    from admin.ledger.engine import Database

HOLD_IN_ANOTHER_PROCESS = """
import asyncio, sys
from admin.ledger.leases import Lease
from admin.ledger.opening import open_database

async def job():
    print("working", flush=True)
    await asyncio.Event().wait()

async def main():
    database = await open_database(sys.argv[1])
    await Lease(database, "worker", "the other process", ttl=2).hold(job)

asyncio.run(main())
"""


class Job:
    """Counts how many run at this moment, and how many ever did."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.started = 0
        self.changed = asyncio.Event()

    async def until_started(self, times: int) -> None:
        async with asyncio.timeout(40):
            while self.started < times:
                self.changed.clear()
                await self.changed.wait()

    async def __call__(self) -> None:
        self.running += 1
        self.started += 1
        self.most = max(self.most, self.running)
        self.changed.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
            self.changed.set()

    async def until_running(self, count: int) -> None:
        async with asyncio.timeout(40):
            while self.running != count:
                self.changed.clear()
                await self.changed.wait()


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_dead_holder_is_followed_within_30_seconds() -> None:
    lease = Lease(None, "worker", "a")  # type: ignore[arg-type]  # only its arithmetic is asked
    assert TTL_SECONDS + lease._retry_every <= 30
    assert lease._renew_every * 2 < TTL_SECONDS - lease._margin  # one renewal may fail


async def test_a_job_runs_once_at_a_time_however_many_want_it(database: Database) -> None:
    job = Job()
    tasks = [asyncio.create_task(Lease(database, "worker", f"holder {n}", ttl=2).hold(job)) for n in range(4)]
    await job.until_running(1)
    for _ in range(3):  # whoever works is stopped, and another takes over
        before = job.started
        (working,) = [task for task in tasks if job.running and await holds(database, tasks.index(task))]
        await end(working)
        await job.until_started(before + 1)
    assert job.most == 1
    await end(*tasks)
    assert job.running == 0


async def holds(database: Database, number: int) -> bool:
    async with database.read() as connection:
        holder = (await connection.execute(text("SELECT holder FROM leases"))).scalar_one_or_none()
    return bool(holder == f"holder {number}")


async def test_a_clean_stop_gives_the_lease_back_at_once(database: Database) -> None:
    job = Job()
    task = asyncio.create_task(Lease(database, "worker", "a").hold(job))
    await job.until_running(1)
    await end(task)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM leases"))).scalar_one() == 0


async def test_a_lease_of_another_job_is_no_hindrance(database: Database) -> None:
    first, second = Job(), Job()
    tasks = [
        asyncio.create_task(Lease(database, name, "a").hold(job)) for name, job in (("inbox", first), ("edges", second))
    ]
    await first.until_running(1)
    await second.until_running(1)
    await end(*tasks)


async def test_a_killed_process_is_followed_once_its_lease_has_run_out(database: Database, ledger_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_IN_ANOTHER_PROCESS, ledger_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"working\n"
    first = await runs_out_at(database)
    async with asyncio.timeout(30):
        while await runs_out_at(database) == first:  # noqa: ASYNC110 -- it lives and so renews, which only the row shows
            await asyncio.sleep(0.05)
    job = Job()
    task = asyncio.create_task(Lease(database, "worker", "here", ttl=2).hold(job))
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await job.until_running(1)
    await end(task)


async def runs_out_at(database: Database) -> float:
    async with database.read() as connection:
        return float((await connection.execute(text("SELECT expires_at FROM leases"))).scalar_one())


async def test_a_holder_whose_lease_was_taken_stops_its_job_and_queues_again(database: Database) -> None:
    job = Job()
    task = asyncio.create_task(Lease(database, "worker", "a", ttl=1).hold(job))
    await job.until_running(1)
    async with database.write() as connection:
        await connection.execute(text("UPDATE leases SET holder = 'thief'"))
    await job.until_running(0)
    await job.until_running(1)  # the thief never renewed
    await end(task)


async def test_the_job_ending_well_ends_the_holding_and_its_error_comes_through(database: Database) -> None:
    async def fine() -> None:
        await asyncio.sleep(0)

    async def broken() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken job")

    await Lease(database, "worker", "a").hold(fine)
    with pytest.raises(RuntimeError, match="broken job"):
        await Lease(database, "worker", "b").hold(broken)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM leases"))).scalar_one() == 0


async def test_held_says_whether_this_process_is_certain_to_be_the_only_one(database: Database) -> None:
    lease, job = Lease(database, "worker", "a"), Job()
    held = [lease.held]
    task = asyncio.create_task(lease.hold(job))
    await job.until_running(1)
    held.append(lease.held)
    await end(task)
    held.append(lease.held)
    assert held == [False, True, False]


@pytest.mark.postgres
async def test_a_holder_cut_off_from_the_database_stops_its_job_before_another_starts_it() -> None:
    with fresh_postgres() as url:
        relay = Relay(url)
        async with relay.running() as port, asyncio.timeout(90):
            near, far = await opened(url), await opened(relay.url(port))
            job = Job()
            cut_off = asyncio.create_task(Lease(far, "worker", "far", ttl=5).hold(job))
            await job.until_running(1)
            relay.open.clear()
            other = asyncio.create_task(Lease(near, "worker", "near", ttl=5).hold(job))
            await job.until_started(2)
            assert job.most == 1
            relay.open.set()
            await end(cut_off, other)
            await near.dispose()
            await far.dispose()
