"""What became of the money, and which features Stripe grants: asked for where an option wants it, and then to the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from admin.ledger.catalog import Catalog
from admin.ledger.checkouts import Checkouts
from admin.ledger.customers import Customers
from admin.ledger.engine import Database
from admin.ledger.inbox import Inbox
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import StripeCustomers
from admin.stripe.budget import Priority
from admin.stripe.catalog import PriceCatalog
from admin.stripe.client import StripeGateway
from admin.stripe.fetch import Failed, fetch_customer
from admin.stripe.payments import Wanted
from admin.stripe.sync import CustomerSync, Synced
from admin.stripe.webhook import WebhookReceiver
from admin.stripe.work import EventWork
from policies.schema import Billing
from tests.admin.stripe.test_webhook_pipeline import signed
from tests.support.ledgers import fresh_sqlite, opened
from tests.support.paid_customer import (
    EVERYTHING,
    NOW,
    charge,
    invoice,
    looked,
    the_fact,
)
from tests.support.scripted_stripe import ScriptedStripe
from tests.support.simulator import WEBHOOK_SECRET

PAIR = Pair("acct_1", livemode=False)


async def test_without_an_option_nothing_more_is_asked(scripted: ScriptedStripe, gateway: StripeGateway) -> None:
    fact = await the_fact(gateway, Wanted.of(Billing()))
    assert (fact.latest_invoice, fact.refunded, fact.disputed) == (None, False, False)
    assert set(scripted.calls) == {"/v1/customers/cus_1", "/v1/subscriptions"}


def test_each_option_asks_for_its_own() -> None:
    assert Wanted.of(Billing(require_paid_invoice=True)) == Wanted(invoices=True)
    assert Wanted.of(Billing(revoke_on_refund=True)) == Wanted(refunds=True)
    assert Wanted.of(Billing(revoke_on_dispute=True)) == Wanted(disputes=True)
    assert Wanted.of(Billing(features_from="stripe")) == Wanted(features=True)


@pytest.mark.parametrize("status", ["draft", "open", "paid", "uncollectible", "void"])
async def test_the_latest_invoice_is_the_newest(scripted: ScriptedStripe, gateway: StripeGateway, status: str) -> None:
    scripted.lists["/v1/invoices"].insert(0, invoice("in_3", status))
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice == status
    assert set(scripted.calls) == {"/v1/customers/cus_1", "/v1/subscriptions", "/v1/invoices"}


async def test_what_was_billed_between_the_two_answers_has_the_subscription_looked_at_again(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    (listed,) = scripted.lists["/v1/subscriptions"]
    listed["latest_invoice"] = "in_2"
    scripted.lists["/v1/invoices"].insert(0, invoice("in_3", "paid"))
    cheaper = {**listed["items"]["data"][0], "price": {"id": "price_basic", "product": "prod"}}
    scripted.objects["/v1/subscriptions/sub_1"] = {
        **listed,
        "latest_invoice": "in_3",
        "items": {**listed["items"], "data": [cheaper]},
    }
    fact = await the_fact(gateway, Wanted(invoices=True))
    assert ([item.price for item in fact.items], fact.latest_invoice) == (["price_basic"], "paid")


async def test_an_invoice_that_the_subscription_never_names_is_looked_at_again_once(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    (listed,) = scripted.lists["/v1/subscriptions"]
    listed["latest_invoice"] = "in_2"
    scripted.lists["/v1/invoices"].insert(0, invoice("in_by_hand", "open"))
    scripted.objects["/v1/subscriptions/sub_1"] = listed
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice == "open"
    assert scripted.calls["/v1/subscriptions/sub_1"] == 1


async def test_a_full_refund_is_seen_and_a_partial_one_is_none(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    scripted.lists["/v1/charges"][0] |= {"amount": 100, "amount_refunded": 99}
    assert (await the_fact(gateway)).refunded is False
    scripted.lists["/v1/charges"][0] |= {"amount_refunded": 100, "refunded": True}
    assert (await the_fact(gateway)).refunded is True


async def test_a_refund_counts_until_an_invoice_of_a_later_period_is_paid(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    scripted.lists["/v1/charges"][0]["refunded"] = True
    scripted.lists["/v1/invoices"].insert(0, invoice("in_3", "draft"))
    assert (await the_fact(gateway)).refunded is True
    scripted.lists["/v1/invoices"][0]["status"] = "paid"
    scripted.lists["/v1/invoice_payments"].append(
        {"id": "inpay_3", "invoice": "in_3", "payment": {"type": "charge", "charge": "ch_3"}}
    )
    scripted.objects["/v1/charges/ch_3"] = charge("ch_3", "pi_3")
    assert (await the_fact(gateway)).refunded is False


async def test_of_several_payments_all_must_have_gone_back(scripted: ScriptedStripe, gateway: StripeGateway) -> None:
    scripted.lists["/v1/charges"][0]["refunded"] = True
    scripted.lists["/v1/charges"].append(charge("ch_9", "pi_9"))
    second = {"id": "inpay_9", "invoice": "in_2", "payment": {"type": "payment_intent", "payment_intent": "pi_9"}}
    scripted.lists["/v1/invoice_payments"].append(second)
    assert (await the_fact(gateway)).refunded is False


async def test_an_invoice_that_was_paid_with_nothing_was_not_refunded(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    scripted.lists["/v1/invoice_payments"].clear()
    assert (await the_fact(gateway)).refunded is False


@pytest.mark.parametrize(
    ("status", "disputed"),
    [
        ("needs_response", True),
        ("under_review", True),
        ("lost", True),
        ("something_new", True),
        ("won", False),
        ("prevented", False),
        ("warning_needs_response", False),
        ("warning_closed", False),
    ],
)
async def test_a_dispute_counts_unless_it_was_won_or_is_an_inquiry(
    scripted: ScriptedStripe, gateway: StripeGateway, status: str, disputed: bool
) -> None:
    scripted.lists["/v1/charges"][0]["disputed"] = True
    scripted.lists["/v1/disputes"].append({"id": "dp_1", "charge": "ch_2", "status": status})
    assert (await the_fact(gateway)).disputed is disputed


@pytest.mark.parametrize(
    "path",
    ["/v1/invoices", "/v1/invoice_payments", "/v1/charges", "/v1/disputes", "/v1/entitlements/active_entitlements"],
)
async def test_a_key_that_may_not_see_what_an_option_needs_makes_the_look_fail_loudly(
    scripted: ScriptedStripe, gateway: StripeGateway, path: str
) -> None:
    scripted.lists["/v1/charges"][0]["disputed"] = True
    scripted.forbidden.add(path)
    outcome = await fetch_customer(gateway, "cus_1", Priority.CUSTOMER, wanted=EVERYTHING)
    assert isinstance(outcome, Failed)
    assert "refused" in outcome.detail


async def test_a_subscription_that_is_over_is_not_asked_about(scripted: ScriptedStripe, gateway: StripeGateway) -> None:
    scripted.lists["/v1/subscriptions"][0]["status"] = "canceled"
    await the_fact(gateway)
    assert "/v1/invoices" not in scripted.calls


def entitlements(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"ent_{number:03}",
            "object": "entitlements.active_entitlement",
            "customer": "cus_1",
            "feature": f"feat_{number}",
            "livemode": False,
            "lookup_key": f"feature-{number:03}",
        }
        for number in range(count)
    ]


class Desk:
    """The pipeline over the scripted Stripe."""

    def __init__(self, gateway: StripeGateway, database: Database, wanted: Wanted) -> None:
        self.inbox, self.customers = Inbox(database), Customers(database)
        stripe_customers = StripeCustomers(database)
        self.sync = CustomerSync(
            gateway,
            stripe_customers,
            PAIR,
            edge_after=lambda _subscriptions, _at: None,
            now=lambda: float(NOW),
            published=self._published,
            wanted=wanted,
        )
        work = EventWork(
            gateway,
            self.sync,
            PriceCatalog(gateway, Catalog(database), PAIR, tiers=lambda: (), now=lambda: float(NOW)),
            pair=PAIR,
            inbox=self.inbox,
            stripe_customers=stripe_customers,
            checkouts=Checkouts(database),
            now=lambda: float(NOW),
        )
        self.receiver = WebhookReceiver(WEBHOOK_SECRET, PAIR, self.inbox, work, wall=time.time)

    async def _published(self, _versions: dict[str, int]) -> None:
        """Nobody listens."""

    async def send(self, event_type: str, about: dict[str, Any]) -> str:
        event = {"id": "evt_1", "object": "event", "type": event_type, "created": NOW, "livemode": False}
        delivery = signed({**event, "data": {"object": about}})
        verdict = await self.receiver.receive(delivery.body, delivery.signature, time.time())
        assert verdict.status == 200, verdict
        return verdict.detail


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = await opened(fresh_sqlite(tmp_path))
    yield found
    await found.dispose()


async def test_a_summary_of_eleven_features_gives_all_eleven(
    scripted: ScriptedStripe, gateway: StripeGateway, database: Database
) -> None:
    """Scenario 40: the event's own list is cut at ten, and its object has no id."""
    scripted.lists["/v1/entitlements/active_entitlements"] = entitlements(11)
    desk = Desk(gateway, database, Wanted(features=True))
    shown = {"object": "list", "data": entitlements(10), "has_more": True}
    about = {"object": "entitlements.active_entitlement_summary", "customer": "cus_1", "entitlements": shown}
    assert await desk.send("entitlements.active_entitlement_summary.updated", about) == "synced"
    facts = await desk.customers.read_facts(PAIR, "alice", NOW)
    assert facts.features == tuple(f"feature-{number:03}" for number in range(11))


