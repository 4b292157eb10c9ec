"""What goes out has the fields that Stripe's SDK and its API description know, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.support.simulator import Receiver, Running, running_simulator

EXTRACTED = Path(__file__).parents[4] / "shared" / "fixtures" / "stripe" / "stripe_openapi" / "extracted"

CLASSES: dict[str, type[Any]] = {
    "product": stripe.Product,
    "price": stripe.Price,
    "customer": stripe.Customer,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
    "invoice": stripe.Invoice,
    "line_item": stripe.InvoiceLineItem,
    "checkout.session": stripe.checkout.Session,
    "item": stripe.LineItem,
    "billing_portal.configuration": stripe.billing_portal.Configuration,
    "billing_portal.session": stripe.billing_portal.Session,
    "event": stripe.Event,
    "account": stripe.Account,
    "plan": stripe.Plan,
    "invoice_payment": stripe.InvoicePayment,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "entitlements.feature": stripe.entitlements.Feature,
    "entitlements.active_entitlement": stripe.entitlements.ActiveEntitlement,
    "entitlements.active_entitlement_summary": stripe.entitlements.ActiveEntitlementSummary,
    "product_feature": stripe.ProductFeature,
}


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
    ]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_field_is_one_that_the_sdk_knows(objects: dict[str, dict[str, Any]], kind: str) -> None:
    assert set(objects[kind]) - set(CLASSES[kind].__annotations__) == set()


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
