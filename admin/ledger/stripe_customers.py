"""Stripe's customers: what was last fetched of each, whose they are, and who may write it.

Two rules. A fetch takes a *ticket* before it asks Stripe and may write only while no newer ticket exists, so an answer
that lingered can't put back an old truth, and no transaction is open while Stripe thinks (docs/design.md, section 6.3). And
links are only added: nothing that Stripe sends moves or removes one; a Stripe customer claimed by two keeps the first,
and the conflict is recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, func, select, update

from admin.ledger.changes import bump
from admin.ledger.inbox_rows import pending_for, settle
from admin.ledger.sql import in_batches, insert_into, of_pair
from admin.ledger.stored_facts import encode_subscriptions
from admin.ledger.tables import customers, stripe_customers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair
    from policies.facts import SubscriptionFact


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to write what a fetch that starts now will find, and the events that it will answer.

    Facts are dated `taken_at`: of what happened during the fetch nobody can say whether it was seen.
    """

    stripe_customer: str
    number: int
    event_ids: frozenset[str]
    taken_at: int


@dataclass(frozen=True, slots=True)
class LinkClaim:
    """Something that says whose this Stripe customer is; `source` says what."""

    customer: str
    source: str


@dataclass(frozen=True, slots=True)
class SyncResult:
    """One Stripe customer as fetched. `next_edge_at` is when the next period or trial ends."""

    subscriptions: tuple[SubscriptionFact, ...]
    deleted: bool = False
    links: tuple[LinkClaim, ...] = ()
    next_edge_at: int | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """The facts are in force, with the new version of each customer they concern. `repaired`: others stood there."""

    versions: dict[str, int]
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Superseded:
    """A newer ticket exists, or this one was used: nothing was written."""


@dataclass(frozen=True, slots=True)
class Linked:
    """It is this customer's now, or was before."""

    version: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """It belongs to `existing` and stays there; the claim is recorded."""

    existing: str


@dataclass(frozen=True, slots=True)
class DueEdge:
    """A Stripe customer one of whose periods has ended since the last fetch."""

    stripe_customer: str
    edge_at: int


@dataclass(frozen=True, slots=True)
class Owned:
    """A Stripe customer that is known: whose, and whether it was ever looked at."""

    customer: str | None
    fetched: bool


@dataclass(frozen=True, slots=True)
class LinkConflict:
    """A Stripe customer claimed by two."""

    stripe_customer: str
    customer: str
    claimed_by: str


