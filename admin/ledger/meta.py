"""Single values that belong to this ledger: its random id, keys made once, cursors.

`get_or_make` is for values that several processes might make at the same moment: the first writer wins and all see its.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from admin.ledger.sql import insert_into
from admin.ledger.tables import meta

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.engine import Database


class Meta:
    """Keys and texts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> str | None:
        """The value, or None where nothing was ever set."""
        async with self._database.read() as connection:
            return (await connection.execute(select(meta.c.value).where(meta.c.key == key))).scalar_one_or_none()

    async def set(self, key: str, value: str) -> None:
        """Replace the value, or make it."""
        async with self._database.write() as connection:
            made = insert_into(connection, meta).values(key=key, value=value)
            await connection.execute(made.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": value}))

    async def get_or_make(self, key: str, make: Callable[[], str]) -> str:
        """The value; where there is none, what `make` returns, unless another writer was first."""
        found = await self.get(key)
        if found is not None:
            return found
        async with self._database.write() as connection:
            made = insert_into(connection, meta).values(key=key, value=make())
            await connection.execute(made.on_conflict_do_nothing(index_elements=[meta.c.key]))
            value: str = (await connection.execute(select(meta.c.value).where(meta.c.key == key))).scalar_one()
            return value
