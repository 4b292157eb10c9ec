"""The browser is back from Checkout: look at once, whether or not the webhook was faster.

It decides by the session that Stripe has under this id, and only for sessions that we made. It must never say that
somebody paid because their browser says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from admin.stripe.budget import Priority
from admin.stripe.work import EventWork, NotYet

if TYPE_CHECKING:
    from admin.ledger.checkouts import Checkouts
    from admin.ledger.pair import Pair


@dataclass(frozen=True, slots=True)
class SessionSettled:
    """`complete`: the customer's facts are Stripe's, now. `open`: not paid yet. `expired`: can't be paid any more."""

    customer: str
    tier: str
    status: Literal["complete", "open", "expired"]


@dataclass(frozen=True, slots=True)
class NotOurs:
    """We made no such session."""


@dataclass(frozen=True, slots=True)
class CouldNotSettle:
    """Stripe could not be asked; the webhook or the worker will."""

    customer: str
    tier: str
    detail: str


SessionReturn: TypeAlias = SessionSettled | NotOurs | CouldNotSettle


class ReturnDesk:
    """Sessions of one account in one mode."""

    def __init__(self, work: EventWork, checkouts: Checkouts, pair: Pair) -> None:
        self._work = work
        self._checkouts = checkouts
        self._pair = pair

    async def settle_session(self, session_id: str) -> SessionReturn:
        """What became of a session. Raises LedgerDownError."""
        row = await self._checkouts.get(self._pair, session_id)
        if row is None:
            return NotOurs()
        if row.status != "open":
            return SessionSettled(row.customer, row.tier, row.status)
        outcome = await self._work.look_at_session(session_id, Priority.CUSTOMER)
        if isinstance(outcome, NotYet):
            return CouldNotSettle(row.customer, row.tier, outcome.detail)
        return SessionSettled(row.customer, row.tier, "expired" if outcome == "gone" else outcome)