class StripeCustomers:
    """Facts, tickets and links."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_ticket(self, pair: Pair, stripe_customer: str, now: float) -> Ticket:
        """Before a fetch. Events stored after this moment are not among the ticket's, and stay pending."""
        async with self._database.write() as connection:
            await _make(connection, pair, stripe_customer, now)
            counted = update(stripe_customers).where(_row(pair, stripe_customer))
            counted = counted.values(ticket=stripe_customers.c.ticket + 1)
            number = (await connection.execute(counted.returning(stripe_customers.c.ticket))).scalar_one()
            events = await pending_for(connection, pair, stripe_customer)
            return Ticket(stripe_customer, number, events, int(now))

    async def write_sync(self, pair: Pair, ticket: Ticket, result: SyncResult, now: float) -> Written | Superseded:
        """After a fetch: facts, links, versions and the ticket's events, all or nothing."""
        async with self._database.write() as connection:
            row = await _locked(connection, pair, ticket.stripe_customer)
            if row is None or row.ticket != ticket.number or row.written_ticket >= ticket.number:
                return Superseded()
            values: dict[str, Any] = {"customer": row.customer, "conflict_customer": row.conflict_customer}
            for claim in result.links:
                if values["customer"] is None:
                    values |= {"customer": claim.customer, "linked_by": claim.source}
                elif values["customer"] != claim.customer and values["conflict_customer"] is None:
                    values["conflict_customer"] = claim.customer
            owner: str | None = values["customer"]
            # Bumped even where the facts are the same: that they were fetched again is news for whoever doubted them.
            versions = {} if owner is None else {owner: await bump(connection, owner, now)}
            facts = encode_subscriptions(result.subscriptions)
            features = json.dumps(result.features)
            was = (row.facts, row.features, row.deleted, row.customer)
            repaired = was != (facts, features, result.deleted, owner)
            values |= {
                "facts": facts,
                "features": features,
                "fetched_at": ticket.taken_at,
                "next_edge_at": result.next_edge_at,
                "deleted": result.deleted,
                "written_ticket": ticket.number,
            }
            await connection.execute(
                update(stripe_customers).where(_row(pair, ticket.stripe_customer)).values(**values)
            )
            await settle(connection, pair, ticket.event_ids)
            return Written(versions, repaired)

    async def link(self, pair: Pair, stripe_customer: str, customer: str, source: str, now: float) -> Linked | Conflict:
        """Say whose a Stripe customer is, known yet or not. Saying it again changes nothing."""
        async with self._database.write() as connection:
            await _make(connection, pair, stripe_customer, now)
            row = await _locked(connection, pair, stripe_customer)
            owner = None if row is None else row.customer
            if owner == customer:
                known = select(customers.c.version).where(customers.c.customer == customer)
                return Linked((await connection.execute(known)).scalar_one())
            change = update(stripe_customers).where(_row(pair, stripe_customer))
            if owner is not None:
                if row is not None and row.conflict_customer is None:
                    await connection.execute(change.values(conflict_customer=customer))
                return Conflict(owner)
            version = await bump(connection, customer, now)
            await connection.execute(change.values(customer=customer, linked_by=source))
            return Linked(version)

    async def links_of(self, pair: Pair, customer: str) -> tuple[str, ...]:
        """The customer's Stripe customers, oldest first; deleted ones are left out."""
        query = (
            select(stripe_customers.c.id)
            .where(of_pair(stripe_customers, pair), stripe_customers.c.customer == customer)
            .where(stripe_customers.c.deleted.is_(False))
            .order_by(stripe_customers.c.created_at, stripe_customers.c.id)
        )
        async with self._database.read() as connection:
            return tuple((await connection.execute(query)).scalars())

    async def customer_of(self, pair: Pair, stripe_customer: str) -> str | None:
        """Whose it is, or None."""
        query = select(stripe_customers.c.customer).where(_row(pair, stripe_customer))
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def due_edges(self, pair: Pair, now: float, limit: int) -> list[DueEdge]:
        """Those with an edge at or before `now` that no fetch has answered, longest past first."""
        edge = stripe_customers.c.next_edge_at
        query = select(stripe_customers.c.id, edge).where(of_pair(stripe_customers, pair), edge <= int(now))
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(edge, stripe_customers.c.id).limit(limit))
            return [DueEdge(*row) for row in rows]

    async def all_ids(self, pair: Pair, after: str, limit: int) -> list[str]:
        """Every Stripe customer in pages: ids beyond `after` (first page: an empty text)."""
        query = select(stripe_customers.c.id).where(of_pair(stripe_customers, pair), stripe_customers.c.id > after)
        async with self._database.read() as connection:
            return list((await connection.execute(query.order_by(stripe_customers.c.id).limit(limit))).scalars())

    async def count(self, pair: Pair) -> int:
        """How many Stripe customers are known."""
        query = select(func.count()).select_from(stripe_customers).where(of_pair(stripe_customers, pair))
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def owners(self, pair: Pair, ids: Sequence[str]) -> dict[str, Owned]:
        """Whose each of these is, for those that are known."""
        table = stripe_customers
        found: dict[str, Owned] = {}
        async with self._database.read() as connection:
            for batch in in_batches(ids):
                query = select(table.c.id, table.c.customer, table.c.fetched_at).where(of_pair(table, pair))
                rows = await connection.execute(query.where(table.c.id.in_(batch)))
                found |= {row.id: Owned(row.customer, row.fetched_at is not None) for row in rows}
        return found

    async def conflicts(self, pair: Pair) -> list[LinkConflict]:
        """Stripe customers claimed by two."""
        table = stripe_customers
        query = select(table.c.id, table.c.customer, table.c.conflict_customer)
        query = query.where(of_pair(table, pair), table.c.conflict_customer.is_not(None)).order_by(table.c.id)
        async with self._database.read() as connection:
            return [LinkConflict(*row) for row in await connection.execute(query)]


def _row(pair: Pair, stripe_customer: str) -> ColumnElement[bool]:
    return of_pair(stripe_customers, pair) & (stripe_customers.c.id == stripe_customer)


async def _make(connection: AsyncConnection, pair: Pair, stripe_customer: str, now: float) -> None:
    made = insert_into(connection, stripe_customers)
    made = made.values(account=pair.account, livemode=pair.livemode, id=stripe_customer, created_at=int(now))
    await connection.execute(made.on_conflict_do_nothing())


async def _locked(connection: AsyncConnection, pair: Pair, stripe_customer: str) -> Row[Any] | None:
    query = select(stripe_customers).where(_row(pair, stripe_customer)).with_for_update()
    return (await connection.execute(query)).first()
