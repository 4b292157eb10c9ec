"""Subscribing through the Checkout page, as a browser without JavaScript does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from admin.simulator.wire import ApiError
from tests.support.simulator import WEBHOOK_SECRET, Receiver, Running, running_simulator, serving_simulator


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """For tests that change nothing."""
    with running_simulator() as running:
        yield running


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


def checkout(sim: Running, **more: Any) -> stripe.checkout.Session:
    params: Any = {
        "mode": "subscription",
        "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
        "success_url": "http://127.0.0.1:9/return?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:9/back",
        **more,
    }
    return sim.stripe().v1.checkout.sessions.create(params)


def test_paying_on_the_page_makes_customer_subscription_and_paid_invoice(sim: Running) -> None:
    client = sim.stripe()
    session = checkout(
        sim,
        client_reference_id="alice",
        metadata={"a": "1"},
        subscription_data={"metadata": {"customer": "alice"}},
    )
    assert session.url is not None
    assert (session.status, session.payment_status, session.subscription) == ("open", "unpaid", None)
    page = sim.http.get(session.url)
    assert page.status_code == 200
    assert "USD 29.00" in page.text
    assert "Pro" in page.text
    assert "<script" not in page.text

    answer = sim.pay(session.url, email="alice@example.com")

    assert answer.status_code == 303
    assert answer.headers["location"] == f"http://127.0.0.1:9/return?session={session.id}"
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription.latest_invoice", "line_items"]})
    assert (done.status, done.payment_status, done.url) == ("complete", "paid", None)
    assert done.client_reference_id == "alice"
    assert done.metadata is not None
    assert done.metadata.to_dict() == {"a": "1"}
    assert done.line_items is not None
    assert done.line_items.data[0].price is not None
    assert done.line_items.data[0].price.id == "price_pro_monthly"
    subscription = done.subscription
    assert isinstance(subscription, stripe.Subscription)
    assert subscription.status == "active"
    assert subscription.metadata.to_dict() == {"customer": "alice"}
    item = subscription["items"].data[0]
    assert 28 * 86400 <= item.current_period_end - item.current_period_start <= 31 * 86400
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert (subscription.latest_invoice.status, subscription.latest_invoice.amount_paid) == ("paid", 2900)
    assert client.v1.customers.retrieve(str(done.customer)).email == "alice@example.com"


def test_the_browser_is_sent_back_only_after_the_webhook_was_answered(sim: Running) -> None:
    session = checkout(sim)
    sim.pay(str(session.url))
    assert "checkout.session.completed" in sim.receiver.types


def test_every_webhook_is_signed_so_that_the_sdk_believes_it_and_no_other_secret_does(sim: Running) -> None:
    sim.pay(str(checkout(sim).url))
    sim.control("settle")
    assert {"customer.created", "customer.subscription.created", "invoice.paid"} <= set(sim.receiver.types)
    for body, signature in zip(sim.receiver.bodies, sim.receiver.signatures, strict=True):
        event = stripe.Webhook.construct_event(body, signature, WEBHOOK_SECRET)
        assert (event.api_version, event.livemode) == ("2026-10-28.endive", False)
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, "whsec_other")


def test_a_signature_carries_real_time_however_far_the_clock_was_moved(sim: Running) -> None:
    sim.advance(days=400)
    sim.pay(str(checkout(sim).url))
    sim.control("settle")
    signed_at = int(sim.receiver.signatures[-1].split(",")[0].removeprefix("t="))
    assert abs(signed_at - time.time()) < 200
    assert sim.receiver.events[-1]["created"] > time.time() + 399 * 86400


def test_a_declined_card_leaves_nothing_behind_and_the_page_open(sim: Running) -> None:
    session = checkout(sim)
    answer = sim.pay(str(session.url), card="declined")
    assert answer.status_code == 402
    assert "declined" in answer.text
    client = sim.stripe()
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    assert client.v1.subscriptions.list({"status": "all"}).data == []
    assert client.v1.customers.list().data == []
    assert sim.pay(str(session.url)).status_code == 303


def test_paying_twice_makes_one_subscription(sim: Running) -> None:
    session = checkout(sim)
    sim.pay(str(session.url))
    again = sim.pay(str(session.url))
    assert again.status_code == 200
    assert "already completed" in again.text
    assert len(sim.stripe().v1.subscriptions.list({"status": "all"}).data) == 1


def test_a_session_is_paid_at_most_once_whoever_asks(sim: Running) -> None:
    session = checkout(sim)
    sim.pay(str(session.url))
    world = sim.simulator.world
    with pytest.raises(ApiError, match="complete"):
        world.checkout.pay(world.store.sessions[session.id], card="works", email=None)


def test_a_session_of_a_known_customer_subscribes_that_customer(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create({"email": "bob@example.com"})
    sim.pay(str(checkout(sim, customer=customer.id).url))
    assert [one.customer for one in client.v1.subscriptions.list({"customer": customer.id}).data] == [customer.id]


def test_an_expired_session_can_not_be_paid_and_says_so_once(sim: Running) -> None:
    client = sim.stripe()
    by_hand, by_clock = checkout(sim), checkout(sim)
    assert client.v1.checkout.sessions.expire(by_hand.id).status == "expired"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.expire(by_hand.id)
    sim.advance(days=1)
    assert client.v1.checkout.sessions.retrieve(by_clock.id).status == "expired"
    for session in (by_hand, by_clock):
        assert sim.pay(str(session.url)).status_code == 410
    assert sim.receiver.types.count("checkout.session.expired") == 2
    assert [one.id for one in client.v1.checkout.sessions.list({"status": "open"}).data] == []


def test_a_trial_needs_no_payment_and_is_paid_when_it_ends(sim: Running) -> None:
    client = sim.stripe()
    session = checkout(sim, subscription_data={"trial_period_days": 14})
    sim.pay(str(session.url))
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription"]})
    assert done.payment_status == "no_payment_required"
    assert isinstance(done.subscription, stripe.Subscription)
    assert done.subscription.status == "trialing"
    assert done.subscription["items"].data[0].current_period_end == done.subscription.trial_end
    sim.advance(days=14)
    assert "customer.subscription.trial_will_end" in sim.receiver.types
    sim.advance(seconds=3601)
    subscription = client.v1.subscriptions.retrieve(done.subscription.id, {"expand": ["latest_invoice"]})
    assert subscription.status == "active"
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert subscription.latest_invoice.amount_paid == 2900


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"mode": "payment"}, "mode"),
        ({"mode": None}, "mode"),
        ({"line_items": []}, "line_items"),
        ({"line_items": [{"price": "price_nope", "quantity": 1}]}, "line_items[0][price]"),
        ({"line_items": [{"price": "price_pro_monthly"}]}, "line_items[0][quantity]"),
        ({"line_items": [{"price": "price_pro_monthly", "quantity": "lots"}]}, "line_items[0][quantity]"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"success_url": None}, "success_url"),
        ({"expires_at": 12}, "expires_at"),
        ({"customer": "cus_nope"}, "customer"),
        ({"customer_email": "nobody"}, "customer_email"),
    ],
)
def test_a_wrong_parameter_is_named_in_a_400(shared: Running, change: dict[str, Any], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        checkout(shared, **change)
    assert (caught.value.http_status, caught.value.param) == (400, param)


# stripe-python 16.1 hands httpx its bodies by an argument that httpx 0.28 deprecates.
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
async def test_the_async_sdk_subscribes_in_the_loop_that_serves() -> None:
    async with serving_simulator() as (simulator, base):
        http_client = stripe.HTTPXClient(timeout=10)
        client = stripe.StripeClient("sk_test_simulator", base_addresses={"api": base}, http_client=http_client)
        customer = await client.v1.customers.create_async({"email": "carol@example.com"})
        subscription = await client.v1.subscriptions.create_async(
            {"customer": customer.id, "items": [{"price": "price_ent"}]}
        )
        assert subscription.status == "active"
        simulator.advance(32 * 86400)
        renewed = await client.v1.subscriptions.retrieve_async(subscription.id)
        before, after = (one["items"].data[0] for one in (subscription, renewed))
        assert after.current_period_start == before.current_period_end
        await http_client.close_async()  # type: ignore[no-untyped-call]
