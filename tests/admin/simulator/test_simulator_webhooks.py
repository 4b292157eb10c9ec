"""Deliveries: retried, switched off, and gone wrong on purpose; and the API gone wrong on purpose."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe

from tests.support.simulator import WEBHOOK_SECRET, Receiver, Running, running_simulator


def states(sim: Running) -> list[str]:
    return [one["state"] for one in sim.http.get(f"{sim.base}/_sim/deliveries").json()["data"]]


def test_a_delivery_is_tried_again_until_it_is_answered_with_2xx() -> None:
    receiver = Receiver(answer=lambda number: {1: 500, 2: 302}.get(number, 204))
    with running_simulator(receiver=receiver) as sim:
        sim.stripe().v1.customers.create()
        assert sim.control("settle") == {"settled": True}
        assert receiver.types == ["customer.created"] * 3
        assert len({event["id"] for event in receiver.events}) == 1
        shown = sim.http.get(f"{sim.base}/_sim/deliveries").json()["data"]
        assert [attempt["status"] for attempt in shown[0]["attempts"]] == [500, 302, 204]
        assert sim.stripe().v1.events.list({"delivery_success": False}).data == []


def test_a_receiver_that_never_agrees_is_given_up_and_the_event_counts_as_undelivered() -> None:
    receiver = Receiver(status=500)
    with running_simulator(receiver=receiver) as sim:
        sim.stripe().v1.customers.create()
        sim.control("settle")
        assert len(receiver.bodies) == 3
        assert states(sim) == ["failed"]
        missed = sim.stripe().v1.events.list({"delivery_success": False}).data
        assert [(event.type, event.pending_webhooks) for event in missed] == [("customer.created", 1)]


def test_what_happens_while_webhooks_are_off_is_never_delivered_but_can_be_read() -> None:
    receiver = Receiver()
    with running_simulator(receiver=receiver) as sim:
        sim.control("webhooks", enabled=False)
        lost = sim.stripe().v1.customers.create()
        sim.control("webhooks", enabled=True)
        seen = sim.stripe().v1.customers.create()
        sim.control("settle")
        assert [event["data"]["object"]["id"] for event in receiver.events] == [seen.id]
        assert states(sim) == ["delivered", "lost"]
        undelivered = sim.stripe().v1.events.list({"delivery_success": False}).data
        assert [event.data.object["id"] for event in undelivered] == [lost.id]


def test_switching_webhooks_off_also_ends_the_retries_under_way() -> None:
    receiver = Receiver(status=500)
    with running_simulator(receiver=receiver, retry_seconds=(0.5,) * 20) as sim:
        sim.stripe().v1.customers.create()
        deadline = time.monotonic() + 10
        while not receiver.bodies:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sim.control("webhooks", enabled=False)
        assert sim.control("settle") == {"settled": True}
        assert states(sim) == ["lost"]


def test_paying_does_not_wait_for_webhooks_that_are_off() -> None:
    with running_simulator(receiver=Receiver(status=500), retry_seconds=(600.0,)) as sim:
        sim.control("webhooks", enabled=False)
        session = sim.stripe().v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "line_items": [{"price": "price_ent", "quantity": 1}],
                "success_url": "http://127.0.0.1:9/",
            }
        )
        assert sim.pay(str(session.url)).status_code == 303


def test_events_can_arrive_twice_late_in_another_order_or_never() -> None:
    receiver = Receiver()
    with running_simulator(receiver=receiver) as sim:
        client = sim.stripe()

        def said(*names: str) -> list[str]:
            receiver.bodies.clear()
            for name in names:
                client.v1.customers.create({"name": name})
            sim.control("settle")
            return [event["data"]["object"]["name"] for event in receiver.events]

        sim.control("faults", delivery="duplicate")
        assert sorted(said("a", "b")) == ["a", "a", "b"]
        sim.control("faults", delivery="drop")
        assert said("a", "b") == ["b"]
        sim.control("faults", delivery="delay", seconds=0.3)
        assert said("a", "b") == ["b", "a"]
        sim.control("faults", delivery="reorder")
        assert sorted(said("a", "b")) == ["a", "b"]
        sim.control("faults", delivery="reorder", count=5)
        client.v1.customers.create({"name": "held"})
        assert sim.control("settle", timeout=0.2) == {"settled": False}
        sim.http.delete(f"{sim.base}/_sim/faults")
        assert sim.control("settle") == {"settled": True}
        assert sim.http.get(f"{sim.base}/_sim/faults").json() == {"api": [], "delivery": []}


def test_the_api_can_be_made_to_refuse_and_recovers() -> None:
    with running_simulator() as sim:
        client = sim.stripe()
        sim.control("faults", api="429")
        with pytest.raises(stripe.RateLimitError):
            client.v1.customers.list()
        sim.control("faults", api="500", count=2)
        for _ in range(2):
            with pytest.raises(stripe.APIError) as caught:
                client.v1.customers.list()
            assert caught.value.http_status == 500
        assert client.v1.customers.list().data == []


def test_a_fault_of_one_customer_spares_the_others() -> None:
    with running_simulator() as sim:
        client = sim.stripe()
        hit, spared = client.v1.customers.create().id, client.v1.customers.create().id
        subscription = client.v1.subscriptions.create({"customer": hit, "items": [{"price": "price_ent"}]})
        sim.control("faults", api="500", count=3, customer=hit)
        client.v1.subscriptions.list({"customer": spared})
        for attempt in (
            lambda: client.v1.subscriptions.list({"customer": hit}),
            lambda: client.v1.customers.retrieve(hit),
            lambda: client.v1.subscriptions.retrieve(subscription.id),
        ):
            with pytest.raises(stripe.APIError):
                attempt()
        client.v1.customers.retrieve(hit)


def test_a_lost_answer_was_carried_out_and_its_key_replays_the_500() -> None:
    with running_simulator() as sim:
        client = sim.stripe()
        sim.control("faults", api="lost_answer")
        for _ in range(2):
            with pytest.raises(stripe.APIError):
                client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        assert [one.name for one in client.v1.customers.list().data] == ["A"]


def test_a_stale_read_shows_what_was_shown_before() -> None:
    with running_simulator() as sim:
        client = sim.stripe()
        customer = client.v1.customers.create().id
        assert client.v1.subscriptions.list({"customer": customer}).data == []
        client.v1.subscriptions.create({"customer": customer, "items": [{"price": "price_ent"}]})
        sim.control("faults", api="stale")
        assert client.v1.subscriptions.list({"customer": customer}).data == []
        assert len(client.v1.subscriptions.list({"customer": customer}).data) == 1


def test_a_hanging_call_outlasts_its_caller() -> None:
    with running_simulator() as sim:
        client = stripe.StripeClient(
            "sk_test_simulator", base_addresses={"api": sim.base}, http_client=stripe.RequestsClient(timeout=0.2)
        )
        sim.control("faults", api="hang", seconds=1)
        with pytest.raises(stripe.APIConnectionError):
            client.v1.customers.list()
        assert sim.stripe().v1.customers.list().data == []


def test_a_call_that_hangs_is_answered_when_faults_are_cleared() -> None:
    with running_simulator() as sim, ThreadPoolExecutor(1) as beside:
        sim.control("faults", api="hang", seconds=600, count=2)
        hanging = beside.submit(lambda: sim.stripe().v1.customers.create({"email": "late@example.com"}))
        while sim.http.get(f"{sim.base}/_sim/faults").json()["api"][0]["count"] == 2:
            assert not hanging.done()
        assert sim.http.delete(f"{sim.base}/_sim/faults").is_success
        assert hanging.result(30).email == "late@example.com"


def test_thin_events_name_the_object_and_the_sdk_fetches_it() -> None:
    receiver = Receiver()
    with running_simulator(receiver=receiver) as sim:
        client = sim.stripe()
        sim.control("webhooks", payload="thin")
        customer = client.v1.customers.create({"name": "A"})
        client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": "price_ent"}]})
        sim.control("settle")
        seen = {}
        for body, signature in zip(receiver.bodies, receiver.signatures, strict=True):
            notification = client.parse_event_notification(body, signature, WEBHOOK_SECRET)
            seen[notification.type] = notification
        created = seen["v1.customer.subscription.created"]
        assert isinstance(created, stripe.events.V1CustomerSubscriptionCreatedEventNotification)
        assert created.fetch_related_object().customer == customer.id
        assert created.fetch_event().type == created.type
        assert b"items" not in b"".join(receiver.bodies)


def test_snapshot_and_thin_together_tell_of_each_other() -> None:
    receiver = Receiver()
    with running_simulator(receiver=receiver) as sim:
        sim.control("webhooks", payload="both")
        sim.stripe().v1.customers.create()
        sim.control("settle")
        snapshot, thin = sorted(receiver.events, key=lambda event: str(event["object"]))
        assert (snapshot["object"], thin["object"]) == ("event", "v2.core.event")
        assert thin["snapshot_event"] == snapshot["id"] != thin["id"]
