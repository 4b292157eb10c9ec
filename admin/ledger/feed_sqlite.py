"""How the feed follows SQLite: a connection of its own that asks for `PRAGMA data_version`.

That number changes with every commit by another connection, of this process or any, and asking costs no disk access.
There is one writer at a time, so ids are in the order of commits and "beyond the last id" misses nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiosqlite

from admin.ledger.engine import LedgerDownError
from admin.ledger.sqlite import BUSY_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from admin.ledger.engine import Database

POLL_SECONDS: Final = 0.08


class SqliteTail:
    """Rows of `changes` beyond a cursor, whenever the file changed."""

    def __init__(self, database: Database) -> None:
        self._path = str(database.url.database)
        self._connection: aiosqlite.Connection | None = None
        self._cursor: int | None = None
        self._data_version: int | None = None

    async def open(self) -> None:
        """Connect; the file must be there already."""
        async with _translated():
            uri = f"file:{_escaped(self._path)}?mode=rw"
            self._connection = await aiosqlite.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        self._data_version = None

    async def close(self) -> None:
        """Let go of the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def wait(self) -> None:
        """Until it is time to look again."""
        await asyncio.sleep(POLL_SECONDS)

    async def read(self) -> list[tuple[str, int]] | None:
        """What is new, nothing at the first call, and None where the file is not the one it was."""
        async with _translated():
            (data_version,) = (await self._rows("PRAGMA data_version"))[0]
            if data_version == self._data_version:
                return []
            # sqlite_sequence and not max(id): retention may have emptied the table.
            newest = await self._rows("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes'")
            last, self._cursor = self._cursor, newest[0][0]
            rows: list[tuple[str, int]] = []
            if last is not None and last <= newest[0][0]:
                query = "SELECT customer, version FROM changes WHERE id > ? AND id <= ? ORDER BY id"
                rows = await self._rows(query, (last, newest[0][0]))
        # Only now: an interruption above means looking again. A commit in between shows as another data_version.
        self._data_version = data_version
        return None if last is not None and last > newest[0][0] else rows

    async def _rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        if self._connection is None:
            raise LedgerDownError("not connected")
        async with asyncio.timeout(BUSY_SECONDS + 1), self._connection.execute(query, parameters) as cursor:
            return list(await cursor.fetchall())


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (sqlite3.Error, TimeoutError, ValueError) as error:  # aiosqlite says ValueError of a closed connection
        raise LedgerDownError(str(error) or "no answer in time") from error


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
