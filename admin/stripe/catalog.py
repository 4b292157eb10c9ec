"""What is on sale: the prices that the file's tiers name, as Stripe has them.

It decides which price a tier offers, in which order, and which ids of the file Stripe doesn't know. A price once seen
under a tier's lookup key is pinned to that tier, because Stripe moves lookup keys while subscriptions keep their price.
It must never take a price off the list because Stripe could not be asked: what was known stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from admin.ledger.catalog import Catalog, StoredPrice
from admin.stripe.budget import Priority
from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.fetch import Failed
from admin.stripe.objects import Malformed, ReadPrice, read_price
from admin.stripe.on_sale import CatalogProblem, ask_for_prices
from policies.offers import Offer

if TYPE_CHECKING:
    from admin.ledger.pair import Pair
    from policies.schema import Tier

_log = logging.getLogger(__name__)

REFRESH_EVERY_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The catalog is as Stripe has it. `pins_changed`: the ladder must be built anew."""

    problems: tuple[CatalogProblem, ...]
    pins_changed: bool


@dataclass(frozen=True, slots=True)
class NotRefreshed:
    """Stripe could not be asked, or said no; what was known stays on sale."""

    detail: str


RefreshOutcome: TypeAlias = Refreshed | NotRefreshed


class PriceCatalog:
    """Prices of the configured tiers, for one account in one mode."""

    def __init__(
        self,
        gateway: StripeGateway,
        catalog: Catalog,
        pair: Pair,
        *,
        tiers: Callable[[], tuple[Tier, ...]],
        now: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._catalog = catalog
        self._pair = pair
        self._tiers = tiers
        self._now = now
        self._sellable: dict[str, tuple[ReadPrice, ...]] = {}
        self._metered: dict[str, bool] = {}
        self._turn = asyncio.Lock()
        self._begun = 0
        self._outcome: RefreshOutcome | None = None
        self.pins: dict[str, str] = {}
        self.problems: tuple[CatalogProblem, ...] = ()

    async def load(self) -> None:
        """Take up what the ledger knows: at a start while Stripe is out of reach, or what another process has learned."""
        pins = await self._catalog.pins(self._pair)
        stored = {price.id: price for price in await self._catalog.prices(self._pair)}
        known = {tier.name: tuple(_known(tier, stored, self._metered)) for tier in self._tiers()}
        self._sellable = {tier: prices for tier, prices in known.items() if prices}
        self.pins = pins

    async def refresh(self, priority: Priority = Priority.WEBHOOK) -> RefreshOutcome:
        """Ask Stripe for everything the file names, and keep it. Calls that wait for a turn share the next one."""
        seen = self._begun
        async with self._turn:
            if self._begun == seen or self._outcome is None:
                self._begun += 1
                self._outcome = None  # one that raises has no outcome to share
                self._outcome = await self._refresh(priority)
            return self._outcome

    def offers_for(self, tier: str) -> list[Offer]:
        """The tier's prices in the order of the file. Until Stripe was asked: its price ids, without amounts."""
        known = self._sellable.get(tier)
        if known is None:
            named = next((entry for entry in self._tiers() if entry.name == tier), None)
            return [Offer(tier, price) for price in named.prices] if named else []
        return [
            Offer(tier, price.id, price.amount, price.currency, price.interval, price.interval_count) for price in known
        ]

    def has_asked(self, tier: str) -> bool:
        """Whether Stripe was asked what this tier sells: before that, nothing on offer means nothing."""
        return tier in self._sellable

    def prices_of(self, tier: str) -> tuple[ReadPrice, ...]:
        """The tier's prices as Stripe has them; empty until it was asked."""
        return self._sellable.get(tier, ())

    async def is_metered(self, price_id: str, priority: Priority) -> bool | None:
        """Whether the price is billed by use: as last fetched here, else as Stripe says; None when it can't be asked."""
        if price_id not in self._metered:
            answer = await self._gateway.get(path("prices", price_id), priority=priority)
            if isinstance(answer, StripeUnavailable | StripeRefused):
                return None
            price = read_price(answer)
            if isinstance(price, Malformed):
                return None
            self._metered[price_id] = price.metered  # a price never changes in this
        return self._metered[price_id]

    async def _refresh(self, priority: Priority) -> RefreshOutcome:
        found = await ask_for_prices(self._gateway, self._tiers(), priority)
        if isinstance(found, Failed):
            return NotRefreshed(found.detail)
        now = int(self._now())
        await self._catalog.replace_prices(
            self._pair, [_stored(price, price.id in found.defaults, now) for price in found.prices.values()]
        )
        before = self.pins
        for price, tier_name in found.seen_by_key:
            if before.get(price) != tier_name:
                # `replace`: a key that the file now lists under another tier takes the price that holds it along.
                await self._catalog.pin(self._pair, price, tier_name, replace=True)
        self.pins = await self._catalog.pins(self._pair)
        self._sellable = {name: tuple(prices) for name, prices in found.sellable.items()}
        self._metered |= {price.id: price.metered for price in found.prices.values()}
        self.problems = tuple(found.problems)
        for problem in self.problems:
            _log.warning("tier %s: %s %s %s", problem.tier, problem.setting, problem.id, problem.problem)
        return Refreshed(self.problems, pins_changed=self.pins != before)


def _stored(price: ReadPrice, is_default: bool, now: int) -> StoredPrice:
    return StoredPrice(
        id=price.id,
        product=price.product,
        lookup_key=price.lookup_key,
        unit_amount=price.amount,
        currency=price.currency,
        interval=price.interval,
        interval_count=price.interval_count,
        active=price.active,
        default_of_product=is_default,
        fetched_at=now,
    )


def _known(tier: Tier, stored: dict[str, StoredPrice], metered: dict[str, bool]) -> list[ReadPrice]:
    """The tier's prices among those stored, in the order of the file."""
    named = [stored[price] for price in tier.prices if price in stored]
    for product in tier.products:
        named += [price for price in stored.values() if price.product == product and price.default_of_product]
    for key in tier.lookup_keys:
        named += [price for price in stored.values() if price.lookup_key == key]
    return [
        ReadPrice(
            id=price.id,
            product=price.product,
            lookup_key=price.lookup_key,
            active=True,
            amount=price.unit_amount,
            currency=price.currency,
            interval=price.interval,
            interval_count=price.interval_count or 1,
            metered=metered.get(price.id, False),
        )
        for price in dict.fromkeys(named)
        if price.active and price.interval is not None
    ]
