"""Below which version Redis must not be believed about a customer.

A commit is in the ledger before it is in Redis. In between, a process that knows of the change reads that customer from
SQL: the version of the change is the customer's floor. It is lifted as soon as Redis is known to hold that version.
Bounded: when there are too many to remember, Redis is not believed about anyone for as long as it could hold an entry
older than the forgotten ones. A floor is never dropped for lack of room alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


class Floors:
    """`max_entries` bounds the floors, and, separately, the memory of what Redis is known to hold."""

    def __init__(self, max_entries: int, distrust_seconds: float) -> None:
        self._max_entries = max_entries
        self._distrust_seconds = distrust_seconds
        self._floors: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self.distrusted_until = -math.inf

    def __len__(self) -> int:
        return len(self._floors)

    def start_from(self, unpublished: Iterable[tuple[str, int]], at: float) -> None:
        """Changes that were committed before this process began and are not known to be in Redis."""
        for customer, version in unpublished:
            self.raise_to(customer, version, at)

    def raise_to(self, customer: str, version: int, at: float) -> None:
        """`version` was committed; unless Redis is known to hold it, older entries there no longer count."""
        if self._held.get(customer, -1) >= version or self._floors.get(customer, -1) >= version:
            return
        self._floors[customer] = version
        if len(self._floors) > self._max_entries:
            self._floors.clear()
            self.distrusted_until = at + self._distrust_seconds

    def lift(self, customer: str, version: int) -> None:
        """Redis holds `version` of `customer`.

        Remembered, since the channel is faster than the changes feed: else each announced change would leave a floor.
        """
        if self._floors.get(customer, math.inf) <= version:
            del self._floors[customer]
        if len(self._held) >= self._max_entries:
            self._held.clear()
        if self._held.get(customer, -1) < version:
            self._held[customer] = version

    def doubt_redis(self) -> None:
        """Redis may have lost writes: what it was known to hold is no longer known."""
        self._held.clear()

    def admits(self, customer: str, version: int) -> bool:
        """Whether an entry of `version` in Redis may be believed, as far as is known here."""
        return self._floors.get(customer, -1) <= version
