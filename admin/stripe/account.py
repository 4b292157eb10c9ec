"""Which account and mode the configured key belongs to: the pair that everything else is kept under.

It decides from Stripe's own word, once, and remembers it in the ledger, so that a gateway starts while Stripe is out of
reach. A key that Stripe doesn't take ends the start: it would take no money. A simulator is another account each time it
starts, so it is asked anew. It must never keep the key itself: the ledger knows it by a digest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.ledger.pair import Pair
from admin.stripe.budget import Priority
from admin.stripe.client import SIMULATOR_BASE, SIMULATOR_KEY_PREFIX, Failure, StripeGateway, StripeRefused

if TYPE_CHECKING:
    from admin.ledger.meta import Meta
    from policies.schema import StripeSettings

PATIENCE_SECONDS: Final = 3.0
"""A simulator that is started beside us needs a moment; a Stripe that is down is told of soon enough."""

_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Account:
    """One account in one mode, and the way to it."""

    gateway: StripeGateway
    pair: Pair


@dataclass(frozen=True, slots=True)
class AccountProblem:
    """Why the account of the configured key can't be known, as a sentence for people."""

    detail: str


def simulator_address(settings: StripeSettings) -> str | None:
    """Where the simulator is that plays Stripe under these settings; None for Stripe itself."""
    if not settings.secret_key.get_secret_value().startswith(SIMULATOR_KEY_PREFIX):
        return None
    return settings.api_base.rstrip("/") or SIMULATOR_BASE


async def open_account(
    settings: StripeSettings, meta: Meta, patience_seconds: float = PATIENCE_SECONDS
) -> Account | AccountProblem | None:
    """The account of the configured key; None where no key is configured. Raises LedgerDownError."""
    secret_key = settings.secret_key.get_secret_value().strip()
    if not secret_key:
        return None
    if not (secret_key.isascii() and secret_key.isprintable() and " " not in secret_key):
        return AccountProblem("billing.stripe.secret_key holds characters that no Stripe key has.")
    gateway = StripeGateway(secret_key, settings.api_base)
    simulator = simulator_address(settings)
    found: Pair | Failure
    try:
        # A simulator is another account each time that it starts. Until it has said which, the one before stays on record.
        found = await _found(gateway, meta, patience_seconds, ask=simulator is not None)
    except BaseException:
        await gateway.aclose()
        raise
    if isinstance(found, Pair):
        return Account(gateway, found)
    await gateway.aclose()
    return AccountProblem(_explained(found, simulator))


def _explained(failure: Failure, simulator: str | None) -> str:
    if isinstance(failure, StripeRefused):
        return f"Stripe refused billing.stripe.secret_key: {failure.message} Check STRIPE_SECRET_KEY."
    if simulator is not None:
        return (
            f"the Stripe simulator at {simulator} can't be asked: {failure.detail}. "
            "Start one with `gateway simulator`, or set STRIPE_SECRET_KEY to a key of your Stripe account."
        )
    return (
        f"Stripe can't be asked which account the key belongs to: {failure.detail}. "
        "It is asked once for each key; check the network, or billing.stripe.api_base."
    )


def _meta_key(gateway: StripeGateway) -> str:
    return f"stripe.account.{gateway.key_digest}"


async def known_pair(settings: StripeSettings, meta: Meta) -> Pair | None:
    """The pair that a gateway with this key last ran under; asks nobody."""
    gateway = StripeGateway(settings.secret_key.get_secret_value(), settings.api_base)
    try:
        account = await meta.get(_meta_key(gateway))
        return Pair(account, gateway.livemode) if account else None
    finally:
        await gateway.aclose()


async def find_pair(gateway: StripeGateway, meta: Meta, *, ask: bool = False) -> Pair | Failure:
    """The pair of the gateway's key, from the ledger or else from Stripe; with `ask` always from Stripe."""
    key = _meta_key(gateway)
    known = None if ask else await meta.get(key)
    if known:
        return Pair(known, gateway.livemode)
    account = await gateway.account_id(Priority.CUSTOMER)
    if not isinstance(account, str):
        return account
    await meta.set(key, account)
    return Pair(account, gateway.livemode)


async def _found(gateway: StripeGateway, meta: Meta, patience_seconds: float, *, ask: bool) -> Pair | Failure:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience_seconds
    while True:
        found = await find_pair(gateway, meta, ask=ask)
        if isinstance(found, Pair | StripeRefused) or loop.time() >= give_up_at:
            return found
        await asyncio.sleep(_PAUSE_SECONDS)
