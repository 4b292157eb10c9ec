"""An event as an endpoint of an older API version gets it: the same facts, in the places they had before 2025-03-31.

It decides what an object looked like then. It must never say anything else than the object of today does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from admin.simulator.wire import Json

OLDER_VERSION: Final = "2024-06-20"


def older(event: Json) -> Json:
    """A snapshot event in the older shape."""
    now = event["data"]["object"]
    data: Json = {"object": _older_object(now)}
    if "previous_attributes" in event["data"]:
        before = _older_object({**now, **event["data"]["previous_attributes"]})
        data["previous_attributes"] = {
            name: value for name, value in before.items() if data["object"].get(name) != value
        }
    return {**event, "api_version": OLDER_VERSION, "data": data}


def _older_object(whole: Json) -> Json:
    if whole["object"] == "subscription":
        return _older_subscription(whole)
    if whole["object"] == "invoice":
        return _older_invoice(whole)
    return whole


def _older_subscription(whole: Json) -> Json:
    items = whole["items"]["data"]
    one = items[0] if len(items) == 1 else None
    shown = [{name: value for name, value in item.items() if not name.startswith("current_period_")} for item in items]
    end = max((item["current_period_end"] for item in items), default=None)
    return {
        **whole,
        "items": {**whole["items"], "data": shown},
        "current_period_start": min((item["current_period_start"] for item in items), default=None),
        "current_period_end": end,
        "plan": one["plan"] if one else None,
        "quantity": one.get("quantity") if one else None,
        # Until 2025-09-30 a subscription that ends with its period said so by the flag alone.
        "cancel_at": None if whole["cancel_at_period_end"] and whole["cancel_at"] == end else whole["cancel_at"],
    }


def _older_invoice(whole: Json) -> Json:
    details = (whole["parent"] or {}).get("subscription_details") or {}
    rest = {name: value for name, value in whole.items() if name != "parent"}
    lines = {**whole["lines"], "data": [_older_line(line) for line in whole["lines"]["data"]]}
    return {
        **rest,
        "lines": lines,
        "paid": whole["status"] == "paid",
        "subscription": details.get("subscription"),
        "subscription_details": {"metadata": details.get("metadata")},
    }


def _older_line(line: Json) -> Json:
    about = (line["parent"] or {}).get("subscription_item_details") or {}
    rest = {name: value for name, value in line.items() if name not in ("parent", "pricing")}
    price = ((line["pricing"] or {}).get("price_details") or {}).get("price")
    return {
        **rest,
        "type": "subscription",
        "price": {"id": price, "object": "price"} if price is not None else None,
        "proration": about.get("proration", False),
        "subscription": about.get("subscription"),
        "subscription_item": about.get("subscription_item"),
    }
