"""Which invoice says whether a subscription is paid for, and that one look is one moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from admin.stripe.client import StripeGateway
from admin.stripe.payments import Wanted
from tests.support.paid_customer import (
    EVERYTHING,
    MONTH,
    NOW,
    invoice,
    the_fact,
)
from tests.support.scripted_stripe import ScriptedStripe


def of_a_change(status: str, *, to: str = "price_pro_monthly", quantity: int = 4, **more: Any) -> dict[str, Any]:
    rest = {"amount": -900, "quantity": 4, "pricing": {"price_details": {"price": "price_pro_monthly"}}}
    new = {"amount": 1000, "quantity": quantity, "pricing": {"price_details": {"price": to}}}
    lines = {"object": "list", "data": [rest, new], "has_more": False}
    return {**invoice("in_9", status), "billing_reason": "subscription_update", "lines": lines, **more}


@pytest.mark.parametrize(
    ("newest", "counts"),
    [
        (of_a_change("void", to="price_team"), "paid"),
        (of_a_change("void", quantity=5), "paid"),
        (of_a_change("void"), "void"),
        (of_a_change("void", to="price_team", billing_reason="subscription_cycle"), "void"),
        (of_a_change("void", to="price_team", billing_reason="subscription_create"), "void"),
        (of_a_change("void", lines={}), "void"),
        (of_a_change("void", lines={"data": [{"amount": 1000, "quantity": 4}]}), "void"),
        (of_a_change("void", lines={"data": [{"amount": 9, "quantity": 4, "price": {"id": "price_team"}}]}), "paid"),
        (of_a_change("void", lines={"data": [{"amount": 9, "quantity": 4, "plan": {"id": "plan team"}}]}), "paid"),
        (of_a_change("open", to="price_team"), "open"),
        (of_a_change("uncollectible", to="price_team"), "uncollectible"),
        (of_a_change("paid", to="price_team"), "paid"),
    ],
)
async def test_the_void_invoice_of_a_change_counts_where_the_change_is_in_force(
    scripted: ScriptedStripe, gateway: StripeGateway, newest: dict[str, Any], counts: str
) -> None:
    scripted.lists["/v1/invoices"].insert(0, newest)
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice == counts


async def test_a_change_that_waits_for_its_payment_says_nothing_of_what_they_have(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    (listed,) = scripted.lists["/v1/subscriptions"]
    scripted.lists["/v1/invoices"].insert(0, of_a_change("open", to="price_team"))
    listed["pending_update"] = {"expires_at": NOW + 3600, "subscription_items": [{"id": "si_1"}]}
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice == "paid"
    # There is one such change at a time: what an earlier one left open is owed.
    scripted.lists["/v1/invoices"].insert(1, of_a_change("open", to="price_old", id="in_8"))
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice == "open"


async def test_a_change_of_many_items_is_read_to_its_last_line(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    lines = of_a_change("void", to="price_team")["lines"]
    scripted.lists["/v1/invoices/in_9/lines"] = [
        {**line, "id": f"il_{number}"}
        for number, line in enumerate([*lines["data"], *of_a_change("void")["lines"]["data"]])
    ]
    scripted.lists["/v1/invoices"].insert(0, of_a_change("void", lines={**lines, "has_more": True}))
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice == "void"


async def test_behind_many_changes_that_never_came_the_last_payment_is_found(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    scripted.lists["/v1/invoices"][:0] = [
        {**of_a_change("void", to="price_team"), "id": f"in_{number}"} for number in range(20, 32)
    ]
    scripted.lists["/v1/charges"][0]["refunded"] = True
    fact = await the_fact(gateway, replace(EVERYTHING, features=False))
    assert (fact.latest_invoice, fact.refunded) == ("paid", True)
    scripted.lists["/v1/invoices"][-2:] = []
    assert (await the_fact(gateway, Wanted(invoices=True))).latest_invoice is None


async def test_items_of_two_moments_are_looked_at_again(scripted: ScriptedStripe, gateway: StripeGateway) -> None:
    (listed,) = scripted.lists["/v1/subscriptions"]
    (before,) = listed["items"]["data"]
    renewed = {**before, "current_period_start": NOW + MONTH, "current_period_end": NOW + 2 * MONTH}
    listed["items"]["has_more"] = True
    scripted.lists["/v1/subscription_items"] = [
        {**renewed, "subscription": "sub_1"},
        {**renewed, "subscription": "sub_1", "id": "si_2", "price": {"id": "price_extra", "product": "prod"}},
    ]
    again = {**listed, "status": "past_due", "items": {"data": [renewed], "has_more": True}}
    scripted.objects["/v1/subscriptions/sub_1"] = again
    fact = await the_fact(gateway, Wanted())
    assert fact.status == "past_due"
    assert {item.period_end for item in fact.items} == {NOW + 2 * MONTH}
    assert scripted.calls["/v1/subscriptions/sub_1"] == 1


async def test_money_that_went_back_counts_also_behind_a_change_that_cost_nothing(
    scripted: ScriptedStripe, gateway: StripeGateway
) -> None:
    scripted.lists["/v1/charges"][0]["refunded"] = True
    scripted.lists["/v1/invoices"].insert(0, of_a_change("paid", amount_due=0))
    assert (await the_fact(gateway)).refunded is True
    scripted.lists["/v1/invoices"][0]["amount_due"] = 100
    assert (await the_fact(gateway)).refunded is False
