"""Bringing a database to the schema that this code knows, and saying clearly when it is not there.

It decides what "ready" means. A ledger newer than the code is never touched. Several processes may upgrade at once: one
does it and the others, once they have the lock, find nothing to do. An upgrade that fails leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from admin.ledger.engine import Database, LedgerDownError, first_line, without_secrets
from admin.ledger.opening import LedgerUnavailable, open_database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_MIGRATIONS: Final = Path(__file__).parent / "migrations" / "versions"
_UPGRADE_SECONDS: Final = 600.0
_LOCK: Final = 0x656E7469746C6564
"""Of PostgreSQL's advisory locks, which are one namespace per database: 'entitled' in ASCII."""


@dataclass(frozen=True, slots=True)
class Revisions:
    """Where a database is and where this code wants it. `known` is whether this code has heard of `current`."""

    current: str | None
    head: str
    known: bool

    @property
    def problem(self) -> str | None:
        """Why the ledger can't be used as it is, or None."""
        if self.current == self.head:
            return None
        if not self.known:
            return (
                f"The ledger is newer than this program (its schema is {self.current}, the newest known here "
                f"{self.head}): run the newer version, or restore a backup made before the upgrade."
            )
        if self.current is None:
            return "The ledger is empty: run `gateway db upgrade` once."
        return f"The ledger's schema is {self.current} and must be {self.head}: run `gateway db upgrade`."


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The database is at `after`; `before` is where it was, the same where there was nothing to do."""

    before: str | None
    after: str


async def open_ledger(url: str) -> Database | LedgerUnavailable:
    """A ledger that is ready to use: SQLite is upgraded on the way, PostgreSQL must have been."""
    database = await open_database(url)
    if isinstance(database, LedgerUnavailable):
        return database
    try:
        revisions = await _revisions(database)
        if database.is_sqlite and revisions.problem is not None and revisions.known:
            await _upgrade(database)
            revisions = await _revisions(database)
    except (LedgerDownError, DBAPIError) as error:
        await database.dispose()
        return _unusable(database, "made ready", error)
    if revisions.problem is not None:
        await database.dispose()
        return LedgerUnavailable(revisions.problem)
    return database


async def upgrade(url: str) -> Upgraded | LedgerUnavailable:
    """Bring the database at `url` to this code's schema."""
    database = await open_database(url)
    if isinstance(database, LedgerUnavailable):
        return database
    try:
        before = await _revisions(database)
        if not before.known:
            return LedgerUnavailable(before.problem or "")
        await _upgrade(database)
        return Upgraded(before.current, before.head)
    except (LedgerDownError, DBAPIError) as error:
        return _unusable(database, "upgraded", error)
    finally:
        await database.dispose()


async def current_and_head(url: str) -> Revisions | LedgerUnavailable:
    """Where the database at `url` is; it is not changed."""
    database = await open_database(url)
    if isinstance(database, LedgerUnavailable):
        return database
    try:
        return await _revisions(database)
    except (LedgerDownError, DBAPIError) as error:
        return _unusable(database, "read", error)
    finally:
        await database.dispose()


async def _revisions(database: Database) -> Revisions:
    known = revisions_known()
    if not known:
        raise AssertionError("this package holds no migrations")
    async with database.read() as connection:
        current = await connection.run_sync(_current)
    return Revisions(current, known[-1], current is None or current in known)


def _unusable(database: Database, attempt: str, error: Exception) -> LedgerUnavailable:
    said = without_secrets(database.url, first_line(error))
    return LedgerUnavailable(f"The ledger could not be {attempt}: {said}.")


async def _upgrade(database: Database) -> None:
    from admin.ledger.migrating import to_head  # noqa: PLC0415 -- a start that finds a ledger in order needs none of it

    # SQLite's write lock is taken by BEGIN IMMEDIATE; DDL is part of the transaction on either database.
    async with database.write(seconds=_UPGRADE_SECONDS) as connection:
        if not database.is_sqlite:
            await _wait_for_turn(connection)
        await connection.run_sync(to_head)


async def _wait_for_turn(connection: AsyncConnection) -> None:
    await connection.execute(text("SET LOCAL statement_timeout = '600s'"))
    await connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _current(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def revisions_known() -> tuple[str, ...]:
    """Every revision of this code, the last one last: a migration's file begins with its number."""
    return tuple(sorted(file.name[:4] for file in _MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.py")))
