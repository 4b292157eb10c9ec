"""What an event sets in motion, inline at the webhook and later at the worker alike.

It decides by the event's type: look at a customer, look at a Checkout session, refresh what is on sale, or nothing. It
must never take a fact from the event. A session is closed in the ledger only after its customer was looked at, so that
no moment is left in which nobody doubts and nobody knows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from admin.ledger.stripe_customers import Conflict, StripeCustomers
from admin.stripe.budget import Priority
from admin.stripe.catalog import NotRefreshed, PriceCatalog
from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.envelope import concerns_a_customer, concerns_the_catalog, is_cancellation
from admin.stripe.fetch import Failed, failed
from admin.stripe.objects import Malformed, read_session
from admin.stripe.sync import CustomerSync, Superseded
from admin.stripe.whose import Gone, Nobodys, ObjectOwners, Untold

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.checkouts import Checkouts
    from admin.ledger.inbox import Inbox
    from admin.ledger.pair import Pair

_log = logging.getLogger(__name__)

_SESSION: Final = "checkout.session."

CROWD: Final = 60
"""More calls than Stripe takes from us in the time that a webhook waits: whoever came now would wait in vain."""


class Notice(Protocol):
    """What is known of an event, stored or just received."""

    @property
    def event_id(self) -> str:
        """Stripe's id of the event."""

    @property
    def type(self) -> str:
        """Without the prefix of thin events."""

    @property
    def object_id(self) -> str | None:
        """What happened to which object."""

    @property
    def stripe_customer(self) -> str | None:
        """Whose object, where the event says so."""

    @property
    def snapshot_event(self) -> str | None:
        """The id of a thin event's snapshot twin."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The event has had its effect, or has none. `repaired`: the ledger had held something else than Stripe says."""

    outcome: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class NotYet:
    """The event stays pending. `attempted` is False where another process is at it.

    `is_everybodys`: about others Stripe would not have answered either.
    """

    detail: str
    attempted: bool = True
    is_everybodys: bool = False


@dataclass(frozen=True, slots=True)
class SetAside:
    """The event was given up at once, visibly: trying again is no use before somebody has done what `detail` says."""

    detail: str


WorkOutcome: TypeAlias = Settled | NotYet | SetAside
SessionOutcome: TypeAlias = "Literal['complete', 'expired', 'open', 'gone'] | NotYet"


def settled_by_sync(event_type: str) -> bool:
    """Whether any sync of the customer answers such an event.

    A session's event says more, whose the customer is and that the session ended: it is stored without the customer,
    so that no sync settles it on the way.
    """
    return concerns_a_customer(event_type) and not event_type.startswith(_SESSION)


