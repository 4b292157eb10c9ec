"""What is on sale is what the file names and Stripe has, in the order of the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from admin.simulator import Offer as Seeded
from admin.simulator.faults import ApiFault
from admin.stripe.catalog import NotRefreshed, Refreshed
from admin.stripe.on_sale import CatalogProblem
from policies.offers import Offer
from policies.schema import Tier
from tests.admin.stripe.conftest import Shop


def priced(shop: Shop) -> Callable[[str], list[str]]:
    return lambda tier: [offer.price for offer in shop.catalog.offers_for(tier)]


async def test_offers_have_amounts_and_keep_the_order_of_the_file(shop: Shop) -> None:
    assert shop.catalog.offers_for("pro") == [
        Offer("pro", "price_pro_monthly", 2900, "usd", "month", 1),
        Offer("pro", "price_pro_yearly", 29000, "usd", "year", 1),
    ]
    assert shop.catalog.offers_for("free") == shop.catalog.offers_for("nonsense") == []


async def test_ids_that_stripe_does_not_know_are_named_with_their_tier(shop: Shop) -> None:
    shop.tiers = (
        Tier(name="pro", prices=("price_nowhere", "price_pro_monthly"), products=("prod_x",), lookup_keys=("key_x",)),
    )
    outcome = await shop.catalog.refresh()
    assert isinstance(outcome, Refreshed)
    missing = "is not known to this Stripe account and mode"
    assert outcome.problems == (
        CatalogProblem("pro", "prices", "price_nowhere", missing),
        CatalogProblem("pro", "products", "prod_x", missing),
        CatalogProblem("pro", "lookup_keys", "key_x", missing),
    )
    assert priced(shop)("pro") == ["price_pro_monthly"]


async def test_a_tier_given_by_products_sells_their_default_price(shop: Shop) -> None:
    product = await shop.client.v1.products.create_async(
        {
            "name": "Team",
            "default_price_data": {"currency": "usd", "unit_amount": 500, "recurring": {"interval": "month"}},
        }
    )
    shop.tiers = (Tier(name="pro", products=(product.id,)),)
    await shop.catalog.refresh()
    assert priced(shop)("pro") == [product.default_price]


async def test_an_archived_price_is_not_sold_and_a_single_payment_never(shop: Shop) -> None:
    await shop.client.v1.prices.update_async("price_pro_yearly", {"active": False})
    outcome = await shop.catalog.refresh()
    assert isinstance(outcome, Refreshed)
    assert [problem.id for problem in outcome.problems] == ["price_pro_yearly"]
    assert priced(shop)("pro") == ["price_pro_monthly"]


async def test_a_price_seen_under_a_lookup_key_stays_pinned_when_stripe_moves_the_key(shop: Shop) -> None:
    shop.tiers = (Tier(name="pro", lookup_keys=("pro_monthly",)),)
    assert await shop.catalog.refresh() == Refreshed((), pins_changed=True)
    assert await shop.catalog.refresh() == Refreshed((), pins_changed=False)
    moved: Any = {
        "product": shop.simulator.world.store.prices["price_pro_monthly"].product,
        "currency": "usd",
        "unit_amount": 3900,
        "recurring": {"interval": "month"},
        "lookup_key": "pro_monthly",
        "transfer_lookup_key": True,
    }
    fresh = await shop.client.v1.prices.create_async(moved)
    assert await shop.catalog.refresh() == Refreshed((), pins_changed=True)
    assert shop.catalog.pins == {"price_pro_monthly": "pro", fresh.id: "pro"}
    assert priced(shop)("pro") == [fresh.id]


async def test_a_key_that_the_file_moves_to_another_tier_takes_its_price_along(shop: Shop) -> None:
    shop.tiers = (Tier(name="pro", lookup_keys=("pro_monthly",)), Tier(name="team"))
    await shop.catalog.refresh()
    shop.tiers = (Tier(name="pro"), Tier(name="team", lookup_keys=("pro_monthly",)))
    await shop.catalog.refresh()
    assert shop.catalog.pins == {"price_pro_monthly": "team"}


async def test_many_lookup_keys_are_asked_for_in_tens(shop: Shop) -> None:
    keys = tuple(f"key_{number}" for number in range(23))
    shop.simulator.seed([Seeded(f"price_{key}", key, 100, lookup_key=key) for key in keys])
    shop.tiers = (Tier(name="pro", lookup_keys=keys),)
    await shop.catalog.refresh()
    assert priced(shop)("pro") == [f"price_{key}" for key in keys]


async def test_while_stripe_is_out_of_reach_everything_stays_on_sale(shop: Shop) -> None:
    before = shop.catalog.offers_for("pro")
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert isinstance(await shop.catalog.refresh(), NotRefreshed)
    assert shop.catalog.offers_for("pro") == before
    shop.rewire()
    assert shop.catalog.offers_for("pro") == [Offer("pro", "price_pro_monthly"), Offer("pro", "price_pro_yearly")]
    await shop.catalog.load()
    assert shop.catalog.offers_for("pro") == before
