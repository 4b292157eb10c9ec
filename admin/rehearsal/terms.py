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


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one merchant. `everybody` is the rank that costs nothing, `NOTHING` where there is none."""

    tiers: tuple[Tier, ...]
    rules: BillingRules
    offers: tuple[Offer, ...]
    prices: tuple[str, ...]
    """What people buy."""
    extra: str
    """A price that opens no tier, beside another or alone."""
    ranks: Mapping[str, int]
    leniency: Leniency
    everybody: int

    @property
    def on_sale(self) -> tuple[str, ...]:
        """The names of the tiers that cost something."""
        return tuple(tier.name for tier in self.tiers if tier.sold)


def terms_of(
    tiers: tuple[Tier, ...], rules: BillingRules, catalogue: tuple[Offer, ...], extra: str = _FOREIGN
) -> Terms:
    """Terms over this catalogue, of which `extra` belongs to no tier."""
    offers = {offer.price: offer for offer in reversed(catalogue)}  # the first of two with one id is the one there is
    ranks = {price: _rank(offer, tiers) for price, offer in offers.items()}
    graces = {price: tiers[rank].past_due_grace for price, rank in ranks.items() if rank != NOTHING}
    return Terms(
        tiers=tiers,
        rules=rules,
        offers=catalogue,
        prices=tuple(dict.fromkeys(offer.price for offer in catalogue if ranks[offer.price] != NOTHING)),
        extra=extra,
        ranks=ranks,
        leniency=Leniency(
            leeway=rules.renewal_leeway,
            grace=rules.past_due_grace,
            own_graces={price: grace for price, grace in graces.items() if grace is not None},
        ),
        everybody=0 if tiers and not tiers[0].sold else NOTHING,
    )


def terms_from(config: Config) -> Terms | None:
    """What a gateway.yaml sells and allows; None where it sells nothing.

    Its options that narrow access stay out: the simulated Stripe has no refunds and disputes, and the oracle no opinion
    on `require_paid_invoice`. `left_out` names them.
    """
    catalogue = offers_from(config.tiers, config.simulator.prices)
    if not catalogue:
        return None
    taken = {offer.price for offer in catalogue} | {key for tier in config.tiers for key in tier.lookup_keys}
    taken |= {product for tier in config.tiers for product in tier.products}
    extra = _FOREIGN
    while extra in taken or f"prod_{extra}" in taken:
        extra += "_"
    foreign = Offer(extra, "Extra storage", 300, product=f"prod_{extra}")
    billing = config.billing
    rules = BillingRules(renewal_leeway=billing.renewal_leeway, past_due_grace=billing.past_due_grace)
    return terms_of(config.tiers, rules, (*catalogue, foreign), extra)


def left_out(config: Config) -> tuple[str, ...]:
    """The settings of `billing` that a rehearsal takes no account of, where they say something."""
    billing = config.billing
    options = {
        "require_paid_invoice": billing.require_paid_invoice,
        "revoke_on_refund": billing.revoke_on_refund,
        "revoke_on_dispute": billing.revoke_on_dispute,
        "features_from": billing.features_from == "stripe",
    }
    return tuple(name for name, is_set in options.items() if is_set)


def _rank(offer: Offer, tiers: tuple[Tier, ...]) -> int:
    product = offer.product or f"prod_{offer.product_name.lower()}"
    for rank, tier in enumerate(tiers):
        if offer.price in tier.prices:
            return rank
    for rank, tier in enumerate(tiers):
        if offer.lookup_key in tier.lookup_keys:
            return rank
    return next((rank for rank, tier in enumerate(tiers) if product in tier.products), NOTHING)
