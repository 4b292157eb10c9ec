"""What an event is about, from its wire form: snapshot (`event`) or thin (`v2.core.event`).

It decides the event's id, type, account and mode, and which object or Stripe customer deserves a look. It must never
hand on anything of the payload that could be taken for the truth: no status, no item, no date of a subscription.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from admin.ledger.inbox_rows import CANCELLATIONS
from admin.stripe.fields import Json, UnreadableError, child, identifier, mapping, moment, reference, required_id
from admin.stripe.objects import Malformed, customer_of

Wire: TypeAlias = Literal["snapshot", "thin"]

_THIN_PREFIX: Final = "v1."

_LOOK: Final = (
    "customer.subscription.",
    "checkout.session.",
    "invoice.",
    "charge.refunded",
    "charge.dispute.",
    "subscription_schedule.",
    "entitlements.active_entitlement_summary.",
)
_LOOK_EXACTLY: Final = frozenset({"customer.created", "customer.updated", "customer.deleted"})
_CATALOG: Final = ("price.", "product.", "plan.")


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event, reduced to whose it is. `type` is without the `v1.` that thin events put before it."""

    event_id: str
    type: str
    wire: Wire
    created: int
    api_version: str | None
    livemode: bool
    account: str | None
    object_id: str | None
    stripe_customer: str | None
    snapshot_event: str | None

    @property
    def is_cancellation(self) -> bool:
        """Somebody may lose access: looked at before the others."""
        return is_cancellation(self.type)


def is_cancellation(event_type: str) -> bool:
    """Whether an event of this type may end somebody's access."""
    return event_type in CANCELLATIONS


def concerns_a_customer(event_type: str) -> bool:
    """Whether an event of this type is a reason to look at a customer."""
    return event_type.startswith(_LOOK) or event_type in _LOOK_EXACTLY


def concerns_the_catalog(event_type: str) -> bool:
    """Whether an event of this type may change what is on sale."""
    return event_type.startswith(_CATALOG)


def read_envelope(body: bytes) -> Envelope | Malformed:
    """The event in a verified body. Never raises, whatever was signed."""
    try:
        return envelope_of(json.loads(body))
    except (ValueError, RecursionError):
        # ValueError: not UTF-8, not JSON, or a number of more digits than Python converts.
        return Malformed("the body is not JSON")


def envelope_of(source: object) -> Envelope | Malformed:
    """The event in parsed JSON, as in a webhook or in a page of `/v1/events`."""
    try:
        event = mapping(source, "the body")
        kind = event.get("object")
        if kind == "event":
            return _snapshot(event)
        if kind == "v2.core.event":
            return _thin(event)
        return Malformed("the body is not an event")
    except UnreadableError as problem:
        return Malformed(str(problem))


def _snapshot(event: Json) -> Envelope:
    event_id = required_id(event, "id", "the event")
    event_type = required_id(event, "type", "the event")
    about = child(child(event, "data"), "object")
    is_customer = about.get("object") == "customer"
    return Envelope(
        event_id=event_id,
        type=event_type,
        wire="snapshot",
        created=moment(event, "created", "the event") or 0,
        api_version=identifier(event.get("api_version")),
        livemode=_livemode(event),
        account=identifier(event.get("account")),
        object_id=identifier(about.get("id")),
        stripe_customer=identifier(about.get("id")) if is_customer else customer_of(about),
        snapshot_event=None,
    )


def _thin(event: Json) -> Envelope:
    event_id = required_id(event, "id", "the event")
    related = child(event, "related_object")
    object_id = identifier(related.get("id"))
    is_customer = related.get("type") in {"customer", "v1.customer"}
    return Envelope(
        event_id=event_id,
        type=required_id(event, "type", "the event").removeprefix(_THIN_PREFIX),
        wire="thin",
        created=_instant(event.get("created")),
        api_version=None,
        livemode=_livemode(event),
        account=_context_account(event.get("context")),
        object_id=object_id,
        stripe_customer=object_id if is_customer else None,
        snapshot_event=reference(event.get("snapshot_event")),
    )


def _livemode(event: Json) -> bool:
    livemode = event.get("livemode")
    if not isinstance(livemode, bool):
        raise UnreadableError("the event names no mode")
    return livemode


def _context_account(context: object) -> str | None:
    """A context is an account, or a path that ends with one (``org_…/acct_…``)."""
    if isinstance(context, str) and context:
        return identifier(context.rsplit("/", 1)[-1])
    return None


def _instant(value: object) -> int:
    """Thin events write ISO 8601; only shown to people, so an odd one is 0 rather than a refusal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(0, min(value, 1 << 40))
    if not isinstance(value, str):
        return 0
    try:
        return max(0, int(datetime.fromisoformat(value).timestamp()))
    except (ValueError, OverflowError):
        return 0
