"""What the campaign sells: a tier by prices, one by a lookup key, one by a product, and a price that opens nothing."""

from __future__ import annotations

from typing import Final

from admin.rehearsal.house import HOUR
from admin.rehearsal.terms import Terms, terms_of
from admin.simulator import Offer
from policies.entitlement import BillingRules
from policies.schema import Tier

RULES: Final = BillingRules(renewal_leeway=48.0 * HOUR, past_due_grace=72.0 * HOUR)
TERMS: Final[Terms] = terms_of(
    (
        Tier(name="free"),
        Tier(name="pro", prices=("price_pro_monthly", "price_pro_yearly")),
        Tier(name="team", lookup_keys=("team_now",)),
        Tier(name="enterprise", products=("prod_enterprise",)),
    ),
    RULES,
    (
        Offer("price_pro_monthly", "Pro", 2900),
        Offer("price_pro_yearly", "Pro", 29000, interval="year"),
        Offer("price_team_weekly", "Team", 4900, interval="week", lookup_key="team_now"),
        Offer("price_ent", "Enterprise", 9900),
        Offer("price_extra", "Extra storage", 300),
    ),
)
EVERYBODY: Final = TERMS.everybody
