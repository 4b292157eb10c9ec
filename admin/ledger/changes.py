"""Versions, and the list of what changed: how every process learns that it must forget a customer.

One rule: a transaction that changes what a customer may do calls `bump`, which raises the customer's version and writes
a row of `changes` in the same transaction. So no process can see the new facts without the row, or the row without the
facts. Nobody else may write versions.

Locks are taken in one order everywhere, so that no two transactions wait for each other: the Stripe customer's row, the
customers' (by `bump`, sorted), then the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import case, delete, func, literal_column, select, text, update

from admin.ledger.sql import insert_into
from admin.ledger.tables import changes, customers

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database

CHANNEL: Final = "gateway_changes"
"""Of PostgreSQL's NOTIFY; it carries nothing, rows of `changes` are the message."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is known of one customer's latest change. `at` is when the oldest of its changes was made."""

    customer: str
    version: int
    at: int


async def bump(connection: AsyncConnection, customer: str, now: float) -> int:
    """The customer's new version, max(previous + 1, now in microseconds); an unknown customer is made.

    It takes the lock of the customer's row: see the order above.
    """
    instant = int(now * 1_000_000)
    made = insert_into(connection, customers).values(customer=customer, version=instant, created_at=int(now))
    next_version = customers.c.version + 1
    upsert = made.on_conflict_do_update(
        index_elements=[customers.c.customer],
        set_={"version": case((next_version > instant, next_version), else_=instant)},
    ).returning(customers.c.version)
    version: int = (await connection.execute(upsert)).scalar_one()
    await _record(connection, customer, version, int(now))
    return version


async def _record(connection: AsyncConnection, customer: str, version: int, at: int) -> None:
    row = {"customer": customer, "version": version, "at": at}
    if connection.dialect.name == "sqlite":
        await connection.execute(changes.insert().values(row))
        return
    own_xid: ColumnElement[int] = literal_column("pg_current_xact_id()::text::bigint")
    await connection.execute(changes.insert().values(**row, xid=own_xid))
    await connection.execute(text(f"NOTIFY {CHANNEL}"))


class Changes:
    """The list of changes, for whoever publishes them and for retention."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unpublished(self, limit: int, older_than: float) -> list[Change]:
        """Customers with changes made at or before `older_than` that no cache was told of, longest waiting first."""
        waiting = (
            select(changes.c.customer, func.max(changes.c.version), func.min(changes.c.at).label("since"))
            .where(changes.c.published_at.is_(None), changes.c.at <= int(older_than))
            .group_by(changes.c.customer)
            .order_by(func.min(changes.c.id))
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Change(*row) for row in await connection.execute(waiting)]

    async def published(self, limit: int, since: float) -> list[tuple[str, int]]:
        """Customers with the versions that caches were told of at or after `since`: the latest so many, in order."""
        # No more rows than that are read, however many there are: a start waits for this.
        told = (
            select(changes.c.customer, changes.c.version)
            .where(changes.c.published_at >= int(since))
            .order_by(changes.c.published_at.desc(), changes.c.id.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [(row.customer, row.version) for row in await connection.execute(told)][::-1]

    async def mark_published(self, customer: str, version: int, now: float) -> None:
        """Caches now hold `version` of this customer, or newer."""
        told = (
            update(changes)
            .where(changes.c.customer == customer, changes.c.version <= version, changes.c.published_at.is_(None))
            .values(published_at=int(now))
        )
        async with self._database.write() as connection:
            await connection.execute(told)

    async def prune(self, before: float, *, unpublished: bool = False) -> int:
        """Delete changes made before `before`, at least an hour ago; unpublished ones only where nobody publishes."""
        old = delete(changes).where(changes.c.at < int(before))
        if not unpublished:
            old = old.where(changes.c.published_at.is_not(None))
        async with self._database.write() as connection:
            return (await connection.execute(old)).rowcount
