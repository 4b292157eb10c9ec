"""The inbox: every event that Stripe was told is received, and what became of it.

An event is stored by its id before the 2xx and leaves `pending` only in the transaction that wrote what it announced, so
a crash at any point loses nothing. An event is a reason to look, never the truth: nothing of its payload is kept here
but what says where to look (docs/design.md, section 6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, delete, func, select, update

from admin.ledger.changes import bump
from admin.ledger.inbox_rows import CANCELLATIONS, ROW, DueWork, InboxEvent, InboxRow, Status, Stored, event_of
from admin.ledger.sql import in_batches, insert_into, of_pair
from admin.ledger.tables import inbox, stripe_customers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair

__all__ = ["DueWork", "Inbox", "InboxEvent", "InboxRow", "Status", "Stored"]

INLINE_SECONDS: Final = 10
"""A new event is left to whoever stored it for so long; then the worker takes it for orphaned."""

_FIRST_RETRY_SECONDS: Final = 5
_LONGEST_RETRY_SECONDS: Final = 3600
_LONGEST_ERROR: Final = 500
_EVENTS_OF_A_PIECE: Final = 20
"""More than a renewal has: so many rows in turn name as many customers as were asked for, if there are so many."""


class Inbox:
    """Events and their fate."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, event: InboxEvent, now: float, *, status: Status = "pending", outcome: str = "") -> Stored:
        """Before the 2xx. `ignored` with an outcome records an event of another mode or account without effect."""
        values = _row(event, now, status, outcome)
        async with self._database.write() as connection:
            made = insert_into(connection, inbox).values(**values).on_conflict_do_nothing().returning(inbox.c.seq)
            if (await connection.execute(made)).first() is not None:
                return Stored("new")
            known = select(inbox.c.status).where(of_pair(inbox, event.pair), inbox.c.event_id == event.event_id)
            stored = (await connection.execute(known)).scalar_one()
            return Stored("duplicate_pending" if stored == "pending" else "duplicate_done")

    async def known(self, pair: Pair, event_ids: Sequence[str]) -> set[str]:
        """Which of these are here, whatever became of them."""
        found: set[str] = set()
        async with self._database.read() as connection:
            for batch in in_batches(event_ids):
                query = select(inbox.c.event_id).where(of_pair(inbox, pair), inbox.c.event_id.in_(batch))
                found.update((await connection.execute(query)).scalars())
        return found

    async def store_all(self, events: Iterable[InboxEvent], now: float) -> set[str]:
        """`store` for many, in one transaction: the ids of those that were new."""
        # In one order, so that two processes that read the same page don't wait for each other.
        rows = [_row(event, now) for event in sorted(events, key=lambda event: event.event_id)]
        async with self._database.write() as connection:
            made = insert_into(connection, inbox).on_conflict_do_nothing().returning(inbox.c.event_id)
            return set((await connection.execute(made, rows)).scalars())

    async def mark_doubted(self, pair: Pair, event_id: str, now: float) -> int | None:
        """The inline attempt did not complete: the worker's turn, and until then the customer's facts are in doubt.

        The customer's new version, or None where the event is settled or its Stripe customer is nobody's.
        """
        async with self._database.write() as connection:
            event = (await connection.execute(_pending(pair, event_id))).first()
            if event is None:
                return None
            version = await _bump_owner(connection, pair, event.stripe_customer, now)
            doubted = update(inbox).where(of_pair(inbox, pair), inbox.c.event_id == event_id)
            await connection.execute(doubted.values(doubted_at=int(now), next_attempt_at=int(now)))
            return version

    async def due(self, pair: Pair, now: float, limit: int) -> list[DueWork]:
        """What the worker is to do now: cancellations first, then what is due longest. At most `limit` pieces."""
        # By the index of what is due and no further than it takes: a business that is taken over has a month's events here,
        # and to look at them all for each hundred takes longer than a transaction may.
        waiting = select(inbox.c.seq, inbox.c.stripe_customer).where(of_pair(inbox, pair), inbox.c.status == "pending")
        waiting = waiting.where(inbox.c.next_attempt_at <= int(now))
        urgent = waiting.where(inbox.c.type.in_(CANCELLATIONS)).order_by(inbox.c.seq).limit(limit)
        others = waiting.order_by(inbox.c.next_attempt_at, inbox.c.seq).limit(limit * _EVENTS_OF_A_PIECE)
        async with self._database.read() as connection:
            found = [*await connection.execute(urgent), *await connection.execute(others)]
            keys = list(dict.fromkeys((row.stripe_customer, 0 if row.stripe_customer else row.seq) for row in found))
            named = [customer for customer, _ in keys[:limit] if customer is not None]
            singles = [seq for customer, seq in keys[:limit] if customer is None]
            query = select(*ROW).where(of_pair(inbox, pair), inbox.c.status == "pending").order_by(inbox.c.seq)
            events = [
                event_of(row)
                for mine in (inbox.c.stripe_customer.in_(named), inbox.c.seq.in_(singles))
                for row in await connection.execute(query.where(mine))
            ]
        pieces: dict[tuple[str | None, int], list[InboxRow]] = {key: [] for key in keys[:limit]}
        for event in events:
            pieces[event.stripe_customer, 0 if event.stripe_customer else event.seq].append(event)
        return [DueWork(customer, tuple(mine)) for (customer, _), mine in pieces.items()]

    async def record_failure(
        self, pair: Pair, event_ids: Iterable[str], error: str, now: float, give_up_after: int
    ) -> None:
        """One more attempt has failed: wait twice as long as before, and after `give_up_after` attempts set it aside."""
        attempts = inbox.c.attempts + 1
        wait = case(
            (inbox.c.attempts >= 10, _LONGEST_RETRY_SECONDS),
            *((inbox.c.attempts == tries, _retry_seconds(tries)) for tries in range(10)),
            else_=_LONGEST_RETRY_SECONDS,
        )
        failed = update(inbox).values(
            attempts=attempts,
            next_attempt_at=int(now) + wait,
            status=case((attempts >= give_up_after, "dead"), else_="pending"),
            error=error[:_LONGEST_ERROR],
        )
        async with self._database.write() as connection:
            for batch in in_batches(sorted(event_ids)):
                mine = inbox.c.event_id.in_(batch) & (inbox.c.status == "pending")
                await connection.execute(failed.where(of_pair(inbox, pair), mine))

    async def mark(self, pair: Pair, event_id: str, status: Status, outcome: str, now: float) -> None:
        """Settle one event that concerns no Stripe customer, or is not for us."""
        async with self._database.write() as connection:
            event = (await connection.execute(_pending(pair, event_id))).first()
            if event is not None and event.doubted_at is not None:
                await _bump_owner(connection, pair, event.stripe_customer, now)
            settled = update(inbox).where(of_pair(inbox, pair), inbox.c.event_id == event_id)
            await connection.execute(settled.values(status=status, outcome=outcome))

    async def replay(self, pair: Pair, event_id: str, now: float) -> bool:
        """Have an event worked off again, whatever became of it. False where it is unknown."""
        again = update(inbox).where(of_pair(inbox, pair), inbox.c.event_id == event_id)
        async with self._database.write() as connection:
            values = {"status": "pending", "attempts": 0, "next_attempt_at": int(now), "error": "", "outcome": ""}
            # What was settled once is no reason to doubt the facts that are there.
            doubted_at = case((inbox.c.status == "pending", inbox.c.doubted_at), else_=None)
            return (await connection.execute(again.values(**values, doubted_at=doubted_at))).rowcount > 0

    async def settled_twin(self, pair: Pair, event_id: str, snapshot_event: str | None) -> str | None:
        """The other form of this event, where it has been acted on: Stripe may send each thin and as a snapshot."""
        twin = inbox.c.event_id == snapshot_event if snapshot_event else inbox.c.snapshot_event == event_id
        query = select(inbox.c.event_id).where(of_pair(inbox, pair), twin, inbox.c.status == "done").limit(1)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def search(
        self,
        pair: Pair,
        *,
        status: Status | None = None,
        type: str | None = None,  # noqa: A002 -- Stripe's own word
        stripe_customer: str | None = None,
        before_seq: int | None = None,
        limit: int = 50,
    ) -> list[InboxRow]:
        """Events, newest first; `before_seq` is the last `seq` of the page before."""
        query = select(*ROW).where(of_pair(inbox, pair))
        for column, wanted in ((inbox.c.status, status), (inbox.c.type, type)):
            query = query if wanted is None else query.where(column == wanted)
        if stripe_customer is not None:
            query = query.where(inbox.c.stripe_customer == stripe_customer)
        if before_seq is not None:
            query = query.where(inbox.c.seq < before_seq)
        async with self._database.read() as connection:
            return [event_of(row) for row in await connection.execute(query.order_by(inbox.c.seq.desc()).limit(limit))]

    async def get(self, pair: Pair, event_id: str) -> InboxRow | None:
        """One event."""
        query = select(*ROW).where(of_pair(inbox, pair), inbox.c.event_id == event_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else event_of(row)

    async def lag(self, pair: Pair, now: float) -> float:
        """Seconds since the oldest pending event was received; 0 where none is."""
        oldest = select(func.min(inbox.c.received_at)).where(of_pair(inbox, pair), inbox.c.status == "pending")
        async with self._database.read() as connection:
            at: int | None = (await connection.execute(oldest)).scalar_one()
        return 0.0 if at is None else max(0.0, now - at)

    async def counts(self, pair: Pair) -> dict[str, int]:
        """How many events are in each status."""
        query = select(inbox.c.status, func.count()).where(of_pair(inbox, pair)).group_by(inbox.c.status)
        async with self._database.read() as connection:
            return dict((await connection.execute(query)).all())

    async def prune(self, before: float) -> int:
        """Delete settled events received before `before`; pending and dead ones stay until somebody dealt with them."""
        old = delete(inbox).where(inbox.c.received_at < int(before), inbox.c.status.in_(("done", "ignored")))
        async with self._database.write() as connection:
            return (await connection.execute(old)).rowcount


def _row(event: InboxEvent, now: float, status: Status = "pending", outcome: str = "") -> dict[str, Any]:
    return {
        "account": event.pair.account,
        "livemode": event.pair.livemode,
        **{name: getattr(event, name) for name in _KEPT},
        "status": status,
        "outcome": outcome,
        "next_attempt_at": int(now) + INLINE_SECONDS,
    }


_KEPT = (
    "event_id", "type", "object_id", "stripe_customer", "wire", "snapshot_event", "api_version", "created", "received_at",
)  # fmt: skip


def _pending(pair: Pair, event_id: str) -> Any:
    columns = (inbox.c.stripe_customer, inbox.c.doubted_at)
    return select(*columns).where(of_pair(inbox, pair), inbox.c.event_id == event_id, inbox.c.status == "pending")


async def _bump_owner(connection: AsyncConnection, pair: Pair, stripe_customer: str | None, now: float) -> int | None:
    owner = select(stripe_customers.c.customer).where(of_pair(stripe_customers, pair))
    customer = (await connection.execute(owner.where(stripe_customers.c.id == stripe_customer))).scalar_one_or_none()
    return None if customer is None else await bump(connection, customer, now)


def _retry_seconds(tries: int) -> int:
    return min(_FIRST_RETRY_SECONDS << tries, _LONGEST_RETRY_SECONDS)
