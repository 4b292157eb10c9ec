"""What the campaign sells: a tier by prices, one by a lookup key, one by a product, and prices that open nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from admin.rehearsal.house import HOUR
from admin.rehearsal.terms import Terms, terms_of
from admin.simulator import Offer
from policies.entitlement import BillingRules
from policies.schema import Tier

LEEWAY, GRACE = 48.0 * HOUR, 72.0 * HOUR
RULES: Final = BillingRules(renewal_leeway=LEEWAY, past_due_grace=GRACE)
TIERS: Final = (
    Tier(name="free", features=("look",)),
    Tier(name="pro", prices=("price_pro_monthly", "price_pro_yearly", "price_pro_legacy"), features=("export",)),
    Tier(name="team", lookup_keys=("team_now",), past_due_grace=24.0 * HOUR),
    Tier(name="enterprise", products=("prod_enterprise",), features=("audit", "sso")),
)
OFFERS: Final = (
    Offer("price_pro_monthly", "Pro", 2900),
    Offer("price_pro_yearly", "Pro", 29000, interval="year"),
    Offer("price_team_weekly", "Team", 4900, interval="week", lookup_key="team_now"),
    Offer("price_ent", "Enterprise", 9900),
    # What a price is named for counts before what it is a price of.
    Offer("price_pro_legacy", "Enterprise", 1900),
)


def terms(**options: bool) -> Terms:
    """What the campaign sells, under these options of `billing`."""
    return terms_of(TIERS, replace(RULES, **options), OFFERS)


TERMS: Final[Terms] = terms()
EVERYBODY: Final = TERMS.everybody
_OPTIONS: Final = (
    TERMS,
    TERMS,
    terms(require_paid_invoice=True),
    terms(revoke_on_refund=True, features_from_stripe=True),
    terms(revoke_on_dispute=True),
    terms(require_paid_invoice=True, revoke_on_refund=True, revoke_on_dispute=True, features_from_stripe=True),
    terms(features_from_stripe=True),
)


def terms_of_world(seed: int) -> Terms:
    """Two of seven worlds know no option; the others some. Seven, so that each meets every shape and wire format."""
    return _OPTIONS[seed % len(_OPTIONS)]
