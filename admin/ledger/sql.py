"""The one place where the two databases' SQL differs in its spelling: INSERT … ON CONFLICT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.pair import Pair

_MOST_PARAMETERS = 500


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
