from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from admin.ledger.changes import bump
from admin.ledger.customers import Customers
from admin.ledger.feed import GAP_SECONDS, HEALTHY_SECONDS, ChangesFeed
from tests.support.ledgers import fresh_postgres, fresh_sqlite, opened
from tests.support.postgres import for_psycopg
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from admin.ledger.engine import Database

NOW = 1_800_000_000

GRANT_IN_ANOTHER_PROCESS = """
import asyncio, sys
from admin.ledger.customers import Customers
from admin.ledger.opening import open_database

async def main():
    database = await open_database(sys.argv[1])
    print(await Customers(database).grant("bob", "pro", None, "", "ann", 1800000000))
    await database.dispose()

asyncio.run(main())
"""


class Heard:
    """What a feed reported, and a way to wait for it."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, int]] = []
        self.gaps = 0
        self._news = asyncio.Event()

    def on_change(self, customer: str, version: int) -> None:
        self.changes.append((customer, version))
        self._news.set()

    def on_gap(self) -> None:
        self.gaps += 1
        self._news.set()

    async def until(self, holds: Callable[[Heard], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds(self):
                self._news.clear()
                await self._news.wait()

    @property
    def customers(self) -> list[str]:
        return [customer for customer, _ in self.changes]


@asynccontextmanager
async def following(feed: ChangesFeed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(30):
            await feed.started.wait()
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_grant_made_in_another_process_is_heard_of(database: Database, ledger_url: str) -> None:
    heard = Heard()
    async with following(ChangesFeed(database, heard.on_change)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", GRANT_IN_ANOTHER_PROCESS, ledger_url, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        await heard.until(lambda heard: bool(heard.changes))
    assert heard.changes == [("bob", int(output))]


async def test_a_grant_made_in_this_process_is_heard_of(database: Database) -> None:
    heard = Heard()
    async with following(ChangesFeed(database, heard.on_change)):
        version = await Customers(database).grant("bob", "pro", None, "", "ann", NOW)
        await heard.until(lambda heard: bool(heard.changes))
    assert heard.changes == [("bob", version)]


async def test_what_was_committed_before_the_feed_started_is_no_news(database: Database) -> None:
    heard = Heard()
    await Customers(database).grant("old", "pro", None, "", "ann", NOW)
    async with following(ChangesFeed(database, heard.on_change)):
        await Customers(database).grant("new", "pro", None, "", "ann", NOW)
        await heard.until(lambda heard: "new" in heard.customers)
    assert heard.customers == ["new"]


async def test_many_changes_by_many_writers_are_each_heard_once_and_in_order_per_customer(database: Database) -> None:
    heard = Heard()
    customers = Customers(database)

    async def write(name: str) -> None:
        for _ in range(20):
            await customers.grant(name, "pro", None, "", "ann", NOW)

    async with following(ChangesFeed(database, heard.on_change)):
        await asyncio.gather(*(write(name) for name in ("a", "b", "c")))
        await heard.until(lambda heard: len(heard.changes) >= 60)
    assert len(heard.changes) == 60
    assert len(set(heard.changes)) == 60
    for name in ("a", "b", "c"):
        versions = [version for customer, version in heard.changes if customer == name]
        assert versions == sorted(versions)


async def test_a_change_that_is_rolled_back_is_never_heard_of(database: Database) -> None:
    heard = Heard()
    async with following(ChangesFeed(database, heard.on_change)):
        with pytest.raises(RuntimeError):  # noqa: PT012 -- the block is the transaction
            async with database.write() as connection:
                await bump(connection, "never", NOW)
                raise RuntimeError
        await Customers(database).grant("real", "pro", None, "", "ann", NOW)
        await heard.until(lambda heard: "real" in heard.customers)
    assert heard.customers == ["real"]


async def test_a_feed_that_is_stopped_and_run_again_catches_up(database: Database) -> None:
    heard = Heard()
    feed = ChangesFeed(database, heard.on_change, on_gap=heard.on_gap)
    async with following(feed):
        pass
    await Customers(database).grant("meanwhile", "pro", None, "", "ann", NOW)
    async with following(feed):
        await heard.until(lambda heard: bool(heard.changes))
    assert heard.customers == ["meanwhile"]
    assert heard.gaps == 0


async def test_a_feed_that_was_away_for_longer_than_changes_are_kept_reports_a_gap(database: Database) -> None:
    heard = Heard()
    time = [1000.0]
    feed = ChangesFeed(database, heard.on_change, on_gap=heard.on_gap, clock=lambda: time[0])
    async with following(feed):
        pass
    time[0] += GAP_SECONDS + 1
    async with following(feed):
        await heard.until(lambda heard: heard.gaps == 1)


async def test_a_feed_is_healthy_while_it_looks_and_not_afterwards(database: Database) -> None:
    time = [1000.0]
    feed = ChangesFeed(database, lambda _customer, _version: None, clock=lambda: time[0])
    healthy = [feed.healthy]
    async with following(feed):
        healthy.append(feed.healthy)
        assert feed.last_confirmed_at == 1000.0
    time[0] += HEALTHY_SECONDS + 0.1
    healthy.append(feed.healthy)
    assert healthy == [False, True, False]


async def test_a_sqlite_ledger_put_back_to_an_older_state_is_a_gap(tmp_path: Path) -> None:
    database = await opened(fresh_sqlite(tmp_path))
    heard = Heard()
    feed = ChangesFeed(database, heard.on_change, on_gap=heard.on_gap)
    await Customers(database).grant("bob", "pro", None, "", "ann", NOW)
    async with following(feed):
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM changes"))
            await connection.execute(text("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'changes'"))
        await heard.until(lambda heard: heard.gaps == 1)
        await Customers(database).grant("eve", "pro", None, "", "ann", NOW)
        await heard.until(lambda heard: bool(heard.changes))
    await database.dispose()
    assert heard.customers == ["eve"]


async def test_retention_is_no_gap(database: Database) -> None:
    heard = Heard()
    feed = ChangesFeed(database, heard.on_change, on_gap=heard.on_gap)
    await Customers(database).grant("bob", "pro", None, "", "ann", NOW)
    async with following(feed):
        async with database.write() as connection:
            await connection.execute(text("DELETE FROM changes"))
        await Customers(database).grant("eve", "pro", None, "", "ann", NOW)
        await heard.until(lambda heard: bool(heard.changes))
    assert (heard.customers, heard.gaps) == (["eve"], 0)


@pytest.mark.postgres
async def test_commits_out_of_the_order_of_their_ids_are_not_missed() -> None:
    with fresh_postgres() as url:
        database = await opened(url)
        heard = Heard()
        async with following(ChangesFeed(database, heard.on_change)):
            async with database.write() as slow:
                await bump(slow, "slow", NOW)  # has its id, and is not committed
                async with database.write() as fast:
                    await bump(fast, "fast", NOW)
                await heard.until(lambda heard: "fast" in heard.customers)
                for _ in range(3):
                    await Customers(database).grant("later", "pro", None, "", "ann", NOW)
                await heard.until(lambda heard: heard.customers.count("later") == 3)
            await heard.until(lambda heard: "slow" in heard.customers)
        await database.dispose()
    assert heard.customers == ["fast", "later", "later", "later", "slow"]


@pytest.mark.postgres
async def test_a_transaction_that_was_open_before_the_feed_started_is_heard_of_when_it_commits() -> None:
    with fresh_postgres() as url:
        database = await opened(url)
        heard = Heard()
        async with database.write() as connection:
            await bump(connection, "early", NOW)
            feed = ChangesFeed(database, heard.on_change)
            task = asyncio.create_task(feed.run())
            await feed.started.wait()
        await heard.until(lambda heard: heard.customers == ["early"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.dispose()


@pytest.mark.postgres
async def test_a_feed_whose_session_is_ended_by_the_server_connects_again_and_catches_up() -> None:
    with fresh_postgres() as url:
        database = await opened(url)
        heard = Heard()
        feed = ChangesFeed(database, heard.on_change, on_gap=heard.on_gap)
        async with following(feed):
            async with await psycopg.AsyncConnection.connect(for_psycopg(url), autocommit=True) as other:
                ended = await other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert all(done for (done,) in await ended.fetchall())
            version = await Customers(database).grant("bob", "pro", None, "", "ann", NOW)
            await heard.until(lambda heard: bool(heard.changes))
        await database.dispose()
    assert (heard.changes, heard.gaps) == ([("bob", version)], 0)


@pytest.mark.postgres
async def test_a_database_restored_from_another_cluster_is_a_gap() -> None:
    with fresh_postgres() as url:
        database = await opened(url)
        heard = Heard()
        feed = ChangesFeed(database, heard.on_change, on_gap=heard.on_gap)
        async with following(feed):
            pass
        feed._tail._cursor = 2**61  # type: ignore[attr-defined]  # as if the numbers seen before had been far larger
        async with following(feed):
            await heard.until(lambda heard: heard.gaps == 1)
            await Customers(database).grant("bob", "pro", None, "", "ann", NOW)
            await heard.until(lambda heard: bool(heard.changes))
        await database.dispose()


@pytest.mark.postgres
async def test_a_feed_behind_a_network_that_swallows_everything_is_unhealthy_and_catches_up_afterwards() -> None:
    with fresh_postgres() as url:
        relay = Relay(url)
        heard = Heard()
        async with relay.running() as port, asyncio.timeout(60):
            near, far = await opened(url), await opened(relay.url(port))
            feed = ChangesFeed(far, heard.on_change, on_gap=heard.on_gap)
            async with following(feed):
                relay.open.clear()
                while feed.healthy:  # noqa: ASYNC110 -- there is no event for the absence of news
                    await asyncio.sleep(0.05)
                version = await Customers(near).grant("bob", "pro", None, "", "ann", NOW)
                relay.open.set()
                await heard.until(lambda heard: bool(heard.changes))
            await near.dispose()
            await far.dispose()
    assert (heard.changes, heard.gaps) == ([("bob", version)], 0)
