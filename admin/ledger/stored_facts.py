"""Facts in the ledger: how subscriptions are written, and how everything about a customer is read in one snapshot.

It decides how old facts are and until when they are in doubt. It must never compute a tier or a verdict.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from admin.ledger.sql import of_pair
from admin.ledger.tables import checkout_sessions, customers, grants, inbox, stripe_customers
from policies.facts import CustomerFacts, GrantFact, SubscriptionFact, subscription_from

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.pair import Pair

DOUBT_SECONDS: Final = 86_400
"""How long one pending event makes the facts doubtful, counted from each reading."""


def encode_subscriptions(subscriptions: Iterable[SubscriptionFact]) -> str:
    """Ordered by id, so that the same facts are the same text."""
    ordered = sorted(subscriptions, key=lambda subscription: subscription.id)
    return json.dumps([asdict(subscription) for subscription in ordered], separators=(",", ":"))


def decode_subscriptions(text: str) -> tuple[SubscriptionFact, ...]:
    """What `encode_subscriptions` wrote. Anything else is a broken ledger and raises ValueError, TypeError or KeyError."""
    return tuple(subscription_from(entry) for entry in json.loads(text))


async def facts_of(
    connection: AsyncConnection, pair: Pair, names: Collection[str], now: float
) -> dict[str, CustomerFacts]:
    """The facts of each of these customers; those that the ledger has never heard of are left out."""
    subscriptions, fetched_at = await _fetched(connection, pair, names)
    given = await _grants(connection, names)
    session_until = (
        select(func.max(checkout_sessions.c.expires_at))
        .where(of_pair(checkout_sessions, pair), checkout_sessions.c.customer == customers.c.customer)
        .where(checkout_sessions.c.status == "open")
        .scalar_subquery()
    )
    event_pending = (
        select(inbox.c.seq)
        .where(of_pair(inbox, pair), inbox.c.status == "pending", inbox.c.doubted_at.is_not(None))
        .where(of_pair(stripe_customers, pair), stripe_customers.c.id == inbox.c.stripe_customer)
        .where(stripe_customers.c.customer == customers.c.customer)
        .correlate(customers)
        .exists()
    )
    query = select(
        customers.c.customer, customers.c.version, customers.c.blocked_reason, session_until, event_pending
    ).where(customers.c.customer.in_(names))
    found: dict[str, CustomerFacts] = {}
    for customer, version, blocked, open_until, pending in await connection.execute(query):
        doubts = (open_until or 0, int(now) + DOUBT_SECONDS if pending else 0)
        found[customer] = CustomerFacts(
            customer=customer,
            version=version,
            subscriptions=tuple(subscriptions.get(customer, ())),
            grants=tuple(given.get(customer, ())),
            blocked=blocked,
            fetched_at=fetched_at.get(customer),
            doubtful_until=max(doubts) if max(doubts) > now else None,
        )
    return found


async def _fetched(
    connection: AsyncConnection, pair: Pair, names: Collection[str]
) -> tuple[dict[str, list[SubscriptionFact]], dict[str, int | None]]:
    """What was fetched of each customer, and when the part that was fetched longest ago."""
    table = stripe_customers
    query = select(table.c.customer, table.c.facts, table.c.fetched_at, table.c.deleted)
    query = query.where(of_pair(table, pair), table.c.customer.in_(names)).order_by(table.c.created_at, table.c.id)
    subscriptions: dict[str, list[SubscriptionFact]] = {}
    living: dict[str, list[int | None]] = {}
    deleted: dict[str, list[int | None]] = {}
    for customer, text, at, is_deleted in await connection.execute(query):
        subscriptions.setdefault(customer, []).extend(decode_subscriptions(text))
        (deleted if is_deleted else living).setdefault(customer, []).append(at)
    # One that was never fetched makes the whole never fetched: it may hold what was paid for. A Stripe customer that
    # was deleted can't come back, so how long ago that was seen says nothing about the others.
    oldest = {
        customer: None if None in times else min(time for time in times if time is not None)
        for customer, times in (deleted | living).items()
    }
    return subscriptions, oldest


async def _grants(connection: AsyncConnection, names: Collection[str]) -> dict[str, list[GrantFact]]:
    query = select(grants.c.customer, grants.c.id, grants.c.tier, grants.c.until, grants.c.reason, grants.c.by)
    query = query.where(grants.c.customer.in_(names), grants.c.revoked_at.is_(None)).order_by(grants.c.id)
    given: dict[str, list[GrantFact]] = {}
    for customer, *grant in await connection.execute(query):
        given.setdefault(customer, []).append(GrantFact(*grant))
    return given
