"""What a rehearsal has seen and measured, so that one that saw nothing doesn't pass for a good one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class TierAccount:
    """Of one tier: what became of it, and in seconds how long access was seen to outlive the money at the most."""

    bought: int = 0
    upgraded: int = 0
    """How often a subscription rose to it from a lower one."""
    ended: int = 0
    late: float = 0.0
    """After the end of the last period that the ledger had heard of, while it had heard nothing against the payer."""
    unpaid: float = 0.0
    """After the date of the oldest bill that was left open."""

    def add(self, other: TierAccount) -> None:
        """Both together."""
        self.bought += other.bought
        self.upgraded += other.upgraded
        self.ended += other.ended
        self.late, self.unpaid = max(self.late, other.late), max(self.unpaid, other.unpaid)


@dataclass(slots=True)
class Tally:
    """Counts of everything that happened and was checked."""

    lives: int = 0
    steps: int = 0
    checks: int = 0
    probes: int = 0
    reconciles: int = 0
    delivered: int = 0
    dropped: int = 0
    cut_off: int = 0
    overtaken: int = 0
    restarts: int = 0
    faults: int = 0
    strangers: int = 0
    """Letters that were forged, or of another account or mode."""
    admitted: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """What Stripe had to tell, by the type of its event."""
    tiers: dict[int, TierAccount] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Both together."""
        for name in self.__slots__:
            if name != "tiers":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for rank, account in other.tiers.items():
            self.tier(rank).add(account)

    def tier(self, rank: int) -> TierAccount:
        """The account of the tier at `rank`."""
        return self.tiers.setdefault(rank, TierAccount())

    def __str__(self) -> str:
        counts = {name: getattr(self, name) for name in self.__slots__}
        return ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if isinstance(count, int)
        )
