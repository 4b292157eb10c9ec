"""Which account and mode the configured key belongs to: the pair that everything else is kept under.

It decides from Stripe's own word, once, and remembers it in the ledger, so that a gateway starts while Stripe is out of
reach. It must never keep the key itself: the ledger knows it by a digest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.ledger.pair import Pair
from admin.stripe.budget import Priority
from admin.stripe.client import Failure, StripeGateway, StripeRefused

if TYPE_CHECKING:
    from admin.ledger.meta import Meta
    from policies.schema import StripeSettings

PATIENCE_SECONDS: Final = 10.0
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
    found: Pair | Failure
    try:
        found = await _found(gateway, meta, patience_seconds)
    except BaseException:
        await gateway.aclose()
        raise
    if isinstance(found, Pair):
        return Account(gateway, found)
    await gateway.aclose()
    if isinstance(found, StripeRefused):
        return AccountProblem(f"Stripe refused billing.stripe.secret_key: {found.message}")
    return AccountProblem(f"Stripe can't be asked which account the key belongs to: {found.detail}")


async def find_pair(gateway: StripeGateway, meta: Meta) -> Pair | Failure:
    """The pair of the gateway's key, from the ledger or else from Stripe."""
    key = f"stripe.account.{gateway.key_digest}"
    known = await meta.get(key)
    if known:
        return Pair(known, gateway.livemode)
    account = await gateway.account_id(Priority.CUSTOMER)
    if not isinstance(account, str):
        return account
    await meta.set(key, account)
    return Pair(account, gateway.livemode)


async def _found(gateway: StripeGateway, meta: Meta, patience_seconds: float) -> Pair | Failure:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience_seconds
    while True:
        found = await find_pair(gateway, meta)
        if isinstance(found, Pair | StripeRefused) or loop.time() >= give_up_at:
            return found
        await asyncio.sleep(_PAUSE_SECONDS)
