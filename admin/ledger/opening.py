"""From a URL to a ledger that can be used, or one sentence that says why not.

It decides what is checked before anything else starts: the place exists, can be written, is a database, lets us in. The
sentence is for the operator's terminal and never holds a password.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiosqlite
import psycopg
from sqlalchemy import text

from admin.ledger.engine import Database, LedgerDownError, normalise_url, without_secrets
from admin.ledger.sqlite import BUSY_SECONDS

if TYPE_CHECKING:
    from sqlalchemy import URL

_OLDEST_POSTGRES: Final = 13
"""The first with pg_current_xact_id, by which changes.py misses no commit."""


@dataclass(frozen=True, slots=True)
class LedgerUnavailable:
    """Why there is no ledger, as a sentence for people."""

    detail: str


async def open_database(url: str) -> Database | LedgerUnavailable:
    """Reach the database and see that it can be used; its schema is `schema.py`'s business."""
    try:
        parsed = normalise_url(url)
    except ValueError as error:
        return LedgerUnavailable(_sentence(str(error)))
    if parsed.get_backend_name() == "sqlite":
        problem = _place_problem(Path(str(parsed.database)))
        if problem is not None:
            return LedgerUnavailable(problem)
    database = Database(parsed)
    try:
        if database.is_sqlite:
            await _prepare_sqlite(database)
        else:
            problem = await _server_problem(database)
            if problem is not None:
                await database.dispose()
                return LedgerUnavailable(f"{_where(parsed)} can't be used: {problem}.")
    except LedgerDownError as error:
        await database.dispose()
        return LedgerUnavailable(without_secrets(parsed, _explained(parsed, error)))
    return database


def _place_problem(path: Path) -> str | None:
    directory = path.parent
    if path.is_dir():
        return f"The ledger {path} is a directory; database: must name a file in it."
    if not directory.is_dir():
        return f"The ledger can't be made: there is no directory {directory}."
    try:
        # The file will hold the signing key and the operator's token: nobody else reads it. SQLite gives the same
        # mode to the files that it puts beside it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        return f"The ledger {path} can't be written: {error.strerror}."
    if not os.access(directory, os.W_OK):
        return f"The ledger {path} can't be used: its directory can't be written, and SQLite keeps its log beside it."
    return None


async def _prepare_sqlite(database: Database) -> None:
    # WAL is a property of the file and can't be set inside a transaction. SQLite answers "locked" at once, without its
    # usual waiting, where another process sets it at the same moment; that one's WAL is ours, so looking again is enough.
    for patience in (0.05, 0.2, 0.5, 1.0, None):
        try:
            async with aiosqlite.connect(str(database.url.database), timeout=BUSY_SECONDS) as connection:
                await connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if patience is None or "locked" not in str(error):
                raise LedgerDownError(str(error)) from error
            await asyncio.sleep(patience)
        except sqlite3.DatabaseError as error:
            raise LedgerDownError(str(error)) from error
    async with database.write() as connection:
        await connection.execute(text("SELECT count(*) FROM sqlite_master"))


async def _server_problem(database: Database) -> str | None:
    async with database.read(seconds=8) as connection:
        shown = text("SELECT current_setting('server_version_num')::int, pg_is_in_recovery()")
        version, standby = (await connection.execute(shown)).one()
    if version < _OLDEST_POSTGRES * 10_000:
        return f"it is version {version // 10_000}, and {_OLDEST_POSTGRES} is the oldest that will do"
    return "it is a standby and can't be written" if standby else None


def _where(url: URL) -> str:
    host = url.host or url.query.get("host") or "localhost"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL at {host}{port} (database {url.database or url.username})"


def _explained(url: URL, error: LedgerDownError) -> str:
    if url.get_backend_name() == "sqlite":
        return f"The ledger {url.database} can't be used: {error}."
    cause = error.__cause__
    original = getattr(cause, "orig", None) or cause
    said = (
        "; ".join(line.strip() for line in str(original).splitlines())
        if isinstance(original, psycopg.Error)
        else str(error)
    )
    return f"{_where(url)} can't be used: {said}"


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + ("" if message.endswith(".") else ".")
