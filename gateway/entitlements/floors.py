"""Below which version Redis must not be believed about a customer.

A commit is in the ledger before it is in Redis. In between, a process that knows of the change reads that customer from
SQL: the version of the change is the customer's floor. It is lifted as soon as Redis is known to hold that version.
Bounded: when there are too many to remember, Redis is not believed about anyone for as long as it could hold an entry
older than the forgotten ones. A floor is never dropped for lack of room alone.

What Redis was known to hold is remembered as well, and it is not believed below that either: it then is a replica that
was behind when it was promoted, or came back from a snapshot. Of these the latest are remembered, as many as there is
room for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


class Floors:
    """`max_entries` bounds the floors, and, separately, the memory of what Redis is known to have held."""

    def __init__(self, max_entries: int, distrust_seconds: float) -> None:
        self._max_entries = max_entries
        self._distrust_seconds = distrust_seconds
        self._floors: dict[str, int] = {}
        # Two halves: the older one goes when the younger one is full.
        self._held: dict[str, int] = {}
        self._held_before: dict[str, int] = {}
        self.distrusted_until = -math.inf

    def __len__(self) -> int:
        return len(self._floors)

    def start_from(
        self, unpublished: Iterable[tuple[str, int]], published: Iterable[tuple[str, int]], at: float
    ) -> None:
        """Changes from before this process began: not known to be in Redis, and known to have been there."""
        for customer, version in published:
            self.lift(customer, version)
        for customer, version in unpublished:
            self.raise_to(customer, version, at)

    def raise_to(self, customer: str, version: int, at: float) -> None:
        """`version` was committed; unless Redis is known to hold it, older entries there no longer count."""
        if self.held(customer) >= version or self._floors.get(customer, -1) >= version:
            return
        self._floors[customer] = version
        if len(self._floors) > self._max_entries:
            self._floors.clear()
            self.distrusted_until = at + self._distrust_seconds

    def lift(self, customer: str, version: int) -> None:
        """Redis was given `version` of `customer`.

        Remembered, since the channel is faster than the changes feed: else each announced change would leave a floor.
        """
        if self._floors.get(customer, math.inf) <= version:
            del self._floors[customer]
        known = self.held(customer)
        if 2 * len(self._held) >= self._max_entries:
            self._held_before, self._held = self._held, {}
        self._held[customer] = max(known, version)

    def seen(self, customer: str, version: int) -> None:
        """Redis holds `version` of `customer`. Only where a change is known of: else every reader would need room here."""
        if self._floors.get(customer, math.inf) <= version:
            self.lift(customer, version)

    def held(self, customer: str) -> int:
        """The newest version of `customer` that Redis was known to hold; -1 for none."""
        return max(self._held.get(customer, -1), self._held_before.get(customer, -1))

    def admits(self, customer: str, version: int) -> bool:
        """Whether an entry of `version` in Redis may be believed, as far as is known here."""
        return self._floors.get(customer, -1) <= version and self.held(customer) <= version
