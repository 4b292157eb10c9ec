"""What Stripe says of every id that the file's tiers name: the prices behind them, and what is wrong with the rest.

It decides what can be sold and what only pays. It must never take "could not be asked" for "is not there".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.fetch import Failed, failed
from admin.stripe.fields import Json, merchant_id
from admin.stripe.objects import Malformed, ReadPrice, read_price

if TYPE_CHECKING:
    from collections.abc import Iterable

    from admin.stripe.budget import Priority
    from policies.schema import Tier

UNKNOWN: Final = "is not known to this Stripe account and mode"
_KEYS_PER_CALL: Final = 10
"""Stripe's limit on `lookup_keys`."""


@dataclass(frozen=True, slots=True)
class CatalogProblem:
    """An id of the file that can't be sold. `setting` is `prices`, `products` or `lookup_keys`."""

    tier: str
    setting: str
    id: str
    problem: str


@dataclass(slots=True)
class OnSale:
    """What was found. `sellable` is by tier, in the order of the file."""

    sellable: dict[str, list[ReadPrice]] = field(default_factory=dict)
    prices: dict[str, ReadPrice] = field(default_factory=dict)
    defaults: set[str] = field(default_factory=set)
    seen_by_key: list[tuple[str, str]] = field(default_factory=list)
    problems: list[CatalogProblem] = field(default_factory=list)


class _StoppedError(Exception):
    def __init__(self, failure: Failed) -> None:
        super().__init__(failure.detail)
        self.failure = failure


async def ask_for_prices(gateway: StripeGateway, tiers: Iterable[Tier], priority: Priority) -> OnSale | Failed:
    """Everything that these tiers name; all of it or a failure."""
    question = _Question(gateway, priority)
    try:
        for tier in tiers:
            question.found.sellable[tier.name] = await question.of(tier)
    except _StoppedError as stop:
        return stop.failure
    return question.found


class _Question:
    def __init__(self, gateway: StripeGateway, priority: Priority) -> None:
        self._gateway = gateway
        self._priority = priority
        self.found = OnSale()

    async def of(self, tier: Tier) -> list[ReadPrice]:
        prices: list[ReadPrice] = []
        for price_id in tier.prices:
            answer = await self._ask(path("prices", price_id))
            prices += self._usable(tier, "prices", price_id, answer)
        for product_id in tier.products:
            answer = await self._ask(path("products", product_id))
            default = merchant_id(answer.get("default_price")) if answer is not None else None
            if answer is None or default is None:
                problem = UNKNOWN if answer is None else "has no default price"
                self.found.problems.append(CatalogProblem(tier.name, "products", product_id, problem))
                continue
            self.found.defaults.add(default)
            answer = await self._ask(path("prices", default))
            prices += self._usable(tier, "products", product_id, answer)
        prices += await self._by_lookup_key(tier)
        return list({price.id: price for price in prices}.values())

    async def _by_lookup_key(self, tier: Tier) -> list[ReadPrice]:
        by_key: dict[str, Json] = {}
        for start in range(0, len(tier.lookup_keys), _KEYS_PER_CALL):
            keys = list(tier.lookup_keys[start : start + _KEYS_PER_CALL])
            answer = await self._gateway.list_all("/v1/prices", {"lookup_keys": keys}, priority=self._priority)
            if isinstance(answer, StripeUnavailable | StripeRefused):
                raise _StoppedError(failed(answer))
            by_key |= {key: entry for entry in answer if isinstance(key := entry.get("lookup_key"), str)}
        prices: list[ReadPrice] = []
        for key in tier.lookup_keys:
            usable = self._usable(tier, "lookup_keys", key, by_key.get(key))
            self.found.seen_by_key += [(price.id, tier.name) for price in usable]
            prices += usable
        return prices

    def _usable(self, tier: Tier, setting: str, named: str, answer: Json | None) -> list[ReadPrice]:
        """The price, if it can be sold; else nothing, and a problem."""
        price = None if answer is None else read_price(answer)
        if price is None:
            problem = UNKNOWN
        elif isinstance(price, Malformed):
            problem = f"can't be read: {price.detail}"
        else:
            self.found.prices[price.id] = price
            if price.interval is None:
                problem = "is no recurring price"
            elif not price.active:
                problem = "is archived: who has it keeps it, but it can't be bought"
            else:
                return [price]
        self.found.problems.append(CatalogProblem(tier.name, setting, named, problem))
        return []

    async def _ask(self, where: str) -> Json | None:
        """The object, None when there is no such one."""
        answer = await self._gateway.get(where, priority=self._priority)
        if isinstance(answer, StripeRefused) and answer.is_missing:
            return None
        if isinstance(answer, StripeUnavailable | StripeRefused):
            raise _StoppedError(failed(answer))
        return None if answer.get("deleted") is True else answer
