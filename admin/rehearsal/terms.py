"""What is sold in a rehearsal and how late money may be, read off a gateway.yaml.

It decides what each price of the simulated catalogue is worth, for the oracle, by reading the tiers as a person does:
a price's own id, else its lookup key, else its product. It must never ask `policies.tiers`, whose answer is judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.rehearsal.oracle import NOTHING, Leniency
from admin.simulator import Offer
from admin.simulator.seeding import offers_from
from policies.entitlement import BillingRules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.schema import Config, Tier

_FOREIGN: Final = "price_extra"
_FOREIGNERS: Final = 10
"""With one more the list of a subscription's items is cut off."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one merchant. `everybody` is the rank that costs nothing, `NOTHING` where there is none."""

    tiers: tuple[Tier, ...]
    rules: BillingRules
    offers: tuple[Offer, ...]
    prices: tuple[str, ...]
    """What people buy."""
    extras: tuple[str, ...]
    """Prices that open no tier, beside another or alone: as many as Stripe shows items of a subscription."""
    ranks: Mapping[str, int]
    leniency: Leniency
    everybody: int
    features: tuple[frozenset[str], ...]
    """Of each rank: its own features and those of the ranks below."""

    @property
    def extra(self) -> str:
        """One of the prices that open no tier."""
        return self.extras[0]

    @property
    def asks_for_money(self) -> bool:
        """Whether it is looked at how bills were paid."""
        return self.leniency.only_paid or self.leniency.refunds_end or self.leniency.disputes_end

    @property
    def on_sale(self) -> tuple[str, ...]:
        """The names of the tiers that cost something."""
        return tuple(tier.name for tier in self.tiers if tier.sold)


def terms_of(tiers: tuple[Tier, ...], rules: BillingRules, sold: tuple[Offer, ...], extra: str = _FOREIGN) -> Terms:
    """Terms over what is sold, beside which `extra` and its like belong to no tier."""
    extras = (extra, *(f"{extra}_{number}" for number in range(2, _FOREIGNERS + 1)))
    catalogue = (*sold, *(Offer(price, "Extra storage", 300, product=f"prod_{extra}") for price in extras))
    offers = {offer.price: offer for offer in reversed(catalogue)}  # the first of two with one id is the one there is
    ranks = {price: _rank(offer, tiers) for price, offer in offers.items()}
    graces = {price: tiers[rank].past_due_grace for price, rank in ranks.items() if rank != NOTHING}
    return Terms(
        tiers=tiers,
        rules=rules,
        offers=catalogue,
        prices=tuple(dict.fromkeys(offer.price for offer in catalogue if ranks[offer.price] != NOTHING)),
        extras=extras,
        ranks=ranks,
        leniency=Leniency(
            leeway=rules.renewal_leeway,
            grace=rules.past_due_grace,
            own_graces={price: grace for price, grace in graces.items() if grace is not None},
            only_paid=rules.require_paid_invoice,
            refunds_end=rules.revoke_on_refund,
            disputes_end=rules.revoke_on_dispute,
        ),
        everybody=0 if tiers and not tiers[0].sold else NOTHING,
        features=tuple(
            frozenset(feature for tier in tiers[: rank + 1] for feature in tier.features) for rank in range(len(tiers))
        ),
    )


def terms_from(config: Config) -> Terms | None:
    """What a gateway.yaml sells and allows; None where it sells nothing."""
    catalogue = offers_from(config.tiers, config.simulator.prices)
    if not catalogue:
        return None
    taken = {offer.price for offer in catalogue} | {key for tier in config.tiers for key in tier.lookup_keys}
    taken |= {product for tier in config.tiers for product in tier.products}
    extra = _FOREIGN
    while any(one.startswith((extra, f"prod_{extra}")) for one in taken):
        extra += "_"
    rules = BillingRules.of(config.billing)
    return terms_of(config.tiers, rules, tuple(catalogue), extra)


def _rank(offer: Offer, tiers: tuple[Tier, ...]) -> int:
    product = offer.product or f"prod_{offer.product_name.lower()}"
    for rank, tier in enumerate(tiers):
        if offer.price in tier.prices:
            return rank
    for rank, tier in enumerate(tiers):
        if offer.lookup_key in tier.lookup_keys:
            return rank
    return next((rank for rank, tier in enumerate(tiers) if product in tier.products), NOTHING)
