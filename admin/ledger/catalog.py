"""Prices as last fetched from Stripe, and which tier a lookup key once gave a price.

Stripe moves lookup keys from price to price, while subscriptions stay on the old one: so a price once seen under a
tier's lookup key is pinned to that tier. Whether the file puts it elsewhere is the reader's to decide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from admin.ledger.sql import insert_into, of_pair
from admin.ledger.tables import pinned_prices, prices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair


@dataclass(frozen=True, slots=True)
class StoredPrice:
    """One price. `unit_amount` None: it has no single amount (tiers, or a decimal one)."""

    id: str
    product: str
    lookup_key: str | None
    unit_amount: int | None
    currency: str
    interval: str | None
    interval_count: int | None
    active: bool
    default_of_product: bool
    fetched_at: int


class Catalog:
    """Prices and pins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace_prices(self, pair: Pair, fetched: Iterable[StoredPrice]) -> None:
        """These are the prices now; others are forgotten."""
        rows = [asdict(price) | {"account": pair.account, "livemode": pair.livemode} for price in fetched]
        async with self._database.write() as connection:
            await connection.execute(delete(prices).where(of_pair(prices, pair)))
            if rows:
                await connection.execute(prices.insert(), rows)

    async def prices(self, pair: Pair) -> tuple[StoredPrice, ...]:
        """Every known price, by id."""
        columns = (prices.c[name] for name in StoredPrice.__slots__)
        query = select(*columns).where(of_pair(prices, pair)).order_by(prices.c.id)
        async with self._database.read() as connection:
            return tuple(StoredPrice(*row) for row in await connection.execute(query))

    async def pin(self, pair: Pair, price: str, tier: str, *, replace: bool = False) -> str:
        """Keep the price in this tier. The tier that is in force: an earlier pin's, unless `replace`."""
        async with self._database.write() as connection:
            made = insert_into(connection, pinned_prices)
            made = made.values(account=pair.account, livemode=pair.livemode, price=price, tier=tier)
            key = list(pinned_prices.primary_key)
            if replace:
                await connection.execute(made.on_conflict_do_update(index_elements=key, set_={"tier": tier}))
            else:
                await connection.execute(made.on_conflict_do_nothing(index_elements=key))
            query = select(pinned_prices.c.tier).where(of_pair(pinned_prices, pair), pinned_prices.c.price == price)
            in_force: str = (await connection.execute(query)).scalar_one()
            return in_force

    async def pins(self, pair: Pair) -> dict[str, str]:
        """Price → tier."""
        query = select(pinned_prices.c.price, pinned_prices.c.tier).where(of_pair(pinned_prices, pair))
        async with self._database.read() as connection:
            return dict((await connection.execute(query)).all())
