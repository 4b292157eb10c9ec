"""Receives what Stripe sends: verify, store, acknowledge, and try at once to act on it.

It decides the status that Stripe sees. A 2xx is given only once the event is stored; anything wrong with the request is
a 400; a ledger that can't be reached is a 503, so that Stripe delivers again (docs/design.md, section 6). It must never let
a body or a header raise.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from admin.ledger.engine import LedgerDownError
from admin.ledger.inbox import Inbox, InboxEvent
from admin.ledger.pair import Pair
from admin.stripe.envelope import Envelope, concerns_a_customer, concerns_the_catalog, read_envelope
from admin.stripe.objects import Malformed
from admin.stripe.signature import NotSigned, check_signature, split_secrets
from admin.stripe.work import EventWork, NotYet, SetAside, settled_by_sync

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

INLINE_SECONDS: Final = 5.0
"""Hosted Checkout waits up to ten seconds for the 2xx before it sends the browser on."""

LARGEST_BODY: Final = 1 << 20
SKEW_WORTH_A_WARNING: Final = 5.0


class Reception(StrEnum):
    """What became of a delivery, as a metric may name it."""

    PROCESSED = "processed"
    PENDING = "pending"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    REJECTED = "rejected"
    NOT_STORED = "not_stored"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to Stripe. `event_type` is one of `KNOWN_TYPES` or `_other`: safe as a label."""

    status: int
    reception: Reception
    detail: str
    event_type: str | None = None
    skew_seconds: float | None = None


KNOWN_TYPES: Final = frozenset(
    {
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.refunded",
        "checkout.session.async_payment_failed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.completed",
        "checkout.session.expired",
        "customer.created",
        "customer.deleted",
        "customer.subscription.created",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.pending_update_applied",
        "customer.subscription.pending_update_expired",
        "customer.subscription.resumed",
        "customer.subscription.trial_will_end",
        "customer.subscription.updated",
        "customer.updated",
        "entitlements.active_entitlement_summary.updated",
        "invoice.marked_uncollectible",
        "invoice.paid",
        "invoice.payment_action_required",
        "invoice.payment_failed",
        "invoice.voided",
        "price.created",
        "price.deleted",
        "price.updated",
        "product.created",
        "product.deleted",
        "product.updated",
    }
)
"""What a webhook endpoint is to be subscribed to; `invoice.created` isn't here, it can hold invoices up for 72 h."""


class WebhookReceiver:
    """The webhook of one account in one mode."""

    def __init__(
        self,
        webhook_secrets: str,
        pair: Pair,
        inbox: Inbox,
        work: EventWork,
        *,
        wall: Callable[[], float],
        inline_seconds: float = INLINE_SECONDS,
    ) -> None:
        self._secrets = split_secrets(webhook_secrets)
        self._pair = pair
        self._inbox = inbox
        self._work = work
        self._wall = wall
        self._inline_seconds = inline_seconds

    def use_secrets(self, webhook_secrets: str) -> None:
        """From now on these are believed, and no other."""
        self._secrets = split_secrets(webhook_secrets)

    def __repr__(self) -> str:
        return f"WebhookReceiver(secrets={len(self._secrets)})"

    async def receive(self, body: bytes, signature_header: str | None, wall_now: float) -> Verdict:
        """The answer to one delivery."""
        if len(body) > LARGEST_BODY:
            return Verdict(400, Reception.REJECTED, "the body is too large")
        signed = check_signature(body, signature_header, self._secrets, wall_now)
        if isinstance(signed, NotSigned):
            return Verdict(400, Reception.REJECTED, signed.detail)
        skew = signed.skew_seconds
        if abs(skew) > SKEW_WORTH_A_WARNING:
            _log.warning("a webhook was signed %.0f s from our time: check the clock", skew)
        envelope = read_envelope(body)
        if isinstance(envelope, Malformed):
            return Verdict(400, Reception.REJECTED, envelope.detail, skew_seconds=skew)
        label = envelope.type if envelope.type in KNOWN_TYPES else "_other"
        try:
            reception, detail = await self._take(envelope, wall_now)
        except (LedgerDownError, SQLAlchemyError) as problem:
            _log.warning("a webhook could not be stored: %s", type(problem).__name__)
            return Verdict(503, Reception.NOT_STORED, "the event could not be stored", label, skew)
        return Verdict(200, reception, detail, label, skew)

    async def _take(self, envelope: Envelope, wall_now: float) -> tuple[Reception, str]:
        foreign = self._foreign(envelope)
        if foreign is not None:
            await self._inbox.store(self._row(envelope, wall_now), wall_now, status="ignored", outcome=foreign)
            return Reception.IGNORED, foreign
        if not (concerns_a_customer(envelope.type) or concerns_the_catalog(envelope.type)):
            row = self._row(envelope, wall_now)
            await self._inbox.store(row, wall_now, status="ignored", outcome="changes no access")
            return Reception.IGNORED, "changes no access"
        stored = await self._inbox.store(self._row(envelope, wall_now), wall_now)
        if stored.status == "duplicate_done":
            return Reception.DUPLICATE, "known"
        return await self._act(envelope)

    async def _act(self, envelope: Envelope) -> tuple[Reception, str]:
        """From here on the event is stored, and nothing that goes wrong takes the 2xx back."""
        try:
            async with asyncio.timeout(self._inline_seconds):
                outcome = await self._work.process(envelope)
        except TimeoutError:
            outcome = NotYet("it takes longer than Stripe should wait")
        except (LedgerDownError, SQLAlchemyError) as problem:
            outcome = NotYet(f"the ledger failed: {type(problem).__name__}")
        if isinstance(outcome, SetAside):
            return Reception.DEAD, outcome.detail
        if not isinstance(outcome, NotYet):
            return Reception.PROCESSED, outcome.outcome
        _log.info("event %s is left to the worker: %s", envelope.event_id, outcome.detail)
        try:
            await self._inbox.mark_doubted(self._pair, envelope.event_id, self._wall())
        except (LedgerDownError, SQLAlchemyError) as problem:
            _log.warning("event %s could not be marked: %s", envelope.event_id, type(problem).__name__)
        return Reception.PENDING, outcome.detail

    def _foreign(self, envelope: Envelope) -> str | None:
        if envelope.livemode != self._pair.livemode:
            return "of the other mode"
        if envelope.account not in {None, self._pair.account}:
            return "of another account"
        return None

    def _row(self, envelope: Envelope, wall_now: float) -> InboxEvent:
        return inbox_event(envelope, self._pair, int(wall_now))


def inbox_event(envelope: Envelope, pair: Pair, received_at: int) -> InboxEvent:
    """The event as it is kept: under its own account and mode, whatever the configured ones are."""
    return InboxEvent(
        pair=Pair(envelope.account or pair.account, envelope.livemode),
        event_id=envelope.event_id,
        type=envelope.type,
        object_id=envelope.object_id,
        stripe_customer=envelope.stripe_customer if settled_by_sync(envelope.type) else None,
        wire=envelope.wire,
        created=envelope.created,
        received_at=received_at,
        snapshot_event=envelope.snapshot_event,
        api_version=envelope.api_version,
    )
