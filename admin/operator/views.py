"""Customers and events as the operator's API shows them: facts, and what they give right now.

The models are the API's documentation. Times are UTC seconds.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from admin.ledger.customer_records import CustomerRecord, CustomerSummary
from admin.ledger.inbox_rows import InboxRow
from policies.entitlement import Entitlement


class CustomerLine(BaseModel):
    """One customer in a list."""

    customer: str
    tier: str | None
    status: str
    access_until: int | None
    blocked: str | None
    stripe_customers: list[str]
    conflicted: bool


class EventLine(BaseModel):
    """One Stripe event as the inbox keeps it."""

    id: str
    type: str
    status: str
    outcome: str
    error: str
    stripe_customer: str | None
    created: int
    received_at: int
    attempts: int


class CustomerView(BaseModel):
    """A customer with everything on record, and why they have what they have."""

    customer: str
    tier: str | None
    status: str
    access_until: int | None
    features: list[str]
    blocked: str | None
    blocked_by: str | None
    version: int
    fetched_at: int | None
    may_be_stale: bool
    unmapped_subscriptions: list[str]
    subscriptions: list[dict[str, Any]]
    grants: list[dict[str, Any]]
    links: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]
    events: list[EventLine]


class Outcome(BaseModel):
    """What is now true, in a sentence."""

    detail: str


def customer_line(summary: CustomerSummary, entitlement: Entitlement, now: float) -> CustomerLine:
    """A line for a list."""
    standing = entitlement.at(now)
    return CustomerLine(
        customer=summary.customer,
        tier=standing.tier,
        status=standing.status,
        access_until=standing.access_until,
        blocked=summary.facts.blocked,
        stripe_customers=list(summary.stripe_customers),
        conflicted=summary.conflicted,
    )


def customer_view(record: CustomerRecord, entitlement: Entitlement, now: float) -> CustomerView:
    """Everything."""
    standing = entitlement.at(now)
    return CustomerView(
        customer=record.facts.customer,
        tier=standing.tier,
        status=standing.status,
        access_until=standing.access_until,
        features=list(standing.features),
        blocked=record.facts.blocked,
        blocked_by=record.blocked_by,
        version=record.facts.version,
        fetched_at=record.facts.fetched_at,
        may_be_stale=entitlement.may_be_stale(now),
        unmapped_subscriptions=list(entitlement.unmapped),
        subscriptions=[asdict(subscription) for subscription in record.facts.subscriptions],
        grants=[asdict(grant) for grant in record.grants],
        links=[asdict(link) for link in record.links],
        conflicts=[asdict(link) for link in record.conflicts],
        events=[event_line(event) for event in record.events],
    )


def event_line(event: InboxRow) -> EventLine:
    """A line for a list."""
    return EventLine(
        id=event.event_id,
        type=event.type,
        status=event.status,
        outcome=event.outcome,
        error=event.error,
        stripe_customer=event.stripe_customer,
        created=event.created,
        received_at=event.received_at,
        attempts=event.attempts,
    )
