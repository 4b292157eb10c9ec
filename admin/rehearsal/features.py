"""Stripe's own features, attached to what is sold in a rehearsal: more of them than the event about them lists.

It decides which product comes with what: one with eleven, a price that opens no tier with one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from admin.rehearsal.house import House

_MANY: Final = 11


async def features_on_sale(house: House) -> None:
    """Before anything is bought: a feature attached later reaches a subscription only with its next period."""
    prices = house.simulator.world.store.prices
    products = dict.fromkeys(prices[price].product for price in house.terms.prices)
    last, extra = [*products][-1], prices[house.terms.extra].product
    wanted = [(last, f"feature_{number}") for number in range(_MANY)]
    for product, key in (*wanted, (extra, "feature_of_no_tier")):
        made = await house.ask("POST", "/v1/entitlements/features", lookup_key=key, name=key)
        await house.ask("POST", f"/v1/products/{product}/features", entitlement_feature=str(made.json()["id"]))
