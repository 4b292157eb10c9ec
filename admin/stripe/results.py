"""What asking for money can end in: the values that checkout, portal and pay links share.

Addresses let whoever holds them pay or change something, so none of them shows in a repr (P9).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from admin.stripe.client import Failure, StripeUnavailable


@dataclass(frozen=True, slots=True)
class CheckoutUrl:
    """Where to send the payer: Checkout, the portal's confirmation of a change, or an open invoice."""

    url: str = field(repr=False)
    kind: Literal["checkout", "portal", "invoice"]


@dataclass(frozen=True, slots=True)
class AlreadySubscribed:
    """No second subscription. `tier` is None where the running one belongs to no tier."""

    tier: str | None
    status: str
    detail: str


@dataclass(frozen=True, slots=True)
class NotForSale:
    """No price of that tier, or not that price, is on offer."""

    detail: str


@dataclass(frozen=True, slots=True)
class BillingUnavailable:
    """Stripe gave no answer that could be used; nothing was changed that a new try would not mend."""

    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class BillingNotConfigured:
    """There is no Stripe key."""


@dataclass(frozen=True, slots=True)
class PortalUrl:
    """The customer's own billing portal."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoCustomer:
    """Nothing was ever bought: Stripe doesn't know this customer."""


def unavailable(failure: Failure) -> BillingUnavailable:
    """A failed call, as whoever waits at checkout hears of it."""
    if isinstance(failure, StripeUnavailable):
        return BillingUnavailable(failure.detail, failure.retry_after)
    return BillingUnavailable(f"Stripe refused: {failure.code}: {failure.message}")
