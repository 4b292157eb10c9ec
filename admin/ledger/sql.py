"""The one place where the two databases' SQL differs in its spelling: INSERT … ON CONFLICT, and what time it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, literal_column
from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair

_MOST_PARAMETERS: Final = 500

# Not now(): that is when the transaction began, and it may have waited for a row since.
_POSTGRES_CLOCK: Final = "extract(epoch from clock_timestamp())::double precision"
_SQLITE_CLOCK: Final = "(julianday('now') - 2440587.5) * 86400.0"


def insert_into(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def of_pair(table: Table, pair: Pair) -> ColumnElement[bool]:
    """Only rows of this account and mode."""
    return (table.c.account == pair.account) & (table.c.livemode == pair.livemode)


def in_batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """`values` in pieces that fit the parameter limits of either database."""
    for start in range(0, len(values), _MOST_PARAMETERS):
        yield values[start : start + _MOST_PARAMETERS]


def database_clock(database: Database) -> ColumnElement[Any]:
    """UTC seconds by the database's own clock, the one that all processes share."""
    return literal_column(_SQLITE_CLOCK if database.is_sqlite else _POSTGRES_CLOCK, Float)
