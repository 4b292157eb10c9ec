"""Which account and mode the configured key belongs to: the pair that everything else is kept under.

It decides from Stripe's own word, once, and remembers it in the ledger, so that a gateway starts while Stripe is out of
reach. It must never keep the key itself: the ledger knows it by a digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.ledger.pair import Pair
from admin.stripe.client import Failure, StripeGateway

if TYPE_CHECKING:
    from admin.ledger.meta import Meta


async def find_pair(gateway: StripeGateway, meta: Meta) -> Pair | Failure:
    """The pair of the gateway's key, from the ledger or else from Stripe."""
    key = f"stripe.account.{gateway.key_digest}"
    known = await meta.get(key)
    if known is not None:
        return Pair(known, gateway.livemode)
    account = await gateway.account_id()
    if not isinstance(account, str):
        return account
    await meta.set(key, account)
    return Pair(account, gateway.livemode)
