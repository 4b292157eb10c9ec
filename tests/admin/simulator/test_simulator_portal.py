"""The Billing portal: configurations, flows, and the page as a person uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.support.simulator import Running, running_simulator

RETURN = "http://127.0.0.1:9/account"


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator() as running:
        yield running


def subscribe(sim: Running) -> stripe.Subscription:
    client = sim.stripe()
    customer = client.v1.customers.create()
    return client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": "price_pro_monthly"}]})


def configure(sim: Running, **update: Any) -> stripe.billing_portal.Configuration:
    params: Any = {
        "features": {
            "subscription_update": {
                "enabled": True,
                "default_allowed_updates": ["price"],
                "proration_behavior": "always_invoice",
                "products": [
                    {"product": "prod_pro", "prices": ["price_pro_monthly", "price_pro_yearly"]},
                    {"product": "prod_enterprise", "prices": ["price_ent"]},
                ],
                **update,
            },
            "payment_method_update": {"enabled": True},
        },
        "metadata": {"made_by": "gateway"},
    }
    return sim.stripe().v1.billing_portal.configurations.create(params)


def confirm_flow(subscription: stripe.Subscription, price: str, **more: Any) -> dict[str, Any]:
    item = subscription["items"].data[0]
    return {
        "type": "subscription_update_confirm",
        "subscription_update_confirm": {
            "subscription": subscription.id,
            "items": [{"id": item.id, "price": price, "quantity": 1}],
        },
        **more,
    }


def open_portal(sim: Running, subscription: stripe.Subscription, **more: Any) -> stripe.billing_portal.Session:
    params: Any = {"customer": str(subscription.customer), "return_url": RETURN, **more}
    return sim.stripe().v1.billing_portal.sessions.create(params)


def fetch(sim: Running, subscription: stripe.Subscription) -> stripe.Subscription:
    return sim.stripe().v1.subscriptions.retrieve(subscription.id)


def test_canceling_names_the_end_as_flexible_billing_does_and_resuming_takes_it_back(sim: Running) -> None:
    subscription = subscribe(sim)
    session = open_portal(sim, subscription)
    page = sim.http.get(session.url).text
    assert "Cancel at period end" in page
    assert RETURN in page
    assert "<script" not in page
    assert sim.http.post(f"{session.url}/cancel", data={"subscription": subscription.id}).status_code == 303
    canceled = fetch(sim, subscription)
    assert canceled.cancel_at == canceled["items"].data[0].current_period_end
    assert (canceled.cancel_at_period_end, canceled.status) == (False, "active")
    assert "Resume" in sim.http.get(session.url).text
    assert sim.http.post(f"{session.url}/resume", data={"subscription": subscription.id}).status_code == 303
    assert fetch(sim, subscription).cancel_at is None


def test_a_confirmed_update_changes_the_plan_charges_it_and_leads_back(sim: Running) -> None:
    subscription = subscribe(sim)
    after = {"type": "redirect", "redirect": {"return_url": RETURN}}
    session = open_portal(
        sim,
        subscription,
        configuration=configure(sim).id,
        flow_data=confirm_flow(subscription, "price_ent", after_completion=after),
    )
    page = sim.http.get(session.url).text
    assert "Confirm" in page
    assert "Enterprise" in page
    for action, label in (("cancel", "Cancel"), ("resume", "Resume"), ("update", "Switch plan")):
        assert label not in page, "who may confirm one change may do nothing else"
        other = sim.http.post(f"{session.url}/{action}", data={"subscription": subscription.id, "price": "price_ent"})
        assert (other.status_code, "does nothing else" in other.text) == (400, True)
    assert fetch(sim, subscription).cancel_at is None
    answer = sim.http.post(f"{session.url}/confirm")
    assert (answer.status_code, answer.headers["location"]) == (303, RETURN)
    changed = fetch(sim, subscription)
    assert [item.price.id for item in changed["items"].data] == ["price_ent"]
    invoices = sim.stripe().v1.invoices.list({"subscription": subscription.id}).data
    assert [(one.status, one.billing_reason) for one in invoices] == [
        ("paid", "subscription_update"),
        ("paid", "subscription_create"),
    ]
    assert sim.http.post(f"{session.url}/confirm").status_code == 303, "a second press changes nothing more"
    assert len(sim.stripe().v1.invoices.list({"subscription": subscription.id}).data) == 2


def test_a_confirmed_update_whose_payment_fails_changes_nothing(sim: Running) -> None:
    subscription = subscribe(sim)
    session = open_portal(
        sim, subscription, configuration=configure(sim).id, flow_data=confirm_flow(subscription, "price_ent")
    )
    sim.control(f"customers/{subscription.customer}/card", works=False)
    answer = sim.http.post(f"{session.url}/confirm")
    assert answer.status_code == 402
    assert "declined" in answer.text
    unchanged = fetch(sim, subscription)
    assert (unchanged.status, unchanged["items"].data[0].price.id) == ("active", "price_pro_monthly")


def test_a_person_may_switch_between_the_plans_of_the_configuration_only(sim: Running) -> None:
    subscription = subscribe(sim)
    item = subscription["items"].data[0]
    form = {"subscription": subscription.id, "id": item.id, "price": "price_ent"}
    bare = open_portal(sim, subscription)
    assert sim.http.post(f"{bare.url}/update", data=form).status_code == 400
    session = open_portal(sim, subscription, configuration=configure(sim).id)
    assert "Switch plan" in sim.http.get(session.url).text
    assert sim.http.post(f"{session.url}/update", data={**form, "price": "price_nope"}).status_code == 400
    narrow = configure(sim, products=[{"product": "prod_pro", "prices": ["price_pro_monthly"]}])
    other = open_portal(sim, subscription, configuration=narrow.id)
    assert sim.http.post(f"{other.url}/update", data=form).status_code == 400
    assert sim.http.post(f"{session.url}/update", data=form).status_code == 303
    assert fetch(sim, subscription)["items"].data[0].price.id == "price_ent"


def test_nobody_reaches_another_customers_subscription(sim: Running) -> None:
    mine, other = subscribe(sim), subscribe(sim)
    session = open_portal(sim, mine)
    for action in ("cancel", "resume", "update"):
        answer = sim.http.post(
            f"{session.url}/{action}", data={"subscription": other.id, "id": "x", "price": "price_ent"}
        )
        assert answer.status_code in (400, 404), action
    assert fetch(sim, other).cancel_at is None
    with pytest.raises(stripe.InvalidRequestError):
        open_portal(sim, mine, configuration=configure(sim).id, flow_data=confirm_flow(other, "price_ent"))


def test_a_new_card_is_charged_at_the_next_retry(sim: Running) -> None:
    subscription = subscribe(sim)
    session = open_portal(sim, subscription, flow_data={"type": "payment_method_update"})
    assert sim.http.post(f"{session.url}/card", data={"card": "fails"}).status_code == 303
    sim.advance(days=32)
    assert fetch(sim, subscription).status == "past_due"
    assert sim.http.post(f"{session.url}/card", data={"card": "works"}).status_code == 303
    sim.advance(days=4)
    assert fetch(sim, subscription).status == "active"


@pytest.mark.parametrize(
    ("price", "configured", "sentence"),
    [
        ("price_ent", False, "disabled"),
        ("price_pro_yearly_2", True, "not among the products"),
        ("price_pro_monthly", True, "no changes"),
    ],
)
def test_a_flow_that_can_not_be_is_refused_when_it_is_made(
    sim: Running, price: str, configured: bool, sentence: str
) -> None:
    subscription = subscribe(sim)
    more = {"configuration": configure(sim).id} if configured else {}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        open_portal(sim, subscription, flow_data=confirm_flow(subscription, price), **more)
    assert caught.value.http_status == 400
    assert sentence in str(caught.value)


def test_a_price_that_the_configuration_does_not_list_can_not_be_confirmed(sim: Running) -> None:
    subscription = subscribe(sim)
    narrow = configure(sim, products=[{"product": "prod_pro", "prices": ["price_pro_monthly"]}])
    with pytest.raises(stripe.InvalidRequestError, match="not among the products"):
        open_portal(sim, subscription, configuration=narrow.id, flow_data=confirm_flow(subscription, "price_ent"))


def test_configurations_are_listed_found_updated_and_shown_with_their_products_where_expanded(sim: Running) -> None:
    portal, made = sim.stripe().v1.billing_portal, configure(sim)
    assert [one.id for one in portal.configurations.list({"is_default": False}).data] == [made.id]
    assert len(portal.configurations.list({"is_default": True}).data) == 1
    updated = portal.configurations.update(
        made.id, {"metadata": {"hash": "1"}, "expand": ["features.subscription_update.products"]}
    )
    assert updated.metadata is not None
    assert updated.metadata.to_dict() == {"made_by": "gateway", "hash": "1"}
    assert updated.features.subscription_update.enabled is True
    assert [one.product for one in updated.features.subscription_update.products or []] == [
        "prod_pro",
        "prod_enterprise",
    ]
    shown = portal.configurations.retrieve(made.id)
    assert "products" not in shown.features.subscription_update.to_dict()
    assert portal.configurations.update(made.id, {"active": False}).active is False
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        open_portal(sim, subscribe(sim), configuration=made.id)


@pytest.mark.parametrize(
    "update",
    [
        {"products": []},
        {"default_allowed_updates": []},
        {"products": [{"product": "prod_pro", "prices": ["price_ent"]}]},
        {"products": [{"product": "prod_nope", "prices": ["price_ent"]}]},
        {"products": [{"product": "prod_pro", "prices": []}]},
    ],
)
def test_a_configuration_that_offers_nothing_or_nonsense_is_refused(sim: Running, update: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        configure(sim, **update)