async def test_features_beyond_a_page_are_all_read(scripted: ScriptedStripe, gateway: StripeGateway) -> None:
    scripted.lists["/v1/entitlements/active_entitlements"] = entitlements(250)
    assert len((await looked(gateway)).features) == 250


async def test_features_that_stripe_takes_back_are_gone_from_the_ledger(
    scripted: ScriptedStripe, gateway: StripeGateway, database: Database
) -> None:
    scripted.lists["/v1/entitlements/active_entitlements"] = entitlements(2)
    desk = Desk(gateway, database, Wanted(features=True))
    await desk.sync.sync_customer("cus_1", Priority.CUSTOMER)
    scripted.lists["/v1/entitlements/active_entitlements"] = entitlements(1)
    outcome = await desk.sync.sync_customer("cus_1", Priority.CUSTOMER)
    assert isinstance(outcome, Synced)
    assert outcome.repaired
    assert (await desk.customers.read_facts(PAIR, "alice", NOW)).features == ("feature-000",)


async def test_a_dispute_is_followed_to_the_customer_whom_it_does_not_name(
    scripted: ScriptedStripe, gateway: StripeGateway, database: Database
) -> None:
    dispute = {"id": "dp_1", "object": "dispute", "charge": "ch_2", "status": "needs_response"}
    scripted.lists["/v1/charges"][0]["disputed"] = True
    scripted.lists["/v1/disputes"].append(dispute)
    scripted.objects |= {"/v1/disputes/dp_1": dispute, "/v1/charges/ch_2": scripted.lists["/v1/charges"][0]}
    desk = Desk(gateway, database, Wanted(disputes=True))
    await desk.sync.sync_customer("cus_1", Priority.CUSTOMER)
    assert await desk.send("charge.dispute.created", dispute) == "synced"
    (fact,) = (await desk.customers.read_facts(PAIR, "alice", NOW)).subscriptions
    assert fact.disputed
    assert fact == replace(fact, refunded=False, latest_invoice="paid")


async def test_a_dispute_costs_no_call_where_no_option_wants_it(
    scripted: ScriptedStripe, gateway: StripeGateway, database: Database
) -> None:
    desk = Desk(gateway, database, Wanted())
    assert await desk.send("charge.dispute.created", {"id": "dp_1", "object": "dispute", "charge": "ch_2"}) == "ignored"
    assert not scripted.calls
