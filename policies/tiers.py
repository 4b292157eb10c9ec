"""The tiers as one ordered ladder, and which rung an item of a subscription stands on.

A tier has its own features and those of all tiers below it. A rank is an index into the ladder: 0 is the lowest tier
and `NO_TIER` is below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.facts import ItemFact
from policies.schema import Tier

NO_TIER: Final = -1


@dataclass(frozen=True, slots=True)
class Ladder:
    """Every tier of one configuration. `everybody_rank` is what a valid token alone gives: 0 or `NO_TIER`."""

    names: tuple[str, ...]
    features: tuple[tuple[str, ...], ...]
    sold: tuple[bool, ...]
    past_due_grace: tuple[float | None, ...]
    """In seconds, of those tiers that have one of their own."""
    everybody_rank: int
    _ranks: Mapping[str, int] = field(repr=False)
    _prices: Mapping[str, int] = field(repr=False)
    _pinned: Mapping[str, int] = field(repr=False)
    _lookup_keys: Mapping[str, int] = field(repr=False)
    _products: Mapping[str, int] = field(repr=False)

    def rank(self, tier: str) -> int:
        """The rank of a tier by name, `NO_TIER` when there is no such tier."""
        return self._ranks.get(tier, NO_TIER)

    def name(self, rank: int) -> str | None:
        """The tier at `rank`; None for `NO_TIER`."""
        return self.names[rank] if rank >= 0 else None

    def rank_of(self, item: ItemFact) -> int:
        """The tier that this item pays for, `NO_TIER` when none does.

        The price's own id decides first. A price once seen under a tier's lookup key stays in that tier, because
        Stripe moves lookup keys to other prices while subscriptions keep the old one. The product comes last.
        """
        for mapping, key in (
            (self._prices, item.price),
            (self._pinned, item.price),
            (self._lookup_keys, item.lookup_key),
            (self._products, item.product),
        ):
            if key is not None and (rank := mapping.get(key)) is not None:
                return rank
        return NO_TIER

    def cheapest_on_offer(self, min_rank: int) -> int:
        """The lowest sold tier at or above `min_rank`, `NO_TIER` when no price admits there."""
        return next((rank for rank in range(max(min_rank, 0), len(self.names)) if self.sold[rank]), NO_TIER)


def build_ladder(tiers: tuple[Tier, ...], pins: Mapping[str, str] | None = None) -> Ladder:
    """The ladder of a loaded configuration. `pins` maps prices to the tier under whose lookup key they were seen."""
    ranks = {tier.name: rank for rank, tier in enumerate(tiers)}
    cumulative: list[tuple[str, ...]] = []
    for tier in tiers:
        below = cumulative[-1] if cumulative else ()
        cumulative.append(below + tuple(feature for feature in tier.features if feature not in below))
    return Ladder(
        names=tuple(tier.name for tier in tiers),
        features=tuple(cumulative),
        sold=tuple(tier.sold for tier in tiers),
        past_due_grace=tuple(tier.past_due_grace for tier in tiers),
        everybody_rank=0 if tiers and not tiers[0].sold else NO_TIER,
        _ranks=ranks,
        _prices={price: rank for rank, tier in enumerate(tiers) for price in tier.prices},
        _pinned={price: ranks[name] for price, name in (pins or {}).items() if name in ranks},
        _lookup_keys={key: rank for rank, tier in enumerate(tiers) for key in tier.lookup_keys},
        _products={product: rank for rank, tier in enumerate(tiers) for product in tier.products},
    )