class EventWork:
    """The effects of events of one account in one mode."""

    def __init__(
        self,
        gateway: StripeGateway,
        sync: CustomerSync,
        catalog: PriceCatalog,
        *,
        pair: Pair,
        inbox: Inbox,
        stripe_customers: StripeCustomers,
        checkouts: Checkouts,
        now: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._sync = sync
        self._catalog = catalog
        self._pair = pair
        self._inbox = inbox
        self._stripe_customers = stripe_customers
        self._checkouts = checkouts
        self._now = now
        self._owners = ObjectOwners(gateway, reads_disputes=lambda: sync.wanted.disputes)

    async def process(self, notice: Notice, priority: Priority | None = None) -> WorkOutcome:
        """Have the event's effect, now. Raises LedgerDownError."""
        urgency = priority if priority is not None else _urgency(notice.type)
        at_the_door = priority is None
        if at_the_door and urgency is Priority.WEBHOOK and self._gateway.waiting >= CROWD:
            return NotYet("many others wait for Stripe", attempted=False)
        if notice.type.startswith(_SESSION):
            return await self._session_event(notice, urgency)
        if concerns_the_catalog(notice.type):
            refreshed = await self._catalog.refresh(urgency)
            if isinstance(refreshed, NotRefreshed):
                return NotYet(refreshed.detail)
            return await self._done(notice, "catalog refreshed")
        if not concerns_a_customer(notice.type):
            return await self._ignored(notice)
        # At the door only: what is left to the worker, or replayed, is looked at whatever became of its twin.
        twin = (
            await self._inbox.settled_twin(self._pair, notice.event_id, notice.snapshot_event) if at_the_door else None
        )
        if twin is not None:
            return await self._done(notice, f"as {twin}")
        if notice.stripe_customer is not None:
            return await self.look_at(notice.stripe_customer, urgency)  # whose ticket settles the event
        return await self._resolve(notice, urgency)

    async def look_at(self, stripe_customer: str, priority: Priority) -> Settled | NotYet:
        """Sync one customer."""
        outcome = await self._sync.sync_customer(stripe_customer, priority)
        if isinstance(outcome, Failed):
            return NotYet(outcome.detail, is_everybodys=outcome.unavailable)
        if isinstance(outcome, Superseded):
            return NotYet("a newer look is under way", attempted=False)
        return Settled("synced", outcome.repaired)

    async def look_at_session(self, session_id: str, priority: Priority) -> SessionOutcome:
        """Fetch a Checkout session: link and look at its customer if it is complete, close it if it ended."""
        answer = await self._gateway.get(path("checkout", "sessions", session_id), priority=priority)
        if isinstance(answer, StripeRefused) and answer.is_missing:
            await self._checkouts.close(self._pair, session_id, "expired", self._now())
            return "gone"
        if isinstance(answer, StripeUnavailable | StripeRefused):
            return NotYet(failed(answer).detail)
        session = read_session(answer)
        if isinstance(session, Malformed):
            return NotYet(session.detail)
        if session.status == "complete":
            if session.stripe_customer is not None:
                outcome = await self._settle(session.stripe_customer, session.claim, priority)
                if isinstance(outcome, NotYet):
                    return outcome
            await self._checkouts.close(self._pair, session_id, "complete", self._now())
            return "complete"
        if session.status == "expired":
            await self._checkouts.close(self._pair, session_id, "expired", self._now())
            return "expired"
        return "open"

    async def _settle(self, stripe_customer: str, claim: str | None, priority: Priority) -> Settled | NotYet:
        if claim is not None:
            linked = await self._stripe_customers.link(
                self._pair, stripe_customer, claim, "checkout session", self._now()
            )
            if isinstance(linked, Conflict):
                claim = None  # recorded and shown; the first owner keeps it, and is looked at all the same
        return await self.look_at(stripe_customer, priority)

    async def _session_event(self, notice: Notice, priority: Priority) -> WorkOutcome:
        if notice.object_id is None:
            return await self._ignored(notice)
        outcome = await self.look_at_session(notice.object_id, priority)
        if isinstance(outcome, NotYet):
            return outcome
        if outcome == "open" and notice.stripe_customer is not None:
            looked = await self.look_at(notice.stripe_customer, priority)
            if isinstance(looked, NotYet):
                return looked
        return await self._done(notice, f"session {outcome}")

    async def _resolve(self, notice: Notice, priority: Priority) -> WorkOutcome:
        """A thin event names an object; whose it is, the object says."""
        whose = await self._owners.owner_of(notice.type, notice.object_id, notice.snapshot_event, priority)
        if isinstance(whose, Failed):
            return NotYet(whose.detail)
        if isinstance(whose, Untold):
            return await self._set_aside(notice, whose.detail)
        if isinstance(whose, Gone):
            return await self._done(notice, "its object is gone")
        if isinstance(whose, Nobodys):
            return await self._ignored(notice)
        looked = await self.look_at(whose.stripe_customer, priority)
        return await self._done(notice, "synced") if isinstance(looked, Settled) else looked

    async def _done(self, notice: Notice, outcome: str) -> Settled:
        await self._inbox.mark(self._pair, notice.event_id, "done", outcome, self._now())
        return Settled(outcome)

    async def _ignored(self, notice: Notice) -> Settled:
        await self._inbox.mark(self._pair, notice.event_id, "ignored", "changes no access", self._now())
        return Settled("ignored")

    async def _set_aside(self, notice: Notice, detail: str) -> SetAside:
        _log.warning("event %s is given up: %s", notice.event_id, detail)
        await self._inbox.record_failure(self._pair, [notice.event_id], detail, self._now(), give_up_after=1)
        return SetAside(detail)


def _urgency(event_type: str) -> Priority:
    return Priority.CANCELLATION if is_cancellation(event_type) else Priority.WEBHOOK
