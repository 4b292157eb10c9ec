"""What asking for money can end in: the values that checkout, portal and pay links share.

Addresses let whoever holds them pay or change something, so none of them shows in a repr (P9).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

from admin.stripe.client import Failure, StripeRefused
from admin.stripe.fetch import Failed
from admin.stripe.work import NotYet

_log = logging.getLogger(__name__)


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


def unavailable(failure: Failure | Failed | NotYet) -> BillingUnavailable:
    """Why there is no page, for whoever waits at checkout. What Stripe said in words is the operator's, in the log."""
    if isinstance(failure, StripeRefused):
        _log.warning("Stripe refused at checkout: %s: %s", failure.code, failure.message)
        return BillingUnavailable(f"Stripe refused ({failure.code})")
    _log.warning("Stripe could not be used at checkout: %s", failure.detail)
    return BillingUnavailable("Stripe gave no answer", None if isinstance(failure, NotYet) else failure.retry_after)
