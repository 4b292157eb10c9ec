"""One customer of a scripted Stripe, who has paid two invoices: what is asked of their money, and what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from admin.stripe.budget import PacedBudget, Priority
from admin.stripe.client import StripeGateway
from admin.stripe.fetch import Fetched, fetch_customer
from admin.stripe.payments import Wanted
from policies.facts import SubscriptionFact
from tests.support.scripted_stripe import ScriptedStripe, scripted_stripe

NOW = 1_800_000_000
MONTH = 30 * 86_400
EVERYTHING = Wanted(invoices=True, refunds=True, disputes=True, features=True)


@asynccontextmanager
async def paid_customer() -> AsyncIterator[ScriptedStripe]:
    """`cus_1` with one active subscription, `sub_1`."""
    async with scripted_stripe() as found:
        item = {
            "id": "si_1",
            "price": {"id": "price_pro_monthly", "product": "prod"},
            "quantity": 4,
            "current_period_start": NOW,
            "current_period_end": NOW + MONTH,
        }
        found.objects["/v1/customers/cus_1"] = {
            "id": "cus_1",
            "object": "customer",
            "metadata": {"gateway_customer": "alice"},
        }
        found.lists["/v1/subscriptions"] = [
            {
                "id": "sub_1",
                "object": "subscription",
                "customer": "cus_1",
                "status": "active",
                "created": NOW,
                "items": {"object": "list", "data": [item], "has_more": False},
            }
        ]
        found.lists["/v1/invoices"] = [invoice("in_2", "paid"), invoice("in_1", "paid")]
        payment = {"type": "payment_intent", "payment_intent": "pi_2"}
        found.lists["/v1/invoice_payments"] = [
            {"id": "inpay_2", "invoice": "in_2", "status": "paid", "payment": payment}
        ]
        found.lists["/v1/charges"] = [charge("ch_2", "pi_2"), {**charge("ch_0", "pi_2"), "status": "failed"}]
        found.lists["/v1/disputes"] = []
        found.lists["/v1/entitlements/active_entitlements"] = []
        yield found


@asynccontextmanager
async def unhurried(scripted: ScriptedStripe) -> AsyncIterator[StripeGateway]:
    """A client of it that no budget holds up."""
    found = StripeGateway("sk_test_x", scripted.base, budget=PacedBudget(1000, burst=1000), jitter=lambda: 0.0)
    yield found
    await found.aclose()


def invoice(invoice_id: str, status: str) -> dict[str, Any]:
    return {"id": invoice_id, "object": "invoice", "subscription": "sub_1", "status": status, "created": NOW}


def charge(charge_id: str, intent: str, **more: Any) -> dict[str, Any]:
    whole = {"id": charge_id, "object": "charge", "customer": "cus_1", "payment_intent": intent, "status": "succeeded"}
    return {**whole, "refunded": False, "disputed": False, **more}


async def looked(gateway: StripeGateway, wanted: Wanted = EVERYTHING) -> Fetched:
    outcome = await fetch_customer(gateway, "cus_1", Priority.CUSTOMER, wanted=wanted)
    assert isinstance(outcome, Fetched), outcome
    return outcome


async def the_fact(gateway: StripeGateway, wanted: Wanted = EVERYTHING) -> SubscriptionFact:
    (fact,) = (await looked(gateway, wanted)).subscriptions
    return fact
