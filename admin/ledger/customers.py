"""What an operator says of a customer, and everything that is asked about one.

Grants and blocks are the operator's word and outrank Stripe's; none is ever deleted, only ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from admin.ledger.changes import bump
from admin.ledger.customer_records import CustomerRecord, CustomerSummary, find, look_up
from admin.ledger.stored_facts import facts_of
from admin.ledger.tables import customers, grants
from policies.facts import CustomerFacts

if TYPE_CHECKING:
    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair


@dataclass(frozen=True, slots=True)
class Revoked:
    """How many grants were ended. `version` is None when there was none, and nothing changed."""

    count: int
    version: int | None


class Customers:
    """Grants, blocks and facts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, customer: str, tier: str, until: int | None, reason: str, by: str, now: float) -> int:
        """Give a tier by hand, until a time or (None) without end. The customer's new version."""
        async with self._database.write() as connection:
            version = await bump(connection, customer, now)
            given = {"tier": tier, "until": until, "reason": reason, "by": by, "created_at": int(now)}
            await connection.execute(grants.insert().values(customer=customer, **given))
            return version

    async def revoke(self, customer: str, by: str, reason: str, now: float, tier: str | None = None) -> Revoked:
        """End the customer's running grants, or only those of `tier`. They stay on record."""
        running = (grants.c.customer == customer) & grants.c.revoked_at.is_(None)
        running &= grants.c.until.is_(None) | (grants.c.until > int(now))
        if tier is not None:
            running &= grants.c.tier == tier
        async with self._database.write() as connection:
            if (await connection.execute(select(grants.c.id).where(running).limit(1))).first() is None:
                return Revoked(0, None)
            version = await bump(connection, customer, now)
            ended = update(grants).where(running)
            ended = ended.values(revoked_at=int(now), revoked_by=by, revoked_reason=reason)
            return Revoked((await connection.execute(ended)).rowcount, version)

    async def block(self, customer: str, reason: str, by: str, now: float) -> int:
        """Refuse this customer everything, whatever they pay, until `unblock`. The new version."""
        return await self._set_block(customer, now, {"reason": reason, "by": by, "at": int(now)})

    async def unblock(self, customer: str, now: float) -> int | None:
        """Lift the block; what they pay for counts again. The new version; None where there was no block."""
        blocked = select(customers.c.customer).where(
            customers.c.customer == customer, customers.c.blocked_reason.is_not(None)
        )
        async with self._database.read() as connection:
            if (await connection.execute(blocked)).first() is None:
                return None
        return await self._set_block(customer, now, {"reason": None, "by": None, "at": None})

    async def _set_block(self, customer: str, now: float, block: dict[str, Any]) -> int:
        async with self._database.write() as connection:
            version = await bump(connection, customer, now)
            values = {f"blocked_{name}": value for name, value in block.items()}
            await connection.execute(update(customers).where(customers.c.customer == customer).values(**values))
            return version

    async def read_facts(self, pair: Pair, customer: str, now: float) -> CustomerFacts:
        """All that is known of the customer; of an unknown one version 0 and nothing."""
        async with self._database.read() as connection:
            found = await facts_of(connection, pair, [customer], now)
        return found.get(customer) or CustomerFacts(customer, 0)

    async def search(self, pair: Pair, text: str, limit: int, after: str, now: float) -> list[CustomerSummary]:
        """A page of customers by name: those beyond `after` (first page: an empty text)."""
        async with self._database.read() as connection:
            return await find(connection, pair, text, limit=limit, after=after, now=now)

    async def show(self, pair: Pair, customer: str, now: float) -> CustomerRecord | None:
        """Everything on record, or None where nothing is."""
        async with self._database.read() as connection:
            return await look_up(connection, pair, customer, now)
