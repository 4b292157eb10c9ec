"""Payments, charges, refunds and disputes in the simulator, by Stripe's SDK and by the buttons of its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.support.simulator import Receiver, Running, running_simulator


@pytest.fixture(scope="module")
def sim() -> Iterator[Running]:
    """Each test has customers of its own, and asks only for their events."""
    with running_simulator(receiver=Receiver()) as running:
        yield running


def paying(sim: Running, **more: Any) -> Any:
    client = sim.stripe()
    customer = client.v1.customers.create({"name": "Alice"})
    wanted: Any = {"customer": customer.id, "items": [{"price": "price_ent"}], **more}
    return client.v1.subscriptions.create(wanted)


def charge_of(sim: Running, subscription: Any) -> Any:
    client = sim.stripe()
    [payment] = client.v1.invoice_payments.list({"invoice": subscription.latest_invoice}).data
    return client.v1.charges.list({"payment_intent": str(payment.payment.payment_intent)}).data[0]


def events_about(sim: Running, kinds: str, charge: str) -> list[Any]:
    found = sim.stripe().v1.events.list({"type": kinds, "limit": 100}).data
    objects = [(event, event.data.object.to_dict()) for event in reversed(found)]
    return [event for event, one in objects if charge in (one["id"], one.get("charge"))]


def test_an_invoice_is_joined_to_its_charge_by_a_payment_alone(sim: Running) -> None:
    subscription = paying(sim)
    [payment] = sim.stripe().v1.invoice_payments.list({"invoice": subscription.latest_invoice}).data
    assert (payment.status, payment.amount_paid, payment.payment.type) == ("paid", 9900, "payment_intent")
    charge = charge_of(sim, subscription)
    assert (charge.amount, charge.status, charge.customer) == (9900, "succeeded", subscription.customer)
    assert "invoice" not in charge


def test_an_attempt_that_fails_is_a_charge_of_the_same_payment(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create({})
    sim.control(f"customers/{customer.id}/card", card="fails")
    subscription = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": "price_ent"}]})
    assert charge_of(sim, subscription).status == "failed"
    sim.control(f"customers/{customer.id}/card", card="works")
    client.v1.invoices.pay(str(subscription.latest_invoice))
    charges = client.v1.charges.list({"customer": customer.id}).data
    assert [one.status for one in charges] == ["succeeded", "failed"]
    assert len({one.payment_intent for one in charges}) == 1
    [refund] = [client.v1.refunds.create({"payment_intent": str(charges[0].payment_intent)})]
    assert refund.charge == charges[0].id


def test_what_was_paid_elsewhere_or_void_has_no_charge_to_refund(sim: Running) -> None:
    sent = {"collection_method": "send_invoice", "days_until_due": 30}
    elsewhere, void = paying(sim, **sent), paying(sim, **sent)
    client = sim.stripe()
    client.v1.invoices.pay(elsewhere.latest_invoice, {"paid_out_of_band": True})
    client.v1.invoices.void_invoice(void.latest_invoice)
    for one in (elsewhere, void):
        [payment] = client.v1.invoice_payments.list({"invoice": one.latest_invoice}).data
        assert payment.status == "canceled"
        with pytest.raises(stripe.InvalidRequestError, match="no successful charge"):
            client.v1.refunds.create({"payment_intent": str(payment.payment.payment_intent)})


def test_refunds_add_up_and_never_exceed_the_charge(sim: Running) -> None:
    client, subscription = sim.stripe(), paying(sim)
    charge = charge_of(sim, subscription)
    client.v1.refunds.create({"charge": charge.id, "amount": 900, "reason": "requested_by_customer"})
    now = client.v1.charges.retrieve(charge.id)
    assert (now.amount_refunded, now.refunded) == (900, False)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        client.v1.refunds.create({"charge": charge.id, "amount": 9001})
    client.v1.refunds.create({"charge": charge.id})
    with pytest.raises(stripe.InvalidRequestError, match="already been refunded") as refused:
        client.v1.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_already_refunded"
    first, second = events_about(sim, "charge.refunded", charge.id)
    assert first.data.previous_attributes["amount_refunded"] == 0
    assert (second.data.object["refunded"], second.data.object["amount_refunded"]) == (True, 9900)
    assert [one.amount for one in client.v1.refunds.list({"charge": charge.id}).data] == [9000, 900]
    assert client.v1.subscriptions.retrieve(subscription.id).status == "active"


@pytest.mark.parametrize(
    ("evidence", "ending"), [("winning_evidence", "won"), ("losing_evidence", "lost"), ("a letter", "under_review")]
)
def test_a_dispute_names_no_customer_and_ends_by_the_evidence(sim: Running, evidence: str, ending: str) -> None:
    client, subscription = sim.stripe(), paying(sim)
    charge = charge_of(sim, subscription)
    made = sim.control("disputes", subscription=subscription.id, reason="product_not_received")
    assert "customer" not in made
    assert client.v1.charges.retrieve(charge.id).disputed
    with pytest.raises(stripe.InvalidRequestError, match="charged back"):
        client.v1.refunds.create({"charge": charge.id})
    changed = client.v1.disputes.update(made["id"], {"evidence": {"uncategorized_text": evidence}})
    assert changed.status == ending
    closed = events_about(sim, "charge.dispute.closed", charge.id)
    assert [event.data.object["status"] for event in closed] == ([] if ending == "under_review" else [ending])
    assert [one.id for one in client.v1.disputes.list({"charge": charge.id}).data] == [made["id"]]


def test_a_dispute_is_decided_once_and_an_inquiry_only_closed(sim: Running) -> None:
    client, subscription = sim.stripe(), paying(sim)
    asked = sim.control("disputes", subscription=subscription.id, status="warning_needs_response")
    wrong = sim.http.post(f"{sim.base}/_sim/disputes/{asked['id']}/close", json={"status": "lost"})
    assert wrong.status_code == 400
    assert "warning_closed" in wrong.json()["error"]["message"]
    assert client.v1.disputes.close(asked["id"]).status == "warning_closed"
    made = sim.control("disputes", charge=charge_of(sim, subscription).id)
    assert client.v1.disputes.close(made["id"]).status == "lost"
    with pytest.raises(stripe.InvalidRequestError, match="already lost"):
        client.v1.disputes.close(made["id"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("refunds", {}),
        ("refunds", {"charge": "ch_none"}),
        ("refunds", {"subscription": "sub_none"}),
        ("disputes", {"charge": "ch_1", "subscription": "sub_1"}),
        ("disputes", {"charge": "ch_none", "status": "won"}),
        ("disputes/dp_none/close", {"status": "won"}),
    ],
)
def test_a_control_of_money_that_names_nothing_is_refused_with_a_sentence(
    sim: Running, path: str, body: dict[str, Any]
) -> None:
    answer = sim.http.post(f"{sim.base}/_sim/{path}", json=body)
    assert answer.status_code in (400, 404)
    assert len(answer.json()["error"]["message"]) > 10


def test_the_buttons_of_a_customers_page_refund_and_dispute(sim: Running) -> None:
    subscription = paying(sim)
    charge = charge_of(sim, subscription)
    place = f"{sim.base}/customers/{subscription.customer}"
    browser = {"Accept": "text/html"}

    def press(action: str, **form: str) -> str:
        page = sim.http.get(place).text
        assert f'action="{action}"' in page
        pressed = sim.http.post(
            sim.base + action, data={"back": f"/customers/{subscription.customer}", **form}, headers=browser
        )
        assert (pressed.status_code, pressed.headers["location"]) == (303, f"/customers/{subscription.customer}")
        return sim.http.get(place).text

    assert "USD 1.00 refunded" in press("/_sim/refunds", charge=charge.id, amount="100")
    shown = press("/_sim/disputes", charge=charge.id, status="needs_response")
    close = re.search(r'action="(/_sim/disputes/dp_\w+/close)"', shown)
    assert close is not None
    assert ": won" in press(close[1], status="won")


def test_a_form_never_leads_anywhere_but_to_a_page_of_the_simulator(sim: Running) -> None:
    charge = charge_of(sim, paying(sim))
    for place in ("https://evil.example/", "//evil.example", "/customers/../x", "/_sim/faults"):
        answer = sim.http.post(
            f"{sim.base}/_sim/refunds",
            data={"charge": charge.id, "amount": "1", "back": place},
            headers={"Accept": "text/html"},
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
