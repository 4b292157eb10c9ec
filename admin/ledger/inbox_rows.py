"""Events as the inbox keeps them, and the two statements by which a sync answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import Row, select, update

from admin.ledger.sql import in_batches, of_pair
from admin.ledger.tables import inbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.pair import Pair

Status = Literal["pending", "done", "ignored", "dead"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
CANCELLATIONS: Final = (
    "customer.deleted",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.unpaid",
)
"""Events that may end somebody's access: worked off before all others."""


@dataclass(frozen=True, slots=True)
class InboxEvent:
    """What is kept of an event. `snapshot_event` is the id of the snapshot twin of a thin one."""

    pair: Pair
    event_id: str
    type: str
    object_id: str | None
    stripe_customer: str | None
    wire: Literal["snapshot", "thin"]
    created: int
    received_at: int
    snapshot_event: str | None = None
    api_version: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """Whether the event is new; a duplicate that is still pending is to be tried again."""

    status: Literal["new", "duplicate_pending", "duplicate_done"]


@dataclass(frozen=True, slots=True)
class InboxRow:
    """An event and what became of it."""

    seq: int
    event_id: str
    type: str
    object_id: str | None
    stripe_customer: str | None
    wire: str
    snapshot_event: str | None
    api_version: str | None
    created: int
    received_at: int
    status: Status
    outcome: str
    attempts: int
    next_attempt_at: int
    doubted_at: int | None
    error: str


@dataclass(frozen=True, slots=True)
class DueWork:
    """Pending events that one fetch answers: all of one Stripe customer, or a single one that names none."""

    stripe_customer: str | None
    events: tuple[InboxRow, ...]

    @property
    def event_ids(self) -> tuple[str, ...]:
        """Ids of all the events, oldest first."""
        return tuple(event.event_id for event in self.events)


ROW = tuple(inbox.c[name] for name in InboxRow.__slots__)


async def pending_for(connection: AsyncConnection, pair: Pair, stripe_customer: str) -> frozenset[str]:
    """Ids of the events that a fetch of this Stripe customer, started now, will answer: given up ones, too."""
    query = select(inbox.c.event_id).where(of_pair(inbox, pair), inbox.c.stripe_customer == stripe_customer)
    return frozenset((await connection.execute(query.where(inbox.c.status.in_(("pending", "dead"))))).scalars())


async def settle(connection: AsyncConnection, pair: Pair, event_ids: Iterable[str]) -> None:
    """These events are answered, given up or not."""
    for batch in in_batches(sorted(event_ids)):
        mine = inbox.c.event_id.in_(batch) & inbox.c.status.in_(("pending", "dead"))
        await connection.execute(
            update(inbox).where(of_pair(inbox, pair), mine).values(status="done", outcome="synced", error="")
        )


def event_of(row: Row[Any]) -> InboxRow:
    """One row of `ROW`."""
    return InboxRow(**row._mapping)  # noqa: SLF001 -- SQLAlchemy's documented name for the row as a mapping
