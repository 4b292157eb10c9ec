"""Facts in the ledger: how subscriptions are written, and how everything about a customer is read in one snapshot.

It decides how old facts are and until when they are in doubt. It must never compute a tier or a verdict.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select

from admin.ledger.tables import checkout_sessions, customers, grants, inbox, stripe_customers
from policies.facts import CustomerFacts, GrantFact, SubscriptionFact, subscription_from

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import BindParameter, ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.pair import Pair

DOUBT_SECONDS: Final = 86_400
"""How long a pending event, or a link whose Stripe customer was never fetched, makes the facts doubtful from a reading on."""


def encode_subscriptions(subscriptions: Iterable[SubscriptionFact]) -> str:
    """Ordered by id, so that the same facts are the same text."""
    ordered = sorted(subscriptions, key=lambda subscription: subscription.id)
    return json.dumps([asdict(subscription) for subscription in ordered], separators=(",", ":"))


def decode_subscriptions(text: str) -> tuple[SubscriptionFact, ...]:
    """What `encode_subscriptions` wrote. Anything else is a broken ledger and raises ValueError, TypeError or KeyError."""
    return tuple(subscription_from(entry) for entry in json.loads(text))


# Built once: this is what a request waits for at the first sight of a customer, and building costs as much as running.
_NAMES: Final[BindParameter[str]] = bindparam("names", expanding=True)


def _of_pair(table: Table) -> ColumnElement[bool]:
    return (table.c.account == bindparam("account")) & (table.c.livemode == bindparam("livemode"))


_SESSION_UNTIL: Final = (
    select(func.max(checkout_sessions.c.expires_at))
    .where(_of_pair(checkout_sessions), checkout_sessions.c.customer == customers.c.customer)
    .where(checkout_sessions.c.status == "open")
    .correlate(customers)
    .scalar_subquery()
)
_EVENT_PENDING: Final = (
    select(inbox.c.seq)
    .where(_of_pair(inbox), inbox.c.status == "pending", inbox.c.doubted_at.is_not(None))
    .where(_of_pair(stripe_customers), stripe_customers.c.id == inbox.c.stripe_customer)
    .where(stripe_customers.c.customer == customers.c.customer)
    .correlate(customers)
    .exists()
)
_OWN: Final = select(
    customers.c.customer, customers.c.version, customers.c.blocked_reason, _SESSION_UNTIL, _EVENT_PENDING
).where(customers.c.customer.in_(_NAMES))

_FETCHED: Final = (
    select(
        stripe_customers.c.customer,
        *(stripe_customers.c[name] for name in ("facts", "fetched_at", "deleted", "features")),
    )
    .where(_of_pair(stripe_customers), stripe_customers.c.customer.in_(_NAMES))
    .order_by(stripe_customers.c.created_at, stripe_customers.c.id)
)
_GRANTS: Final = (
    select(grants.c.customer, *(grants.c[name] for name in ("id", "tier", "until", "reason", "by")))
    .where(grants.c.customer.in_(_NAMES), grants.c.revoked_at.is_(None))
    .order_by(grants.c.id)
)


async def facts_of(
    connection: AsyncConnection, pair: Pair, names: Collection[str], now: float
) -> dict[str, CustomerFacts]:
    """The facts of each of these customers; those that the ledger has never heard of are left out."""
    wanted = {"names": list(names), "account": pair.account, "livemode": pair.livemode}
    own = (await connection.execute(_OWN, wanted)).all()
    if not own:
        return {}
    subscriptions, fetched_at, features = _by_customer(await connection.execute(_FETCHED, wanted))
    given: dict[str, list[GrantFact]] = {}
    for row in await connection.execute(_GRANTS, {"names": wanted["names"]}):
        given.setdefault(row.customer, []).append(GrantFact(*row[1:]))
    found: dict[str, CustomerFacts] = {}
    for customer, version, blocked, open_until, pending in own:
        never_fetched = customer in fetched_at and fetched_at[customer] is None
        doubts = (open_until or 0, int(now) + DOUBT_SECONDS if pending or never_fetched else 0)
        found[customer] = CustomerFacts(
            customer=customer,
            version=version,
            subscriptions=tuple(subscriptions.get(customer, ())),
            grants=tuple(given.get(customer, ())),
            blocked=blocked,
            fetched_at=fetched_at.get(customer),
            doubtful_until=max(doubts) if max(doubts) > now else None,
            features=tuple(sorted(features.get(customer, ()))),
        )
    return found


def _by_customer(
    rows: Iterable[Any],
) -> tuple[dict[str, list[SubscriptionFact]], dict[str, int | None], dict[str, set[str]]]:
    """What was fetched of each customer, when the part that was fetched longest ago, and what Stripe grants."""
    features: dict[str, set[str]] = {}
    subscriptions: dict[str, list[SubscriptionFact]] = {}
    living: dict[str, list[int | None]] = {}
    deleted: dict[str, list[int | None]] = {}
    for customer, text, at, is_deleted, granted in rows:
        if granted != "[]" and not is_deleted:
            features.setdefault(customer, set()).update(json.loads(granted))
        subscriptions.setdefault(customer, []).extend(decode_subscriptions(text))
        (deleted if is_deleted else living).setdefault(customer, []).append(at)
    # One that was never fetched makes the whole never fetched: it may hold what was paid for. A Stripe customer that
    # was deleted can't come back, so how long ago that was seen says nothing about the others.
    oldest = {
        customer: None if None in times else min(time for time in times if time is not None)
        for customer, times in (deleted | living).items()
    }
    return subscriptions, oldest, features
