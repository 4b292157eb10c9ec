"""How many calls may go out now, over all processes of one ledger: a bucket of tokens that fills by itself.

One rule makes the order of precedence hold between processes that know nothing of each other: whoever is less urgent
must leave more in the bucket. While somebody urgent keeps asking, the level never reaches what the others need.
Time is the database's, so that processes with different clocks agree. It must never hand out more in any stretch of
time than `capacity` and what came in meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from admin.ledger.sql import database_clock, insert_into
from admin.ledger.tables import call_budgets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from admin.ledger.engine import Database

TAKE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One budget: its name in the ledger, how much comes in a second, and how much it holds."""

    name: str
    per_second: float
    capacity: float


@dataclass(frozen=True, slots=True)
class Taken:
    """How many of those who asked may go, and for how long the next of them has to wait at least."""

    count: int
    wait_seconds: float


class CallBudgets:
    """The buckets of one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, bucket: Bucket, left_behind: Sequence[float]) -> Taken:
        """One token for each who asks, in this order, as far as it leaves that much in the bucket.

        Raises LedgerDownError; it is then not known whether tokens were taken, which errs on the careful side.
        """
        table = call_budgets
        query = select(table.c.level, table.c.counted_at, database_clock(self._database))
        query = query.where(table.c.name == bucket.name).with_for_update()
        async with self._database.write(TAKE_SECONDS) as connection:
            row = (await connection.execute(query)).first()
            if row is None:
                new = {"name": bucket.name, "level": bucket.capacity, "counted_at": database_clock(self._database)}
                await connection.execute(insert_into(connection, table).values(**new).on_conflict_do_nothing())
                row = (await connection.execute(query)).one()
            level, counted_at, now = row
            level = min(bucket.capacity, level + max(0.0, now - counted_at) * bucket.per_second)
            count = 0
            for rest in left_behind:
                if level - 1 < rest:
                    break
                level -= 1
                count += 1
            # A clock that was set back is counted from anew, or nothing would come in until it has caught up.
            if count or now < counted_at:
                counted = update(table).where(table.c.name == bucket.name)
                await connection.execute(counted.values(level=level, counted_at=now))
        lacking = 0.0 if count == len(left_behind) else left_behind[count] + 1 - level
        return Taken(count, lacking / bucket.per_second)
