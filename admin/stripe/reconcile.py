"""Finds what no webhook told: Stripe's own list of events, and every night everybody.

It decides from where on events are read again and whom the night looks at. It must never move its cursor past events
that were not stored, so a webhook that was down for days, or never set up, still ends in Stripe's truth (P6).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.stripe.budget import Priority
from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable
from admin.stripe.envelope import Envelope, concerns_a_customer, concerns_the_catalog, envelope_of
from admin.stripe.fetch import failed
from admin.stripe.fields import entries, reference
from admin.stripe.webhook import inbox_event
from admin.stripe.work import EventWork, NotYet, Settled
from admin.stripe.worker import FAILURES_IN_A_ROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.changes import Changes
    from admin.ledger.checkouts import Checkouts
    from admin.ledger.inbox import Inbox
    from admin.ledger.meta import Meta
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers

_log = logging.getLogger(__name__)

CATCH_UP_EVERY_SECONDS: Final = 600.0
NIGHT_EVERY_SECONDS: Final = 86_400.0
EVENTS_KEPT_SECONDS: Final = 30 * 86_400
"""Stripe lists events for thirty days."""

OVERLAP_SECONDS: Final = 600
"""`created` has whole seconds and events appear a little late: the last minutes are read again, and known by id."""

UNHEARD_AFTER_SECONDS: Final = 300
"""An event this old that the webhook never brought says that there may be no webhook."""

INBOX_DAYS: Final = 45
"""Stripe's dashboard and CLI may send an event again for thirty days."""

CHANGES_KEPT_SECONDS: Final = 86_400
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Stripe's events up to now are in the inbox. `unheard` of the `stored` ones should have come by webhook."""

    stored: int
    unheard: int


@dataclass(frozen=True, slots=True)
class NotCaughtUp:
    """The cursor stays where it was."""

    detail: str


@dataclass(frozen=True, slots=True)
class Night:
    """How many Stripe customers were looked at, of how many nothing was learned, and whether the last was reached.

    `repaired`: of how many the ledger had held something else than Stripe says.
    """

    looked: int
    failed: int
    finished: bool
    repaired: int = 0


