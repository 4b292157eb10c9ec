"""The catalogue that a gateway.yaml speaks of: products and prices with exactly the ids that it names.

It decides amounts and intervals: as `simulator.prices` states them, and else by guessing from names, so that any
gateway.yaml can be rehearsed. It must never make an event: a seeded catalogue has always been there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.simulator.entities import Price, Product

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from admin.simulator.periods import Interval
    from admin.simulator.store import Store
    from policies.schema import SimulatedPrice, Tier

AMOUNTS: Final = (2900, 9900, 29900, 99900)
"""What the first, second, … tier on sale costs a month, in cents."""

YEAR_COSTS_MONTHS: Final = 10
Rhythm = tuple["Interval", int]
_HINTS: Final[tuple[tuple[str, Rhythm], ...]] = (
    (r"quarter|3.?month", ("month", 3)),
    (r"half.?year|semi.?annual|6.?month", ("month", 6)),
    (r"year|annual|yr|12.?month", ("year", 1)),
    (r"month", ("month", 1)),
    (r"week", ("week", 1)),
    (r"daily|_day", ("day", 1)),
)
_UNHINTED: Final[tuple[Rhythm, ...]] = (("month", 1), ("year", 1), ("month", 3), ("month", 6), ("week", 1), ("day", 1))


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


def offers_from(tiers: Sequence[Tier], stated: Mapping[str, SimulatedPrice] | None = None) -> list[Offer]:
    """Offers for everything that the tiers name: prices as they are, products with two prices, lookup keys with one.

    What `stated` (`simulator.prices` of a gateway.yaml) says of one of these names holds; a product has then that one
    price. The rest is guessed: see `_rhythms`.
    """
    offers: list[Offer] = []
    known = stated or {}
    for place, tier in enumerate(tier for tier in tiers if tier.sold):
        monthly = AMOUNTS[place] if place < len(AMOUNTS) else AMOUNTS[-1] * (place - len(AMOUNTS) + 2)
        name = tier.name.replace("_", " ").replace("-", " ").title()
        own = f"prod_{_slug(tier.name)}"
        wanted = [_Wanted(price, price, own) for price in tier.prices]
        for product in tier.products:
            price = f"price_{_slug(product)}"
            if product in known:
                wanted.append(_Wanted(product, price, product))
            else:
                wanted += (_Wanted("month", f"{price}_monthly", product), _Wanted("year", f"{price}_yearly", product))
        wanted += (_Wanted(key, f"price_{_slug(key)}", own, key) for key in tier.lookup_keys)
        rhythms = _rhythms(wanted, known)
        offers += (
            _offer(one, rhythm, name, monthly, known.get(one.name)) for one, rhythm in zip(wanted, rhythms, strict=True)
        )
    return offers


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A price to be there. `name` is what gateway.yaml calls it, from which its rhythm is guessed."""

    name: str
    price: str
    product: str
    lookup_key: str | None = None


def _rhythms(wanted: Sequence[_Wanted], known: Mapping[str, SimulatedPrice]) -> list[Rhythm]:
    """How often each is paid: as stated, else as its name says, else what no other price of its product has yet.

    So the first id without a hint is monthly and the second yearly: two prices of one rhythm would be one too many, and
    a Billing portal takes none such.
    """
    found: list[Rhythm | None] = []
    for one in wanted:
        stated = known.get(one.name)
        if stated is not None and stated.interval is not None:
            found.append((stated.interval, stated.interval_count))
        else:
            found.append(next((rhythm for hint, rhythm in _HINTS if re.search(hint, one.name.lower())), None))
    result: list[Rhythm] = []
    for one, rhythm in zip(wanted, found, strict=True):
        taken = {taken for other, taken in zip(wanted, found, strict=True) if other.product == one.product}
        taken |= {given for other, given in zip(wanted, result, strict=False) if other.product == one.product}
        result.append(rhythm or next((free for free in _UNHINTED if free not in taken), _UNHINTED[0]))
    return result


def _offer(one: _Wanted, rhythm: Rhythm, name: str, monthly: int, stated: SimulatedPrice | None) -> Offer:
    interval, count = rhythm
    each = {"year": monthly * YEAR_COSTS_MONTHS, "month": monthly, "week": monthly // 4, "day": monthly // 30}[interval]
    amount = stated.amount if stated is not None and stated.amount is not None else each * count
    currency = stated.currency if stated is not None else "usd"
    return Offer(one.price, name, amount, currency, interval, count, one.lookup_key, one.product)


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


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower() or "one"
