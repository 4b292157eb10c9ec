"""Which Stripe account, in which mode: links, facts, events, sessions and prices belong to one pair.

Only the configured pair is ever read, so rehearsing in test mode leaves nothing behind that opens live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pair:
    """One Stripe account in one mode. `account` is Stripe's id of it, such as ``acct_123``."""

    account: str
    livemode: bool


NO_ACCOUNT: Final = Pair("none", livemode=False)
"""What is kept in a ledger while no Stripe account is configured."""
