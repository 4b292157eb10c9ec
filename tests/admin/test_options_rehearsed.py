"""The options of `billing` at a whole gateway, with Stripe's own SDK moving the money in the simulator: what the docs say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import stripe

from admin.simulator import DEFAULT_API_KEY
from tests.support.house import House, house, token_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


OPTIONS = """
  require_paid_invoice: true
  revoke_on_refund: true
  revoke_on_dispute: true
  features_from: stripe
"""
ROUTES = """
  - path: /pro
    tier: pro
  - path: /reports
    features: [reports]
"""
TIERS = """
  - name: free
  - name: pro
    prices: [price_pro_monthly, price_pro_yearly]
  - name: enterprise
    prices: [price_ent]
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def strict(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A gateway with every option on; each test has a customer of its own."""
    directory = tmp_path_factory.mktemp("strict")
    async with house(directory, billing=OPTIONS, routes=ROUTES, tiers=TIERS) as running:
        yield running


@pytest.fixture(scope="module")
async def client(strict: House) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's SDK, as a merchant's own code uses it."""
    http = stripe.HTTPXClient()
    yield stripe.StripeClient(DEFAULT_API_KEY, base_addresses={"api": str(strict.stripe)}, http_client=http)
    await http.close_async()  # type: ignore[no-untyped-call]


async def subscription_of(client: stripe.StripeClient, customer: str) -> Any:
    page = await client.v1.subscriptions.list_async({"limit": 100})
    return next(one for one in page.data if one.metadata["gateway_customer"] == customer)


async def last_charge(client: stripe.StripeClient, subscription: Any) -> Any:
    """By the way that Stripe has left since 2025-03-31: invoice, its payment, that payment's charge."""
    payments = await client.v1.invoice_payments.list_async({"invoice": subscription.latest_invoice})
    charges = await client.v1.charges.list_async({"payment_intent": str(payments.data[0].payment.payment_intent)})
    return charges.data[0]


async def buyer(strict: House, client: stripe.StripeClient, name: str) -> tuple[str, Any]:
    """Somebody who has bought pro, and is in. The return page looks; eight events would have it looked at again."""
    await strict.steer("webhooks", enabled=False)
    await strict.buy(name)
    await strict.steer("webhooks", enabled=True)
    token = token_for(name)
    assert (await strict.get("/pro", token)).status_code == 200
    return token, await subscription_of(client, name)


async def test_a_refund_in_full_ends_access_until_the_next_paid_period(
    strict: House, client: stripe.StripeClient
) -> None:
    token, subscription = await buyer(strict, client, "refunded")
    charge = await last_charge(client, subscription)
    half = await client.v1.refunds.create_async({"charge": charge.id, "amount": 1000})
    assert (half.status, half.payment_intent) == ("succeeded", charge.payment_intent)
    assert await strict.steer("settle") == {"settled": True}
    assert (await strict.get("/pro", token)).status_code == 200
    await client.v1.refunds.create_async({"payment_intent": charge.payment_intent})
    await strict.until(402, "/pro", token)
    assert (await client.v1.charges.retrieve_async(charge.id)).amount_refunded == 2900
    assert (await subscription_of(client, "refunded")).status == "active"
    await strict.steer("clock/advance", days=31, wait=True)
    await strict.steer("clock/advance", seconds=3700, wait=True)
    await strict.until(200, "/pro", token)


async def test_a_dispute_ends_access_until_it_is_won_and_an_inquiry_does_not(
    strict: House, client: stripe.StripeClient
) -> None:
    token, subscription = await buyer(strict, client, "disputed")
    asked = await strict.steer("disputes", subscription=subscription.id, status="warning_needs_response")
    assert await strict.steer("settle") == {"settled": True}
    assert (await strict.get("/pro", token)).status_code == 200
    await client.v1.disputes.close_async(asked["id"])
    dispute = await strict.steer("disputes", subscription=subscription.id)
    await strict.until(402, "/pro", token)
    await client.v1.disputes.update_async(dispute["id"], {"evidence": {"uncategorized_text": "winning_evidence"}})
    await strict.until(200, "/pro", token)
    assert (await client.v1.disputes.retrieve_async(dispute["id"])).status == "won"


async def test_an_invoice_with_days_to_pay_gives_nothing_until_it_is_paid(
    strict: House, client: stripe.StripeClient
) -> None:
    token = token_for("net-30")
    owner = await client.v1.customers.create_async({"metadata": {"gateway_customer": "net-30"}})
    subscription = await client.v1.subscriptions.create_async(
        {
            "customer": owner.id,
            "items": [{"price": "price_pro_monthly"}],
            "collection_method": "send_invoice",
            "days_until_due": 30,
        }
    )
    assert subscription.status == "active"
    assert await strict.steer("settle") == {"settled": True}
    assert (await strict.get("/pro", token)).status_code == 402
    await client.v1.invoices.pay_async(str(subscription.latest_invoice), {"paid_out_of_band": True})
    await strict.until(200, "/pro", token)


async def test_what_stripes_entitlements_grant_opens_a_route_that_no_tier_has(
    strict: House, client: stripe.StripeClient
) -> None:
    feature = await client.v1.entitlements.features.create_async({"name": "Reports", "lookup_key": "reports"})
    await client.v1.products.features.create_async("prod_enterprise", {"entitlement_feature": feature.id})
    await strict.buy("entitled", "enterprise")
    token = token_for("entitled")
    answer = await strict.get("/reports", token)
    assert answer.status_code == 200
    assert strict.seen("x-gateway-features") == ["reports"]
    await client.v1.subscriptions.cancel_async((await subscription_of(client, "entitled")).id)
    await strict.until(403, "/reports", token)  # no tier on offer has it
    events = await client.v1.events.list_async({"type": "entitlements.active_entitlement_summary.updated"})
    before, after = reversed(events.data)
    assert [one["lookup_key"] for one in before.data.object["entitlements"]["data"]] == ["reports"]
    assert after.data.object["entitlements"]["data"] == []


async def test_the_quantity_that_is_paid_for_reaches_the_api_and_follows_a_change(
    strict: House, client: stripe.StripeClient
) -> None:
    token, subscription = await buyer(strict, client, "seats")
    assert strict.seen("x-gateway-quantity") == ["1"]
    item = subscription["items"].data[0]
    await client.v1.subscriptions.update_async(subscription.id, {"items": [{"id": item.id, "quantity": 7}]})
    assert await strict.steer("settle") == {"settled": True}
    await strict.until(200, "/pro", token)
    assert strict.seen("x-gateway-quantity") == ["7"]
