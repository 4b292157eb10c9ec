"""Opening the configured Stripe account: a client for the key, and the pair that everything is kept under.

A key that Stripe doesn't take ends the start with a sentence: it would take no money. A Stripe that is out of reach does
not, once the ledger knows the key's account. A simulator is another account each time it starts, so it is asked anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from admin.stripe.account import find_pair
from admin.stripe.client import (
    SIMULATOR_BASE,
    SIMULATOR_KEY_PREFIX,
    StripeGateway,
    StripeRefused,
    StripeUnavailable,
)

if TYPE_CHECKING:
    from admin.ledger.meta import Meta
    from admin.ledger.pair import Pair
    from policies.schema import StripeSettings


@dataclass(frozen=True, slots=True)
class Account:
    """One account in one mode, and the way to it."""

    gateway: StripeGateway
    pair: Pair


@dataclass(frozen=True, slots=True)
class AccountProblem:
    """Why it can't be used, and what to do."""

    detail: str


def simulator_address(settings: StripeSettings) -> str | None:
    """Where the simulator is that plays Stripe under these settings; None for Stripe itself."""
    if not settings.secret_key.get_secret_value().startswith(SIMULATOR_KEY_PREFIX):
        return None
    return settings.api_base.rstrip("/") or SIMULATOR_BASE


async def open_account(settings: StripeSettings, meta: Meta) -> Account | AccountProblem | None:
    """None where there is no key. Raises LedgerDownError."""
    key = settings.secret_key.get_secret_value()
    if not key:
        return None
    gateway = StripeGateway(key, settings.api_base)
    simulator = simulator_address(settings)
    if simulator is not None:
        await meta.set(f"stripe.account.{gateway.key_digest}", "")
    pair = await find_pair(gateway, meta)
    if isinstance(pair, StripeUnavailable | StripeRefused):
        await gateway.aclose()
        return AccountProblem(_explained(pair, simulator))
    return Account(gateway, pair)


def _explained(failure: StripeUnavailable | StripeRefused, simulator: str | None) -> str:
    if simulator is not None:
        return (
            f"no Stripe simulator answers at {simulator}: start one with `gateway simulator`, "
            "or set STRIPE_SECRET_KEY to a key of your Stripe account."
        )
    if isinstance(failure, StripeRefused):
        return f"Stripe does not take billing.stripe.secret_key: {failure.message} Check STRIPE_SECRET_KEY."
    return (
        f"Stripe can't be reached to learn which account the key belongs to: {failure.detail}. "
        "It is asked only once for each key; check the network, or billing.stripe.api_base."
    )
