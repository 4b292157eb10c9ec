"""A customer as an operator looks at one: in a list, and with everything on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, or_, select

from admin.ledger.inbox_rows import ROW, InboxRow, event_of
from admin.ledger.sql import of_pair
from admin.ledger.stored_facts import facts_of
from admin.ledger.tables import customers, grants, inbox, stripe_customers

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.pair import Pair
    from policies.facts import CustomerFacts

_MOST_EVENTS: Final = 50


@dataclass(frozen=True, slots=True)
class CustomerSummary:
    """One line of a list. `conflicted`: somebody else claims one of its Stripe customers."""

    facts: CustomerFacts
    stripe_customers: tuple[str, ...]
    conflicted: bool

    @property
    def customer(self) -> str:
        """Who it is."""
        return self.facts.customer


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A Stripe customer of this customer, or (`owner` another) one that this customer claims in vain."""

    stripe_customer: str
    owner: str
    linked_by: str | None
    claimed_by: str | None
    fetched_at: int | None
    next_edge_at: int | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """A grant, running, run out or revoked."""

    id: int
    tier: str
    until: int | None
    reason: str
    by: str
    created_at: int
    revoked_at: int | None
    revoked_by: str | None
    revoked_reason: str | None


@dataclass(frozen=True, slots=True)
class CustomerRecord:
    """Everything on record. `conflicts` are links claimed by two, whoever holds them; events are the latest ones."""

    facts: CustomerFacts
    created_at: int
    blocked_by: str | None
    blocked_at: int | None
    links: tuple[LinkRecord, ...]
    conflicts: tuple[LinkRecord, ...]
    grants: tuple[GrantRecord, ...]
    events: tuple[InboxRow, ...]


async def find(
    connection: AsyncConnection, pair: Pair, text: str, *, limit: int, after: str, now: float
) -> list[CustomerSummary]:
    """Customers beyond `after` whose own name or Stripe id holds `text`, in any case; all where it is empty."""
    if "\x00" in text:  # no name holds it, and PostgreSQL takes no such parameter
        return []
    name = customers.c.customer
    query = select(name).where(name > after).order_by(name).limit(limit)
    if text:
        wanted = text.lower()
        linked = select(stripe_customers.c.customer).where(
            of_pair(stripe_customers, pair), func.lower(stripe_customers.c.id).contains(wanted, autoescape=True)
        )
        query = query.where(or_(func.lower(name).contains(wanted, autoescape=True), name.in_(linked)))
    names = list((await connection.execute(query)).scalars())
    facts = await facts_of(connection, pair, names, now)
    links: dict[str, list[LinkRecord]] = {}
    for link in await _links(connection, pair, names):
        links.setdefault(link.owner, []).append(link)
    return [
        CustomerSummary(
            facts[name],
            tuple(link.stripe_customer for link in links.get(name, ())),
            any(link.claimed_by is not None for link in links.get(name, ())),
        )
        for name in names
    ]


async def look_up(connection: AsyncConnection, pair: Pair, customer: str, now: float) -> CustomerRecord | None:
    """Everything on record of one customer, or None where nothing is."""
    query = select(customers.c.created_at, customers.c.blocked_by, customers.c.blocked_at)
    own = (await connection.execute(query.where(customers.c.customer == customer))).first()
    if own is None:
        return None
    links = await _links(connection, pair, [customer])
    mine = tuple(link for link in links if link.owner == customer)
    given = select(*(grants.c[name] for name in GrantRecord.__slots__)).where(grants.c.customer == customer)
    events = (
        select(*ROW)
        .where(of_pair(inbox, pair), inbox.c.stripe_customer.in_([link.stripe_customer for link in mine]))
        .order_by(inbox.c.seq.desc())
        .limit(_MOST_EVENTS)
    )
    return CustomerRecord(
        facts=(await facts_of(connection, pair, [customer], now))[customer],
        created_at=own.created_at,
        blocked_by=own.blocked_by,
        blocked_at=own.blocked_at,
        links=mine,
        conflicts=tuple(link for link in links if link.claimed_by is not None),
        grants=tuple(GrantRecord(*row) for row in await connection.execute(given.order_by(grants.c.id))),
        events=tuple(event_of(row) for row in await connection.execute(events)),
    )


async def _links(connection: AsyncConnection, pair: Pair, names: list[str]) -> list[LinkRecord]:
    table = stripe_customers
    query = (
        select(
            table.c.id,
            table.c.customer,
            table.c.linked_by,
            table.c.conflict_customer,
            table.c.fetched_at,
            table.c.next_edge_at,
            table.c.deleted,
        )
        .where(of_pair(table, pair), table.c.customer.is_not(None))
        .where(or_(table.c.customer.in_(names), table.c.conflict_customer.in_(names)))
        .order_by(table.c.created_at, table.c.id)
    )
    return [LinkRecord(*row) for row in await connection.execute(query)]
