"""Thin events: notifications that only name what changed, as Stripe's event destinations send them.

It decides their shape and ids. It must never carry the object itself: the receiver is to fetch it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from admin.simulator.protocol import Endpoint
from admin.simulator.wire import missing

if TYPE_CHECKING:
    from admin.simulator.entities import Event
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

Payload = Literal["snapshot", "thin", "both"]
PAYLOADS: Final[tuple[Payload, ...]] = ("snapshot", "thin", "both")
_SUFFIX: Final = "_thin"
_URLS: Final = {
    "customer": "/v1/customers/",
    "subscription": "/v1/subscriptions/",
    "invoice": "/v1/invoices/",
    "product": "/v1/products/",
    "price": "/v1/prices/",
    "checkout.session": "/v1/checkout/sessions/",
    "billing_portal.configuration": "/v1/billing_portal/configurations/",
    "charge": "/v1/charges/",
    "refund": "/v1/refunds/",
    "dispute": "/v1/disputes/",
}


def thin_json(event: Event, *, beside_snapshot: bool) -> Json:
    """The notification of an event. Beside a snapshot it names that, so that receivers of both can tell."""
    kind, identifier = str(event.object["object"]), str(event.object.get("id"))
    created = datetime.fromtimestamp(event.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    request = {"id": event.request, "idempotency_key": event.idempotency_key}
    notification: Json = {
        "id": event.id + _SUFFIX,
        "object": "v2.core.event",
        "type": f"v1.{event.type}",
        "created": created,
        "livemode": False,
        "context": None,
        "reason": {"type": "request", "request": request} if event.request is not None else None,
    }
    if kind in _URLS:
        notification["related_object"] = {"id": identifier, "type": kind, "url": _URLS[kind] + identifier}
    if beside_snapshot:
        notification["snapshot_event"] = event.id
    return notification


def _get(call: Call) -> Json:
    identifier = call.path["id"]
    event = call.world.store.events.get(identifier.removesuffix(_SUFFIX))
    if event is None or not identifier.endswith(_SUFFIX):
        raise missing("event", identifier[:255])
    return thin_json(event, beside_snapshot=False)


ENDPOINTS = (Endpoint("GET", "/v2/core/events/{id}", _get),)
