"""Checkout sessions that we opened: to reuse one, to know one of ours when the browser returns, and to doubt.

From the moment a session is open until it is seen to end, its customer may have paid without our knowing: opening and
closing one changes the customer's version. Attempts are counted so that an idempotency key names one try: two requests
at the same moment get the same number, hence from Stripe the same session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Row, Select, case, delete, select, update

from admin.ledger.changes import bump
from admin.ledger.sql import insert_into, of_pair
from admin.ledger.tables import checkout_attempts, checkout_sessions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database
    from admin.ledger.pair import Pair

SessionStatus = Literal["open", "complete", "expired"]


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """One session as Stripe made it. Its `url` lets anybody pay, and counts as a secret."""

    id: str
    customer: str
    tier: str
    price: str
    stripe_customer: str | None
    url: str
    status: SessionStatus
    created_at: int
    expires_at: int

    def __repr__(self) -> str:
        return f"CheckoutSession({self.id!r}, {self.customer!r}, {self.tier!r}, {self.status!r})"


class Checkouts:
    """Sessions and attempts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record_opened(
        self,
        pair: Pair,
        *,
        id: str,  # noqa: A002 -- Stripe's own word
        customer: str,
        tier: str,
        price: str,
        stripe_customer: str | None,
        url: str,
        expires_at: int,
        attempt: int,
        now: float,
    ) -> int:
        """Stripe made this session at try `attempt`. Recording it twice is once. The customer's new version."""
        async with self._database.write() as connection:
            version = await bump(connection, customer, now)
            made = insert_into(connection, checkout_sessions).values(
                account=pair.account,
                livemode=pair.livemode,
                id=id,
                customer=customer,
                tier=tier,
                price=price,
                stripe_customer=stripe_customer,
                url=url,
                status="open",
                created_at=int(now),
                expires_at=expires_at,
            )
            await connection.execute(made.on_conflict_do_nothing())
            await _spend(connection, pair, customer, attempt)
            return version

    async def open_for(self, pair: Pair, customer: str, now: float) -> list[CheckoutSession]:
        """The customer's sessions that can still be paid, newest first."""
        query = _sessions(pair).where(checkout_sessions.c.customer == customer)
        query = query.where(checkout_sessions.c.status == "open", checkout_sessions.c.expires_at > int(now))
        query = query.order_by(checkout_sessions.c.created_at.desc(), checkout_sessions.c.id)
        async with self._database.read() as connection:
            return [_session(row) for row in await connection.execute(query)]

    async def close(self, pair: Pair, session: str, status: SessionStatus, now: float) -> int | None:
        """It was seen to end. The customer's new version, or None where it is not ours or had ended before."""
        async with self._database.write() as connection:
            query = select(checkout_sessions.c.customer).where(
                _one(pair, session), checkout_sessions.c.status == "open"
            )
            customer = (await connection.execute(query)).scalar_one_or_none()
            if customer is None or status == "open":
                return None
            version = await bump(connection, customer, now)
            await connection.execute(update(checkout_sessions).where(_one(pair, session)).values(status=status))
            return version

    async def get(self, pair: Pair, session: str) -> CheckoutSession | None:
        """A session, if we made it."""
        async with self._database.read() as connection:
            row = (await connection.execute(_sessions(pair).where(checkout_sessions.c.id == session))).first()
        return None if row is None else _session(row)

    async def prune(self, before: float) -> int:
        """Delete sessions whose time to pay was over before `before`; attempts stay counted."""
        old = delete(checkout_sessions).where(checkout_sessions.c.expires_at < int(before))
        async with self._database.write() as connection:
            return (await connection.execute(old)).rowcount

    async def next_attempt_number(self, pair: Pair, customer: str) -> int:
        """The number to put into an idempotency key. Asking doesn't use it up; recording a session does."""
        query = select(checkout_attempts.c.number).where(of_pair(checkout_attempts, pair))
        async with self._database.read() as connection:
            number = (await connection.execute(query.where(checkout_attempts.c.customer == customer))).scalar()
        return 1 if number is None else int(number) + 1

    async def spend_attempt(self, pair: Pair, customer: str, attempt: int) -> None:
        """Stripe answered this try with an error, and would answer its key with the same one for a day."""
        async with self._database.write() as connection:
            await _spend(connection, pair, customer, attempt)


async def _spend(connection: AsyncConnection, pair: Pair, customer: str, attempt: int) -> None:
    number = checkout_attempts.c.number
    made = insert_into(connection, checkout_attempts)
    made = made.values(account=pair.account, livemode=pair.livemode, customer=customer, number=attempt)
    await connection.execute(
        made.on_conflict_do_update(
            index_elements=list(checkout_attempts.primary_key),
            set_={"number": case((number > attempt, number), else_=attempt)},
        )
    )


def _one(pair: Pair, session: str) -> Any:
    return of_pair(checkout_sessions, pair) & (checkout_sessions.c.id == session)


def _sessions(pair: Pair) -> Select[Any]:
    columns = (checkout_sessions.c[name] for name in CheckoutSession.__slots__)
    return select(*columns).where(of_pair(checkout_sessions, pair))


def _session(row: Row[Any]) -> CheckoutSession:
    return CheckoutSession(**row._mapping)  # noqa: SLF001 -- SQLAlchemy's documented name for the row as a mapping
