from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from admin.ledger.engine import Database
from admin.ledger.migrating import alembic_config
from admin.ledger.opening import LedgerUnavailable
from admin.ledger.schema import Revisions, Upgraded, current_and_head, open_ledger, revisions_known, upgrade
from admin.ledger.tables import metadata
from tests.support.ledgers import opened
from tests.support.postgres import shared_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PATIENCE_SECONDS = 60.0
"""To look at every table takes a busy machine longer than a request may wait."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with shared_postgres().fresh_database() as url:
        yield url


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def layout(connection: Connection) -> dict[str, object]:
    inspector = inspect(connection)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((key["constrained_columns"], key["referred_table"]) for key in inspector.get_foreign_keys(table)),
            sorted((index["name"], index["column_names"], index["unique"]) for index in inspector.get_indexes(table)),
        )
        for table in sorted(set(inspector.get_table_names()) - {"alembic_version"})
    }


async def test_a_migrated_ledger_is_what_the_tables_say(empty_url: str) -> None:
    assert isinstance(await upgrade(empty_url), Upgraded)
    database = await opened(empty_url)
    async with database.read(PATIENCE_SECONDS) as connection:
        assert await connection.run_sync(differences) == []
        migrated = await connection.run_sync(layout)
    async with database.write(PATIENCE_SECONDS) as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    async with database.read(PATIENCE_SECONDS) as connection:
        assert await connection.run_sync(layout) == migrated
    await database.dispose()


def test_the_files_names_say_what_alembic_reads_in_them() -> None:
    scripts = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
    assert revisions_known() == tuple(reversed(scripts))


async def test_upgrading_twice_does_nothing_the_second_time(empty_url: str) -> None:
    first = await upgrade(empty_url)
    second = await upgrade(empty_url)
    assert isinstance(first, Upgraded)
    assert isinstance(second, Upgraded)
    assert (first.before, second.before, second.after) == (None, first.after, first.after)


UPGRADE_ON_A_SIGNAL = """
import asyncio, sys
from admin.ledger.schema import upgrade
print("ready", flush=True)
sys.stdin.readline()
print(asyncio.run(upgrade(sys.argv[1])))
"""


async def test_processes_that_upgrade_at_once_all_succeed(empty_url: str) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            UPGRADE_ON_A_SIGNAL,
            empty_url,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert all(output.startswith(b"Upgraded(") for output, _ in outputs), outputs
    revisions = await current_and_head(empty_url)
    assert isinstance(revisions, Revisions)
    assert revisions.problem is None


async def test_a_ledger_newer_than_the_program_is_refused_and_left_alone(ledger_url: str) -> None:
    database = await opened(ledger_url)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refused in (await open_ledger(ledger_url), await upgrade(ledger_url)):
        assert isinstance(refused, LedgerUnavailable)
        assert "newer than this program" in refused.detail
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9999"
    await database.dispose()


async def test_a_sqlite_ledger_is_made_at_start(tmp_path: Path) -> None:
    database = await open_ledger(f"sqlite:///{tmp_path / 'new.db'}")
    assert isinstance(database, Database)
    await database.dispose()
    assert (tmp_path / "new.db").stat().st_mode & 0o077 == 0


@pytest.mark.postgres
async def test_an_empty_postgres_ledger_says_what_to_run() -> None:
    with shared_postgres().fresh_database() as url:
        assert await open_ledger(url) == LedgerUnavailable("The ledger is empty: run `gateway db upgrade` once.")
        await upgrade(url)
        database = await open_ledger(url)
        assert isinstance(database, Database)
        await database.dispose()


async def test_looking_at_the_revision_changes_nothing(empty_url: str) -> None:
    revisions = await current_and_head(empty_url)
    assert isinstance(revisions, Revisions)
    assert (revisions.current, revisions.known) == (None, True)
    assert isinstance(await upgrade(empty_url), Upgraded)


async def test_a_database_that_belongs_to_another_program_is_left_alone(empty_url: str) -> None:
    database = await opened(empty_url)
    async with database.write() as connection:
        await connection.execute(text("CREATE TABLE customers (name TEXT)"))
    refused = await upgrade(empty_url)
    assert isinstance(refused, LedgerUnavailable)
    assert "could not be upgraded" in refused.detail
    assert "already exists" in refused.detail
    async with database.read() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == ["customers"]
    await database.dispose()


@pytest.mark.postgres
async def test_a_role_that_may_not_make_tables_is_told_so() -> None:
    with shared_postgres().fresh_database() as url:
        database = await opened(url)
        async with database.write() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
        await database.dispose()
        refused = await upgrade(url)
    assert isinstance(refused, LedgerUnavailable)
    assert refused.detail == "The ledger could not be upgraded: no schema has been selected to create in."
