"""The catalogue that a gateway.yaml speaks of: products and prices with exactly the ids that it names.

It decides amounts and intervals by guessing from names, so that any gateway.yaml can be rehearsed. It must never make an
event: a seeded catalogue has always been there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.simulator.entities import Price, Product

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from admin.simulator.periods import Interval
    from admin.simulator.store import Store
    from policies.schema import Tier

AMOUNTS: Final = (2900, 9900, 29900, 99900)
"""What the first, second, … tier on sale costs a month, in cents."""

YEAR_COSTS_MONTHS: Final = 10
_INTERVALS: Final[tuple[tuple[str, Interval], ...]] = (
    (r"year|annual|yr", "year"),
    (r"month", "month"),
    (r"week", "week"),
    (r"daily|_day", "day"),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One price to be there. `amount` in the currency's smallest unit; `product` is made up from the name if empty."""

    price: str
    product_name: str
    amount: int
    currency: str = "usd"
    interval: Interval = "month"
    interval_count: int = 1
    lookup_key: str | None = None
    product: str = ""
    description: str | None = None


def offers_from(tiers: Sequence[Tier]) -> list[Offer]:
    """Offers for everything that the tiers name: prices as they are, products with two prices, lookup keys with one."""
    offers: list[Offer] = []
    sold = [tier for tier in tiers if tier.sold]
    for place, tier in enumerate(sold):
        monthly = AMOUNTS[place] if place < len(AMOUNTS) else AMOUNTS[-1] * (place - len(AMOUNTS) + 2)
        name = tier.name.replace("_", " ").replace("-", " ").title()
        own = f"prod_{_slug(tier.name)}"
        offers.extend(_guess(price, price, name, own, monthly) for price in tier.prices)
        for product in tier.products:
            offers.append(_guess(f"price_{_slug(product)}_monthly", "month", name, product, monthly))
            offers.append(_guess(f"price_{_slug(product)}_yearly", "year", name, product, monthly))
        offers.extend(
            _guess(f"price_{_slug(key)}", key, name, own, monthly, lookup_key=key) for key in tier.lookup_keys
        )
    return offers


def seed(store: Store, offers: Iterable[Offer], now: int) -> None:
    """Put the offers into the books; what is there already stays as it is."""
    for offer in offers:
        product_id = offer.product or f"prod_{_slug(offer.product_name)}"
        product = store.products.setdefault(
            product_id, Product(product_id, offer.product_name, now, now, offer.description)
        )
        holder = store.price_with_key(offer.lookup_key) if offer.lookup_key is not None else None
        if holder is not None and holder.id != offer.price:
            raise ValueError(
                f"two prices, {holder.id} and {offer.price}, would have the lookup key {offer.lookup_key!r}"
            )
        store.prices.setdefault(
            offer.price,
            Price(
                offer.price,
                product_id,
                offer.currency,
                offer.amount,
                now,
                interval=offer.interval,
                interval_count=offer.interval_count,
                lookup_key=offer.lookup_key,
            ),
        )
        product.default_price = product.default_price or offer.price


def _guess(price: str, hint: str, name: str, product: str, monthly: int, *, lookup_key: str | None = None) -> Offer:
    interval: Interval = next(
        (interval for pattern, interval in _INTERVALS if re.search(pattern, hint.lower())), "month"
    )
    amount = {"year": monthly * YEAR_COSTS_MONTHS, "month": monthly, "week": monthly // 4, "day": monthly // 30}[
        interval
    ]
    return Offer(price, name, amount, interval=interval, lookup_key=lookup_key, product=product)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower() or "one"
