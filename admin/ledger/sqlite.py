"""An engine for a SQLite file: transactions that begin when they say so, and commits that survive a power cut."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import URL

BUSY_SECONDS: Final = 5.0
"""How long one process waits for another's write to end."""


class _LettingGo(sqlite3.Connection):
    """Ends its transaction before it closes.

    SQLite only closes for good once every cursor is gone, and one that a cancelled task has left behind lives until the
    garbage collector comes by: until then a write that was cut off would keep everybody else from writing.
    """

    def close(self) -> None:
        """Roll back what was not committed, and close. Closing what is closed does nothing, as it always did."""
        try:
            if self.in_transaction:
                self.rollback()
        except sqlite3.ProgrammingError:
            return
        finally:
            super().close()


def sqlite_engine(url: URL) -> AsyncEngine:
    """Its transactions begin with the statement in the option `ledger_begin`."""
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=4,
        max_overflow=4,
        pool_timeout=2,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "factory": _LettingGo},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        # FULL: in WAL mode NORMAL may lose the last commits in a power cut, and those were acknowledged to Stripe.
        for pragma in ("foreign_keys=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    # The driver would begin late and never for reads; SQLAlchemy's manual, "SQLite: transactions", turns it off like this.
    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("ledger_begin", "BEGIN"))

    return engine
