"""Stripe Entitlements in the simulator, by Stripe's SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.support.simulator import Receiver, Running, running_simulator

SUMMARY = "entitlements.active_entitlement_summary.updated"


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


def features(sim: Running, product: str, *keys: str) -> None:
    client = sim.stripe()
    for key in keys:
        feature = client.v1.entitlements.features.create({"name": key.title(), "lookup_key": key})
        client.v1.products.features.create(product, {"entitlement_feature": feature.id})


def subscribed(sim: Running, **more: Any) -> Any:
    client = sim.stripe()
    customer = client.v1.customers.create({})
    wanted: Any = {"customer": customer.id, "items": [{"price": "price_ent"}], **more}
    return client.v1.subscriptions.create(wanted)


def keys_of(sim: Running, customer: str) -> set[str]:
    listed = sim.stripe().v1.entitlements.active_entitlements.list({"customer": customer, "limit": 3})
    return {one.lookup_key for one in listed.auto_paging_iter()}


def summaries(sim: Running) -> list[dict[str, Any]]:
    assert sim.control("settle") == {"settled": True}
    return [event["data"] for event in sim.receiver.events if event["type"] == SUMMARY]


def test_eleven_features_are_all_listed_and_the_summary_is_cut_at_ten(sim: Running) -> None:
    wanted = [f"feature-{number:02}" for number in range(11)]
    features(sim, "prod_enterprise", *wanted)
    subscription = subscribed(sim)
    assert keys_of(sim, subscription.customer) == set(wanted)
    [told] = summaries(sim)
    assert "id" not in told["object"]
    assert told["object"]["customer"] == subscription.customer
    assert (len(told["object"]["entitlements"]["data"]), told["object"]["entitlements"]["has_more"]) == (10, True)
    assert told["previous_attributes"]["entitlements"]["data"] == []


def test_entitlements_follow_the_plan_and_end_with_the_subscription(sim: Running) -> None:
    client = sim.stripe()
    features(sim, "prod_enterprise", "sso", "export")
    features(sim, "prod_pro", "reports")
    subscription = subscribed(sim)
    assert keys_of(sim, subscription.customer) == {"sso", "export"}
    items: Any = [{"id": subscription["items"].data[0].id, "price": "price_pro_monthly"}]
    client.v1.subscriptions.update(subscription.id, {"items": items})
    assert keys_of(sim, subscription.customer) == {"reports"}
    client.v1.subscriptions.cancel(subscription.id)
    assert keys_of(sim, subscription.customer) == set()
    assert len(summaries(sim)) == 3


def test_what_is_attached_or_taken_off_later_reaches_a_subscription_with_its_next_period(sim: Running) -> None:
    client = sim.stripe()
    subscription = subscribed(sim)
    features(sim, "prod_enterprise", "sso")
    client.v1.subscriptions.update(subscription.id, {"metadata": {"a": "b"}})
    assert keys_of(sim, subscription.customer) == set()
    sim.advance(days=32)
    assert keys_of(sim, subscription.customer) == {"sso"}
    [attached] = client.v1.products.features.list("prod_enterprise").data
    assert client.v1.products.features.retrieve("prod_enterprise", attached.id).entitlement_feature.lookup_key == "sso"
    assert client.v1.products.features.delete("prod_enterprise", attached.id).deleted
    assert keys_of(sim, subscription.customer) == {"sso"}
    sim.advance(days=31)
    assert keys_of(sim, subscription.customer) == set()


def test_past_due_keeps_them_and_the_last_failed_retry_takes_them(sim: Running) -> None:
    features(sim, "prod_enterprise", "sso")
    sim.control("settings", after_final_failure="unpaid")
    subscription = subscribed(sim)
    sim.control(f"customers/{subscription.customer}/card", card="fails")
    sim.advance(days=32)
    assert sim.stripe().v1.subscriptions.retrieve(subscription.id).status == "past_due"
    assert keys_of(sim, subscription.customer) == {"sso"}
    sim.advance(days=20)
    assert sim.stripe().v1.subscriptions.retrieve(subscription.id).status == "unpaid"
    assert keys_of(sim, subscription.customer) == set()


def test_the_thin_notification_of_a_summary_names_no_object(sim: Running) -> None:
    features(sim, "prod_enterprise", "sso")
    sim.control("webhooks", payload="thin")
    subscribed(sim)
    sim.control("settle")
    [thin] = [event for event in sim.receiver.events if event["type"] == f"v1.{SUMMARY}"]
    assert "related_object" not in thin
    body = next(one for one in sim.receiver.bodies if json.loads(one) == thin)
    notice = sim.stripe().parse_event_notification_without_verification(body)
    assert notice.type == f"v1.{SUMMARY}"
    assert type(notice).__name__ != "UnknownEventNotification"


def test_a_lookup_key_is_one_features_own(sim: Running) -> None:
    features(sim, "prod_enterprise", "sso")
    with pytest.raises(stripe.InvalidRequestError, match="exists already"):
        sim.stripe().v1.entitlements.features.create({"name": "Again", "lookup_key": "sso"})
    [feature] = sim.stripe().v1.entitlements.features.list({"lookup_key": "sso"}).data
    with pytest.raises(stripe.InvalidRequestError, match="attached"):
        sim.stripe().v1.products.features.create("prod_enterprise", {"entitlement_feature": feature.id})