class EventsCatchUp:
    """`GET /v1/events` from a cursor in the ledger."""

    def __init__(
        self,
        gateway: StripeGateway,
        inbox: Inbox,
        meta: Meta,
        pair: Pair,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._inbox = inbox
        self._meta = meta
        self._pair = pair
        self._now = now
        self._wall = wall
        self._meta_key = _key("events", pair)
        self.last: CaughtUp | NotCaughtUp | None = None
        self.unheard_at: float | None = None
        """When a reading last found events that the webhook should have brought: /readyz says so."""

    async def run_once(self) -> CaughtUp | NotCaughtUp:
        """Store every event since the cursor that the inbox lacks, for the worker. Raises LedgerDownError."""
        self.last = await self._read()
        if isinstance(self.last, CaughtUp) and self.last.unheard:
            self.unheard_at = self._wall()
            _log.warning("%d events never came by webhook: is the endpoint set up?", self.last.unheard)
        return self.last

    async def _read(self) -> CaughtUp | NotCaughtUp:
        stripe_now = int(self._now())
        cursor = await self._meta.get(self._meta_key)
        oldest = stripe_now - EVENTS_KEPT_SECONDS
        since = max(int(cursor) - OVERLAP_SECONDS, oldest) if cursor and cursor.isdecimal() else oldest
        read = await self._read_since(since, stripe_now - UNHEARD_AFTER_SECONDS)
        if isinstance(read, NotCaughtUp):
            return read
        newest, caught_up = read
        # Newest first is how Stripe lists: only a reading that reached the cursor may move it.
        await self._meta.set(self._meta_key, str(newest))
        return caught_up if cursor is not None else CaughtUp(caught_up.stored, 0)

    async def backfill(self, seconds: float) -> CaughtUp | NotCaughtUp:
        """Store what the inbox lacks of the events of the last `seconds`; the cursor stays. Raises LedgerDownError."""
        stripe_now = int(self._now())
        since = stripe_now - min(int(seconds), EVENTS_KEPT_SECONDS)
        read = await self._read_since(since, stripe_now - UNHEARD_AFTER_SECONDS)
        return read if isinstance(read, NotCaughtUp) else read[1]

    async def _read_since(self, since: int, unheard_before: int) -> tuple[int, CaughtUp] | NotCaughtUp:
        """When the newest event was made, and how many were stored."""
        newest, stored, unheard, after = since, 0, 0, None
        while True:
            query = {"created": {"gte": since}, "limit": _PAGE, **({"starting_after": after} if after else {})}
            page = await self._gateway.get("/v1/events", query, priority=Priority.EDGE)
            if isinstance(page, StripeUnavailable | StripeRefused):
                return NotCaughtUp(failed(page).detail)
            data = entries(page, "data")
            envelopes = [one for entry in data if isinstance(one := envelope_of(entry), Envelope)]
            newest = max((newest, *(envelope.created for envelope in envelopes)))
            news = await self._stored(envelopes)
            stored += len(news)
            unheard += sum(envelope.created < unheard_before for envelope in news)
            if page.get("has_more") is not True:
                break
            before, after = after, _last_id(data)
            if after is None or after == before:
                return NotCaughtUp("a page of Stripe's events says that there is more, but not after what")
        return newest, CaughtUp(stored, unheard)

    async def _stored(self, envelopes: list[Envelope]) -> list[Envelope]:
        """Those of a page that were news and are stored now: one look and, where there is any, one transaction."""
        ours = [envelope for envelope in envelopes if self._is_ours(envelope)]
        known = await self._inbox.known(self._pair, [envelope.event_id for envelope in ours])
        fresh = [envelope for envelope in ours if envelope.event_id not in known]
        if not fresh:
            return []
        wall = self._wall()
        rows = [inbox_event(envelope, self._pair, int(wall)) for envelope in fresh]
        stored = await self._inbox.store_all(rows, wall)
        return [envelope for envelope in fresh if envelope.event_id in stored]

    def _is_ours(self, envelope: Envelope) -> bool:
        if not (concerns_a_customer(envelope.type) or concerns_the_catalog(envelope.type)):
            return False
        return envelope.livemode == self._pair.livemode and envelope.account in {None, self._pair.account}


class NightlyDiff:
    """Everybody, at the lowest priority, from where the last night was cut off."""

    def __init__(
        self,
        work: EventWork,
        stripe_customers: StripeCustomers,
        meta: Meta,
        pair: Pair,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._work = work
        self._stripe_customers = stripe_customers
        self._meta = meta
        self._pair = pair
        self._wall = wall
        self._meta_key = _key("night", pair)

    async def due_in(self) -> float:
        """Seconds until the next night; none has been yet: a day from now, since a start reads events anyway."""
        state = await self._state()
        if state is None:
            await self._keep("", self._wall())
            return NIGHT_EVERY_SECONDS
        after, finished_at = state
        return 0.0 if after else max(0.0, finished_at + NIGHT_EVERY_SECONDS - self._wall())

    async def run_once(self) -> Night:
        """Look at every Stripe customer that the ledger knows. Raises LedgerDownError."""
        state = await self._state()
        after = state[0] if state else ""
        looked = without_news = repaired = in_a_row = 0
        while page := await self._stripe_customers.all_ids(self._pair, after, _PAGE):
            for stripe_customer in page:
                looked += 1
                outcome = await self._work.look_at(stripe_customer, Priority.NIGHTLY)
                repaired += isinstance(outcome, Settled) and outcome.repaired
                without_news += not isinstance(outcome, Settled)
                # What is wrong with a few neighbours must not keep the night from everybody behind them.
                in_a_row = in_a_row + 1 if isinstance(outcome, NotYet) and outcome.is_everybodys else 0
                if in_a_row == FAILURES_IN_A_ROW:
                    return Night(looked, without_news, finished=False, repaired=repaired)
            after = page[-1]
            await self._keep(after, self._wall())
        await self._keep("", self._wall())
        return Night(looked, without_news, finished=True, repaired=repaired)

    async def _state(self) -> tuple[str, float] | None:
        value = await self._meta.get(self._meta_key)
        try:
            after, at = json.loads(value) if value else (None, None)
        except (ValueError, TypeError):
            return None
        return (after, float(at)) if isinstance(after, str) and isinstance(at, int | float) else None

    async def _keep(self, after: str, at: float) -> None:
        await self._meta.set(self._meta_key, json.dumps([after, at]))


async def forget_old(
    inbox: Inbox, changes: Changes, checkouts: Checkouts, wall_now: float, *, publishes: bool
) -> tuple[int, int]:
    """Retention: settled events and published changes that nobody needs any more. How many of each were deleted.

    And Checkout sessions that could last be paid as long ago as an event is kept: whoever comes back from one is late.
    """
    events = await inbox.prune(wall_now - INBOX_DAYS * 86_400)
    await checkouts.prune(wall_now - INBOX_DAYS * 86_400)
    rows = await changes.prune(wall_now - CHANGES_KEPT_SECONDS, unpublished=not publishes)
    return events, rows


def _key(what: str, pair: Pair) -> str:
    return f"stripe.{what}.{pair.account}.{'live' if pair.livemode else 'test'}"


def _last_id(data: object) -> str | None:
    return reference(data[-1]) if isinstance(data, list | tuple) and data else None
