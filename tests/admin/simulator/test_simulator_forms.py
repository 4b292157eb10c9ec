"""Deliveries in another form than usual: one second, the other mode, an older version, two signatures."""

from __future__ import annotations

import json

import stripe

from admin.simulator.delivery import OTHER_SECRET
from admin.simulator.older import OLDER_VERSION
from tests.support.simulator import WEBHOOK_SECRET, Receiver, running_simulator


def test_events_can_share_a_second_be_of_the_other_mode_and_be_signed_by_two_secrets() -> None:
    receiver = Receiver()
    with running_simulator(receiver=receiver) as sim:
        client = sim.stripe()
        sim.control("faults", delivery="same_second", count=2)
        sim.control("faults", delivery="wrong_mode")
        sim.control("faults", delivery="two_secrets")
        client.v1.customers.create({"name": "0"})
        sim.control("clock/advance", seconds=3600)
        for number in range(1, 5):
            client.v1.customers.create({"name": str(number)})
        sim.control("settle")
        told = {event["data"]["object"]["name"]: event for event in receiver.events}
        listed = {event.data.object["name"]: event for event in client.v1.events.list().data}
        assert told["0"]["created"] == told["1"]["created"] == listed["0"].created < listed["1"].created
        assert told["2"]["created"] == listed["2"].created
        assert [told[str(number)]["livemode"] for number in range(5)] == [False, False, True, False, False]
        assert not listed["2"].livemode
        posts = list(zip(receiver.bodies, receiver.signatures, strict=True))
        signed = {json.loads(body)["data"]["object"]["name"]: (body.decode(), header) for body, header in posts}
        assert [signed[str(number)][1].count("v1=") for number in range(5)] == [1, 1, 1, 2, 1]
        for secret in (WEBHOOK_SECRET, OTHER_SECRET):
            stripe.WebhookSignature.verify_header(*signed["3"], secret)


def test_an_event_can_have_the_shape_of_an_older_version() -> None:
    receiver = Receiver()
    with running_simulator(receiver=receiver) as sim:
        client = sim.stripe()
        customer = client.v1.customers.create().id
        sim.control(f"customers/{customer}/card", card="works")
        sim.control("faults", delivery="old_version", count=1000)
        made = client.v1.subscriptions.create({"customer": customer, "items": [{"price": "price_pro_monthly"}]})
        sim.control(f"subscriptions/{made.id}/auto_renew", enabled=False)
        sim.control("settle")
        versions = {event["api_version"] for event in receiver.events if event["type"] != "customer.created"}
        assert versions == {OLDER_VERSION}
        by_type = {event["type"]: event["data"] for event in receiver.events}
        item = made["items"]["data"][0]
        created = by_type["customer.subscription.created"]["object"]
        assert created["current_period_end"] == item["current_period_end"]
        assert "current_period_end" not in created["items"]["data"][0]
        assert created["plan"]["id"] == "price_pro_monthly"
        # Its first payment is an update as well, and of two deliveries under way either may arrive first.
        [updated] = [
            event["data"]
            for event in receiver.events
            if event["type"] == "customer.subscription.updated"
            and "cancel_at_period_end" in event["data"]["previous_attributes"]
        ]
        assert (updated["object"]["cancel_at_period_end"], updated["object"]["cancel_at"]) == (True, None)
        assert updated["previous_attributes"]["cancel_at_period_end"] is False
        assert "cancel_at" not in updated["previous_attributes"]
        invoice = by_type["invoice.paid"]["object"]
        assert (invoice["subscription"], invoice["paid"], "parent" in invoice) == (made.id, True, False)
        line = invoice["lines"]["data"][0]
        assert (line["price"]["id"], line["subscription"], "pricing" in line) == ("price_pro_monthly", made.id, False)
        modern = client.v1.events.list({"type": "invoice.paid"}).data[0].data.object
        assert modern["parent"]["subscription_details"]["subscription"] == made.id
