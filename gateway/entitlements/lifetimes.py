"""How long an answer may be remembered, in memory and in Redis alike (docs/design.md, section 7).

Decides ages, never access: access ends by itself, because it is computed from the time at each request.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.facts import CustomerFacts

SHORTEST_SECONDS = 0.001
"""Redis refuses a lifetime of nothing; an edge that is now still needs its version kept out of a slow reader's reach."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The `cache:` block of gateway.yaml, in seconds."""

    max_ttl: float
    max_stale: float
    negative_ttl: float

    def age_limit(self, facts: CustomerFacts) -> float:
        """A customer with nothing is about to pay: that answer is remembered briefly."""
        return min(self.negative_ttl, self.max_ttl) if facts.is_empty else self.max_ttl

    def until_edge(self, facts: CustomerFacts, edge: float | None, now: float) -> float:
        """Seconds to keep `facts` from `now` on, where their answer may change at `edge`.

        Relative on purpose: `now` may be a simulated clock that Redis knows nothing of.
        """
        limit = self.age_limit(facts)
        return limit if edge is None else max(SHORTEST_SECONDS, min(limit, edge - now))
