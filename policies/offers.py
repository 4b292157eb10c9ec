"""What a tier costs, and what has to be paid for, as the caller of a 402 is told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policies.entitlement import Standing
from policies.requirement import Requirement


@dataclass(frozen=True, slots=True)
class Offer:
    """One price of one tier. `amount` is in the currency's minor unit; None when Stripe has not been asked yet."""

    tier: str
    price: str
    amount: int | None = None
    currency: str | None = None
    interval: str | None = None
    interval_count: int = 1

    def public(self) -> dict[str, Any]:
        """As it stands in a 402, in `/_gateway/me` and in `/_gateway/plans`; `interval_count` only where it isn't 1."""
        shown: dict[str, Any] = {
            "tier": self.tier,
            "price": self.price,
            "amount": self.amount,
            "currency": self.currency,
            "interval": self.interval,
        }
        return shown if self.interval_count == 1 else {**shown, "interval_count": self.interval_count}


@dataclass(frozen=True, slots=True)
class Payment:
    """What a 402 says beyond its reason: what was needed, what they have, and the tier that its link sells."""

    customer: str
    requirement: Requirement
    standing: Standing
    tier: str
    why: str = ""
    """In place of what the method and path need, where it isn't a route that asks."""
