"""`Stripe-Version` decides the shape of an answer: what moved between API versions stands where that version had it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from admin.stripe.objects import ReadInvoice, ReadSubscription, read_invoice, read_subscription
from policies.entitlement import BillingRules, item_span
from policies.schema import Tier
from policies.tiers import build_ladder
from tests.support.simulator import Receiver, Running, running_simulator

VERSIONS = (
    "2020-08-27",
    "2024-06-20",
    "2025-03-31.basil",
    "2025-09-30.clover",
    "2026-03-25.dahlia",
    "2026-10-28.endive",
)
MOVED = "2025-03-31"


@pytest.fixture(scope="module")
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


@pytest.fixture(scope="module")
def subscription(sim: Running) -> str:
    """One that was paid and will end with its period."""
    client = sim.stripe()
    customer = client.v1.customers.create({})
    made = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": "price_pro_monthly"}]})
    client.v1.subscriptions.update(made.id, {"cancel_at_period_end": True})
    return made.id


def plain(found: Any) -> dict[str, Any]:
    shown: dict[str, Any] = found.to_dict()
    return shown


@pytest.mark.parametrize("version", VERSIONS)
def test_a_period_an_invoice_and_a_charge_stand_where_that_version_has_them(
    sim: Running, subscription: str, version: str
) -> None:
    client, is_old = sim.stripe(stripe_version=version), version < MOVED
    listed = client.v1.subscriptions.list({"limit": 1, "expand": ["data.latest_invoice"]})
    told = plain(listed)["data"][0]
    one = plain(client.v1.subscriptions.retrieve(subscription, {"expand": ["latest_invoice"]}))
    assert told == one
    item = one["items"]["data"][0]
    assert ("current_period_end" in one, "current_period_end" in item) == (is_old, not is_old)
    assert one["cancel_at_period_end"] is True
    assert (one["cancel_at"] is None) == (version < "2025-09-30")
    assert ("plan" in one, "status_details" in one) == (is_old, not is_old)
    invoice = one["latest_invoice"]
    assert ("subscription" in invoice, "paid" in invoice, "parent" in invoice) == (is_old, is_old, not is_old)
    line = invoice["lines"]["data"][0]
    assert ("price" in line, "pricing" in line) == (is_old, not is_old)
    payment = client.v1.invoice_payments.list({"invoice": invoice["id"]}).data[0]
    charge = plain(client.v1.charges.list({"payment_intent": str(payment.payment.payment_intent)}).data[0])
    assert ("invoice" in charge) == is_old
    if is_old:
        assert one["current_period_end"] > one["current_period_start"] >= one["created"]
        assert (line["price"]["id"], one["plan"]["id"]) == ("price_pro_monthly", "price_pro_monthly")
        assert (invoice["subscription"], charge["invoice"]) == (subscription, invoice["id"])
        assert (invoice["charge"], invoice["payment_intent"]) == (charge["id"], charge["payment_intent"])


@pytest.mark.parametrize("version", ["2025-09-30.clover", "2026-03-25.dahlia"])
def test_the_words_of_a_checkout_session_are_those_of_the_version(sim: Running, version: str) -> None:
    opened: Any = {
        "mode": "subscription",
        "line_items": [{"price": "price_ent", "quantity": 1}],
        "success_url": "http://a.test/",
    }
    session = sim.stripe(stripe_version=version).v1.checkout.sessions.create(opened)
    assert session.ui_mode == ("hosted" if version < "2026-03-25" else "hosted_page")


def test_an_event_keeps_the_version_it_was_made_in(sim: Running, subscription: str) -> None:
    event = plain(sim.stripe(stripe_version="2020-08-27").v1.events.list({"type": "customer.subscription.created"}))
    [made] = event["data"]
    assert made["api_version"] == "2026-10-28.endive"
    assert made["data"]["object"]["id"] == subscription
    assert "current_period_end" in made["data"]["object"]["items"]["data"][0]


@pytest.mark.parametrize("version", ["latest", "2026", "2026-10-28.endive; DROP", ""])
def test_a_version_that_is_none_is_refused(sim: Running, version: str) -> None:
    headers = {"Authorization": "Bearer sk_test_simulator", "Stripe-Version": version}
    answer = sim.http.get(f"{sim.base}/v1/account", headers=headers)
    assert (answer.status_code, "version" in answer.json()["error"]["message"]) == (400, True)


def test_what_belongs_to_another_object_is_cut_at_ten_and_paged_to_its_end(sim: Running) -> None:
    client = sim.stripe()
    for number in range(12):
        recurring: Any = {"interval": "month"}
        client.v1.prices.create(
            {
                "product": "prod_pro",
                "currency": "usd",
                "unit_amount": 100 + number,
                "recurring": recurring,
                "lookup_key": f"seat-{number}",
            }
        )
    prices = [one.id for one in client.v1.prices.list({"limit": 12}).data]
    lines: Any = [{"price": price, "quantity": 1} for price in prices]
    customer = client.v1.customers.create({})
    made = client.v1.subscriptions.create({"customer": customer.id, "items": lines, "expand": ["latest_invoice"]})
    opened: Any = {
        "mode": "subscription",
        "line_items": lines,
        "success_url": "http://a.test/",
        "expand": ["line_items"],
    }
    session = client.v1.checkout.sessions.create(opened)
    invoice = made.latest_invoice
    assert isinstance(invoice, stripe.Invoice)
    assert session.line_items is not None
    for shown in (made["items"], invoice.lines, session.line_items):
        assert (len(shown.data), shown.has_more) == (10, True)
    pages = (
        client.v1.subscription_items.list({"subscription": made.id, "limit": 5}),
        client.v1.invoices.line_items.list(str(invoice.id), {"limit": 5}),
        client.v1.checkout.sessions.line_items.list(session.id, {"limit": 5}),
    )
    for page in pages:
        assert len({one.id for one in page.auto_paging_iter()}) == 12


def test_every_version_of_one_subscription_gives_the_same_access(sim: Running, subscription: str) -> None:
    ladder = build_ladder((Tier(name="free"), Tier(name="pro", prices=("price_pro_monthly",))))
    latest = str(sim.stripe().v1.subscriptions.retrieve(subscription).latest_invoice)
    rules = BillingRules(renewal_leeway=3600.0, past_due_grace=3600.0)
    spans, ends, invoices = set(), set(), set()
    for version in VERSIONS:
        client = sim.stripe(stripe_version=version)
        read = read_subscription(plain(client.v1.subscriptions.retrieve(subscription)))
        assert isinstance(read, ReadSubscription)
        spans.add(item_span(read.fact, read.fact.items[0], ladder, rules))
        ends.add(read.fact.items[0].period_end)
        invoices.add(read_invoice(plain(client.v1.invoices.retrieve(latest))))
    [span], [end], [invoice] = spans, ends, invoices
    assert span is not None
    assert span.closes_at == end  # a planned end has no leeway
    assert isinstance(invoice, ReadInvoice)
