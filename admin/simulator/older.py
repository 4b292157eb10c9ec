"""Objects as an older API version has them: the same facts, in the places they had then.

It decides what an object looked like before 2025-03-31 (basil: periods move to items, invoices and charges let go of each
other), 2025-09-30 (clover: a planned end at the period's end names its moment) and 2026-03-25 (dahlia: `ui_mode` gets
other words). It must never say anything else than the object of today does. An event keeps the version it was made in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from admin.simulator.objects import API_VERSION, plan_json, price_json
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.simulator.store import Store
    from admin.simulator.wire import Json

OLDER_VERSION: Final = "2024-06-20"
_BASIL, _CLOVER, _DAHLIA = "2025-03-31", "2025-09-30", "2026-03-25"
_VERSION: Final = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9](\.[a-z_]{1,20})?")
_NEWER_THAN_BASIL: Final = {
    "subscription": ("billing_mode", "customer_account", "status_details"),
    "invoice": ("amount_overpaid", "customer_account", "parent", "total_pretax_credit_amounts", "total_taxes"),
    "line_item": ("parent", "pretax_credit_amounts", "pricing", "subtotal", "taxes"),
    "subscription_item": ("current_period_end", "current_period_start"),
    "checkout.session": ("adaptive_pricing", "customer_account", "origin_context", "permissions", "wallet_options"),
}


def version_asked(header: str | None) -> str:
    """The `Stripe-Version` of a request, by default today's. Raises ApiError for what is none."""
    if header is None:
        return API_VERSION
    if _VERSION.fullmatch(header) is None:
        raise ApiError(400, f"Invalid Stripe API version: {header[:40]}")
    return header


def older_event(event: Json, store: Store) -> Json:
    """A snapshot event as an endpoint of version 2024-06-20 gets it."""
    now = event["data"]["object"]
    data: Json = {"object": in_version(now, OLDER_VERSION, store)}
    if "previous_attributes" in event["data"]:
        before = in_version({**now, **event["data"]["previous_attributes"]}, OLDER_VERSION, store)
        data["previous_attributes"] = {
            name: value for name, value in before.items() if data["object"].get(name) != value
        }
    return {**event, "api_version": OLDER_VERSION, "data": data}


def in_version(node: Any, version: str, store: Store) -> Any:
    """An answer, and every object within it, as `version` has it."""
    if version >= _DAHLIA:
        return node
    if isinstance(node, list):
        return [in_version(one, version, store) for one in node]
    if not isinstance(node, dict) or node.get("object") == "event":
        return node
    inner = {name: in_version(value, version, store) for name, value in node.items()}
    kind = node.get("object")
    if kind == "checkout.session":
        inner["ui_mode"] = {"hosted_page": "hosted"}.get(inner["ui_mode"], inner["ui_mode"])
    if kind == "subscription" and version < _CLOVER:
        inner["cancel_at"] = _moment_named(node)
    change = _BEFORE_BASIL.get(str(kind))
    if version < _BASIL:
        inner |= change(node, store) if change is not None else {}
        for name in _NEWER_THAN_BASIL.get(str(kind), ()):
            inner.pop(name, None)
    return inner


def _moment_named(whole: Json) -> int | None:
    # With items of several intervals it is the earliest end.
    end = min((item["current_period_end"] for item in whole["items"]["data"]), default=None)
    moment: int | None = whole["cancel_at"]
    return None if whole["cancel_at_period_end"] and moment == end else moment


def _subscription(whole: Json, _store: Store) -> Json:
    items = whole["items"]["data"]
    one = items[0] if len(items) == 1 else None
    # Of several intervals the shortest (docs.stripe.com/changelog/basil/2025-07-30/support-mixed-intervals).
    first: Json = min(items, key=lambda item: item["current_period_end"], default={})
    return {
        "current_period_start": first.get("current_period_start"),
        "current_period_end": first.get("current_period_end"),
        "discount": None,
        "plan": one["plan"] if one else None,
        "quantity": one.get("quantity") if one else None,
    }


def _invoice(whole: Json, store: Store) -> Json:
    details = (whole["parent"] or {}).get("subscription_details") or {}
    payments, charges = store.payments_of(whole["id"]), store.charges_of(whole["id"])
    return {
        "charge": charges[-1].id if charges else None,
        "discount": None,
        "paid": whole["status"] == "paid",
        "paid_out_of_band": whole["status"] == "paid" and any(one.status == "canceled" for one in payments),
        "payment_intent": payments[-1].payment_intent if payments else None,
        "quote": None,
        "subscription": details.get("subscription"),
        "subscription_details": {"metadata": details.get("metadata")},
        "tax": None,
        "total_tax_amounts": [],
    }


def _line(whole: Json, store: Store) -> Json:
    about = (whole["parent"] or {}).get("subscription_item_details") or {}
    named = ((whole["pricing"] or {}).get("price_details") or {}).get("price")
    price = store.prices.get(named) if named is not None else None
    return {
        "type": "subscription",
        "plan": plan_json(price) if price is not None else None,
        "price": price_json(price) if price is not None else None,
        "proration": about.get("proration", False),
        "proration_details": {"credited_items": None},
        "subscription": about.get("subscription"),
        "subscription_item": about.get("subscription_item"),
        "tax_amounts": [],
        "tax_rates": [],
    }


def _charge(whole: Json, store: Store) -> Json:
    return {"invoice": store.charges[whole["id"]].invoice, "order": None}


_BEFORE_BASIL: Final[dict[str, Callable[[Json, Store], Json]]] = {
    "subscription": _subscription,
    "invoice": _invoice,
    "line_item": _line,
    "charge": _charge,
}
