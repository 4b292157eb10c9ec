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

    The credential must hold all `scopes`, and of each of `claims` one of the values (`policies.scopes`).
    """

    access: Access
    min_rank: int = 0
    tier: str | None = None
    features: tuple[str, ...] = ()
    granted_rank: int | None = None
    scopes: tuple[str, ...] = ()
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def narrows(self) -> bool:
        """Whether not every credential of a customer will do."""
        return bool(self.scopes or self.claims)

    def narrows_as_much_as(self, other: Requirement) -> bool:
        """Whether every credential that will do here also does there."""
        claims = [(name, set(values)) for name, values in self.claims]
        return set(other.scopes) <= set(self.scopes) and all(
            any(name == wanted and have <= set(values) for name, have in claims) for wanted, values in other.claims
        )

    def grants_no_more_than(self, other: Requirement) -> bool:
        """Whether whoever is let in here for the sake of granted features is let in there, too.

        A number can't say that: features that no tier has rank above every tier, and are granted to whoever pays for any.
        """
        if self.granted_rank is None or other.access is not Access.TIER or self.granted_rank >= other.min_rank:
            return True
        if other.granted_rank is None or other.granted_rank > self.granted_rank:
            return False
        return set(other.features) <= set(self.features)

    def and_granted(self, other: Requirement) -> tuple[tuple[str, ...], int | None]:
        """What features, and from which rank on, let somebody in where both are asked for: enough for either, if not the least."""
        asking = [one for one in (self, other) if one.access is Access.TIER]
        granting = [one for one in asking if one.granted_rank is not None]
        if not granting:
            return (), None
        floors = [one.min_rank if one.granted_rank is None else one.granted_rank for one in asking]
        return tuple(dict.fromkeys(name for one in granting for name in one.features)), max(floors)


PUBLIC = Requirement(Access.PUBLIC)
AUTHENTICATED = Requirement(Access.AUTHENTICATED)
