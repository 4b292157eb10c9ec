"""What a tier costs, as the caller of a 402 is told it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
        """As it stands in a 402, in `/_gateway/me` and in `/_gateway/plans`."""
        return {
            "tier": self.tier,
            "price": self.price,
            "amount": self.amount,
            "currency": self.currency,
            "interval": self.interval,
        }
