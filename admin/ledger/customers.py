"""What an operator says of a customer (grants, blocks), and the facts that every decision rests on.

It decides how `CustomerFacts` is put together from the ledger, in one snapshot. It must never compute a tier or a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, update

from admin.ledger.changes import bump
from admin.ledger.sql import of_pair
from admin.ledger.stored_facts import decode_subscriptions
from admin.ledger.tables import checkout_sessions, customers, grants, inbox, stripe_customers
from policies.facts import CustomerFacts, GrantFact, SubscriptionFact

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair

DOUBT_SECONDS: Final = 86_400
"""How long one pending event makes the facts doubtful, counted from each reading."""


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

    async def unblock(self, customer: str, now: float) -> int:
        """Lift the block; what they pay for counts again. The new version."""
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
            return await read_facts(connection, pair, customer, now)


async def read_facts(connection: AsyncConnection, pair: Pair, customer: str, now: float) -> CustomerFacts:
    """`Customers.read_facts` inside the caller's transaction."""
    linked = of_pair(stripe_customers, pair) & (stripe_customers.c.customer == customer)
    open_until = (
        select(func.max(checkout_sessions.c.expires_at))
        .where(of_pair(checkout_sessions, pair), checkout_sessions.c.customer == customer)
        .where(checkout_sessions.c.status == "open")
        .scalar_subquery()
    )
    doubted = (
        select(inbox.c.seq)
        .where(of_pair(inbox, pair), inbox.c.status == "pending", inbox.c.doubted_at.is_not(None))
        .where(inbox.c.stripe_customer.in_(select(stripe_customers.c.id).where(linked)))
        .exists()
    )
    own = select(customers.c.version, customers.c.blocked_reason, open_until, doubted)
    found = (await connection.execute(own.where(customers.c.customer == customer))).first()
    if found is None:
        return CustomerFacts(customer, 0)
    version, blocked, session_until, event_pending = found
    fetched = [
        (decode_subscriptions(text), at)
        for text, at in await connection.execute(
            select(stripe_customers.c.facts, stripe_customers.c.fetched_at)
            .where(linked)
            .order_by(stripe_customers.c.id)
        )
    ]
    # One that was never fetched makes the whole never fetched: what it holds may be what the customer paid for.
    times = [at for _, at in fetched]
    doubts = [until for until in (session_until, int(now) + DOUBT_SECONDS if event_pending else None) if until]
    return CustomerFacts(
        customer=customer,
        version=version,
        subscriptions=_all_of(subscriptions for subscriptions, _ in fetched),
        grants=await _running_grants(connection, customer),
        blocked=blocked,
        fetched_at=min(times) if times and None not in times else None,
        doubtful_until=max((until for until in doubts if until > now), default=None),
    )


def _all_of(parts: Any) -> tuple[SubscriptionFact, ...]:
    return tuple(subscription for part in parts for subscription in part)


async def _running_grants(connection: AsyncConnection, customer: str) -> tuple[GrantFact, ...]:
    query = (
        select(grants.c.id, grants.c.tier, grants.c.until, grants.c.reason, grants.c.by)
        .where(grants.c.customer == customer, grants.c.revoked_at.is_(None))
        .order_by(grants.c.id)
    )
    return tuple(GrantFact(*row) for row in await connection.execute(query))
