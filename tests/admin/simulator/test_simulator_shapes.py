"""What goes out has the fields that Stripe's SDK and its API description know, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulator import Receiver, Running, running_simulator
from tests.support.stripe_types import CLASSES, disagreements

EXTRACTED = Path(__file__).parents[4] / "shared" / "fixtures" / "stripe" / "stripe_openapi" / "extracted"


@pytest.fixture(scope="module")
def objects() -> Iterator[dict[str, dict[str, Any]]]:
    """One object of each kind, as raw JSON, after a life with everything in it."""
    with running_simulator(receiver=Receiver()) as sim:
        yield {one["object"]: one for one in _everything(sim)}


def _everything(sim: Running) -> list[dict[str, Any]]:
    def get(path: str) -> dict[str, Any]:
        answer = sim.http.get(f"{sim.base}/v1/{path}", headers={"Authorization": "Bearer sk_test_simulator"})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    client = sim.stripe()
    feature = client.v1.entitlements.features.create({"name": "Export", "lookup_key": "export"})
    client.v1.products.features.create("prod_pro", {"entitlement_feature": feature.id})
    session = client.v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
            "success_url": "http://127.0.0.1:9/",
        }
    )
    sim.pay(str(session.url), email="a@example.com")
    paid = get(f"checkout/sessions/{session.id}?expand[]=line_items&expand[]=subscription.latest_invoice")
    subscription = paid["subscription"]
    entitlement = get(f"entitlements/active_entitlements?customer={paid['customer']}")["data"][0]
    payment = get(f"invoice_payments?invoice={subscription['latest_invoice']['id']}")["data"][0]
    charge = get(f"charges?payment_intent={payment['payment']['payment_intent']}")["data"][0]
    refund = client.v1.refunds.create({"charge": charge["id"], "amount": 1})
    sim.control("disputes", charge=charge["id"])
    summary = get("events?type=entitlements.active_entitlement_summary.updated")["data"][0]["data"]["object"]
    client.v1.subscriptions.pause(subscription["id"])
    portal = client.v1.billing_portal.sessions.create(
        {
            "customer": paid["customer"],
            "flow_data": {"type": "subscription_cancel", "subscription_cancel": {"subscription": subscription["id"]}},
        }
    )
    item = subscription["items"]["data"][0]
    return [
        get("account"),
        get("products/prod_pro"),
        get("prices/price_pro_monthly"),
        get(f"customers/{paid['customer']}"),
        item,
        item["plan"],
        subscription["latest_invoice"],
        subscription["latest_invoice"]["lines"]["data"][0],
        {**paid, "subscription": subscription["id"]},
        paid["line_items"]["data"][0],
        get("billing_portal/configurations")["data"][0],
        json.loads(str(portal)),
        get("events")["data"][0],
        get(f"subscriptions/{subscription['id']}"),
        payment,
        get(f"charges/{charge['id']}"),
        get(f"refunds/{refund.id}"),
        get("disputes")["data"][0],
        get(f"entitlements/features/{feature.id}"),
        entitlement,
        summary,
        get("products/prod_pro/features")["data"][0],
        json.loads(str(client.v1.test_helpers.test_clocks.create({"frozen_time": paid["created"]}))),
    ]


@pytest.mark.fixtures
@pytest.mark.skipif(not EXTRACTED.is_dir(), reason="the recorded API description is not here")
@pytest.mark.parametrize("kind", sorted({path.stem for path in EXTRACTED.glob("*.json")} & set(CLASSES)))
def test_every_field_of_stripes_own_example_is_there(objects: dict[str, dict[str, Any]], kind: str) -> None:
    # Fields that Stripe shows only in other modes of billing, or that its example keeps from before API 2025-03-31.
    elsewhere = {
        "subscription": {"managed_payments", "billing_schedules"},
        "invoice": {"subscription"},
        "checkout.session": {"integration_identifier", "managed_payments"},
        "charge": {"refunds"},  # only where expanded, since API 2022-11-15
    }
    example = set(json.loads((EXTRACTED / f"{kind}.json").read_text()))
    assert example - set(objects[kind]) - elsewhere.get(kind, set()) == set()


def test_the_period_lives_on_the_item_and_the_invoice_names_its_subscription_under_parent(
    objects: dict[str, dict[str, Any]],
) -> None:
    subscription, invoice = objects["subscription"], objects["invoice"]
    assert "current_period_end" not in subscription
    assert subscription["items"]["data"][0]["current_period_end"] >= subscription["created"]
    assert subscription["billing_mode"]["type"] == "flexible"
    assert subscription["status_details"]["paused"]["subscription"]["type"] == "pause_requested"
    assert "subscription" not in invoice
    assert invoice["parent"]["subscription_details"]["subscription"] == subscription["id"]
    assert invoice["lines"]["data"][0]["pricing"]["price_details"]["price"] == "price_pro_monthly"


def test_an_event_carries_its_version_mode_and_snapshot(objects: dict[str, dict[str, Any]]) -> None:
    event = objects["event"]
    assert (event["api_version"], event["livemode"]) == ("2026-10-28.endive", False)
    assert isinstance(event["created"], int)
    assert event["data"]["object"]["object"] in CLASSES


@pytest.mark.parametrize(
    "wrong",
    [
        {"object": "subscription", "current_period_end": 1},
        {"object": "subscription", "created": "today"},
        {"object": "subscription", "created": True},
        {"object": "subscription", "cancel_at": "today"},
        {"object": "subscription", "billing_mode": {"type": "modern"}},
        {"object": "subscription", "cancellation_details": {"moon": None}},
        {"object": "subscription", "items": {"object": "list", "data": [{"object": "subscription_item", "moon": 1}]}},
        {"object": "event", "data": {"object": {"object": "charge", "invoice": "in_1"}}},
        {"object": "list", "data": [], "total_count": 0},
        {"object": "moon"},
    ],
    ids=str,
)
def test_what_the_sdk_does_not_know_would_be_found(wrong: dict[str, Any]) -> None:
    assert list(disagreements(wrong, ""))
