"""Ways of paying that take days: active at once, paid later, or never."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.simulator import Receiver, Running, running_simulator


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


def bought(sim: Running, card: str) -> tuple[Any, Any]:
    """The session and its subscription, just after the page's button."""
    client = sim.stripe()
    opened: Any = {
        "mode": "subscription",
        "line_items": [{"price": "price_ent", "quantity": 1}],
        "success_url": "http://127.0.0.1:9/",
    }
    session = client.v1.checkout.sessions.create(opened)
    assert sim.pay(str(session.url), card=card).status_code == 303
    session = client.v1.checkout.sessions.retrieve(session.id)
    return session, client.v1.subscriptions.retrieve(str(session.subscription))


@pytest.mark.parametrize(("card", "ending"), [("debit", "succeeded"), ("debit_bounces", "failed")])
def test_a_debit_at_checkout_makes_the_subscription_active_before_the_money_is_there(
    sim: Running, card: str, ending: str
) -> None:
    client = sim.stripe()
    session, subscription = bought(sim, card)
    assert (session.status, session.payment_status, subscription.status) == ("complete", "unpaid", "active")
    assert client.v1.invoices.retrieve(str(subscription.latest_invoice)).status == "open"
    [charge] = client.v1.charges.list({"customer": str(session.customer)}).data
    assert (charge.status, charge.paid) == ("pending", False)
    sim.advance(days=4)
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "unpaid"
    sim.advance(days=2)
    assert f"checkout.session.async_payment_{ending}" in sim.receiver.types
    assert client.v1.charges.retrieve(charge.id).status == ending
    paid = ending == "succeeded"
    invoice = client.v1.invoices.retrieve(str(subscription.latest_invoice))
    assert invoice.status == ("paid" if paid else "void")
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == ("paid" if paid else "unpaid")
    # Even where the debit came back: that is what makes `active` no proof of payment.
    assert client.v1.subscriptions.retrieve(subscription.id).status == "active"


def test_a_renewals_debit_that_comes_back_leads_to_past_due_only_then(sim: Running) -> None:
    client = sim.stripe()
    session, subscription = bought(sim, "debit")
    sim.advance(days=6)
    sim.control(f"customers/{session.customer}/card", card="debit_bounces")
    sim.advance(days=27)
    assert client.v1.subscriptions.retrieve(subscription.id).status == "active"
    [invoice] = client.v1.invoices.list({"subscription": subscription.id, "status": "open"}).data
    sim.advance(days=4)
    assert client.v1.subscriptions.retrieve(subscription.id).status == "past_due"
    assert client.v1.invoices.retrieve(str(invoice.id)).attempt_count == 1
    sim.control(f"customers/{session.customer}/card", card="works")
    sim.advance(days=4)
    assert client.v1.subscriptions.retrieve(subscription.id).status == "active"


def test_a_subscription_made_by_the_api_is_active_while_its_debit_is_under_way(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create({})
    sim.control(f"customers/{customer.id}/card", card="debit")
    made = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": "price_ent"}]})
    assert made.status == "active"
    sim.advance(days=6)
    assert client.v1.invoices.retrieve(str(made.latest_invoice)).status == "paid"


def test_the_portal_says_how_somebody_pays(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create({})
    url = client.v1.billing_portal.sessions.create({"customer": customer.id}).url
    for card, words in (("works", "It works."), ("none", "It is not there."), ("debit", "there in 5 days")):
        sim.control(f"customers/{customer.id}/card", card=card)
        assert words in sim.http.get(url).text
