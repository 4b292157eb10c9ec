"""What a route asks of its caller, reduced to the lowest tier that satisfies it.

Tiers are ordered and each holds the features of all below it, so "tier pro with feature export" is one number: the
lowest rank that has both. `policies.routes` computes it at compile; `policies.decision` only compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Access(Enum):
    """How much has to be known of a caller."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"
    TIER = "tier"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a request must meet. `min_rank` is the index into `Config.tiers`, set only with `Access.TIER`.

    `tier` and `features` are as the file names them, for messages: `tier` is the name of the tier at `min_rank`.

    Where Stripe grants features, too, `granted_rank` is the lowest tier that the file names, `NO_TIER` when it names
    none: from it on a caller who has all of `features` is let in, whatever tier they belong to. None where it doesn't.
    """

    access: Access
    min_rank: int = 0
    tier: str | None = None
    features: tuple[str, ...] = ()
    granted_rank: int | None = None


PUBLIC = Requirement(Access.PUBLIC)
AUTHENTICATED = Requirement(Access.AUTHENTICATED)
