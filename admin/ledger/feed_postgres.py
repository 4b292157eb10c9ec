"""How the feed follows PostgreSQL: LISTEN on a session of its own, and a look every quarter of a second besides.

The notification only wakes; the rows are the message. Each look is one statement, so its rows and its snapshot agree.
Rows are asked for by their transaction's number, from the oldest that was still running at the look before: whatever
was not visible then has such a number. What was reported already is known by its id.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg

from admin.ledger.changes import CHANNEL
from admin.ledger.engine import READ_SECONDS, LedgerDownError, first_line, without_secrets
from admin.ledger.postgres import session_arguments, sever

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from admin.ledger.engine import Database

POLL_SECONDS: Final = 0.25

_LOOK: Final = """
SELECT pg_snapshot_xmin(now.snapshot)::text::bigint, pg_snapshot_xmax(now.snapshot)::text::bigint,
       changes.id, changes.xid, changes.customer, changes.version
FROM (SELECT pg_current_snapshot() AS snapshot) AS now
LEFT JOIN changes ON changes.xid >= %s
ORDER BY changes.id
"""


class PostgresTail:
    """Rows of `changes` that no earlier snapshot could see."""

    def __init__(self, database: Database) -> None:
        self._url = database.url
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._cursor: int | None = None
        self._seen: dict[int, int] = {}

    async def open(self) -> None:
        """Connect and listen."""
        async with self._translated():
            arguments = session_arguments(self._url)
            self._connection = await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
            await self._bounded(self._connection.execute(f"LISTEN {CHANNEL}"))

    async def close(self) -> None:
        """Give the session back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def wait(self) -> None:
        """Until somebody notified, or it is time to look anyway."""
        async with self._translated():
            async for _ in self._open_connection().notifies(timeout=POLL_SECONDS, stop_after=1):
                pass

    async def read(self) -> list[tuple[str, int]] | None:
        """What is new, nothing at the first call, and None where this is not the server it was."""
        first, cursor = self._cursor is None, self._cursor
        async with self._translated():
            # At the first look only the snapshot matters: no transaction number is this large.
            asked = await self._bounded(self._open_connection().execute(_LOOK, [2**62 if cursor is None else cursor]))
            rows: list[Any] = await asked.fetchall()
        oldest_running, next_xid = rows[0][0], rows[0][1]
        new = [row for row in rows if row[2] is not None and row[2] not in self._seen]
        # Numbers only grow on one server; a smaller one means that the ledger was restored to another.
        lost = cursor is not None and next_xid < cursor
        self._cursor = oldest_running
        self._seen = {row[2]: row[3] for row in rows if row[2] is not None and row[3] >= oldest_running}
        if first:
            return []
        return None if lost else [(row[4], row[5]) for row in new]

    async def _bounded(self, asking: Any) -> Any:
        """`asking`, for as long as a look may take."""
        timer = asyncio.get_running_loop().call_later(READ_SECONDS, sever, self._connection)
        try:
            return await asking
        finally:
            timer.cancel()

    def _open_connection(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None:
            raise LedgerDownError("not connected")
        return self._connection

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (psycopg.Error, TimeoutError, OSError) as error:
            raise LedgerDownError(without_secrets(self._url, first_line(error) or "no answer in time")) from error
