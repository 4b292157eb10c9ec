"""What this process remembers of its customers, bounded, with a hit that costs one dictionary lookup.

An entry that may no longer be served stays until it is replaced, forgotten or crowded out, because it is what is left
when every source fails. Whether it may be served is the resolver's decision, never taken here.

Two generations stand in for a list ordered by use. What is used lives in the young one, and a hit there writes nothing.
When there is no room and no old one, the young becomes the old: what is used again moves out of it, the rest goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from policies.facts import CustomerFacts

E = TypeVar("E")


@dataclass(slots=True)
class Entry(Generic[E]):
    """One customer's facts and what was derived from them.

    `edge` is a moment of the entitlement clock, which may be simulated; the others are of the monotonic clock.
    """

    facts: CustomerFacts
    entitlement: E
    generation: int
    """The configuration generation that `entitlement` and `edge` were derived under."""
    edge: float
    """When the answer may change by itself: `inf` for never."""
    fresh_until: float
    confirmed_at: float
    """When these facts were last known to be the ledger's; `-inf` for never."""
    read_at: float
    """When they were read, wherever from: what `max_stale` counts from."""
    retry_at: float
    """No source is asked about this customer before then: they all failed a moment ago."""


class Memory(Generic[E]):
    """At most `max_entries` customers. Those not used since the last turn of generations make room for new ones.

    At the turn itself nothing is known of use, and one entry goes that may be in use: that costs one lookup.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._young: dict[str, Entry[E]] = {}
        self._old: dict[str, Entry[E]] = {}
        self._next_to_go: Iterator[str] = iter(())

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, customer: str) -> Entry[E] | None:
        """What is remembered of `customer`, fresh or not."""
        entry = self._young.get(customer)
        if entry is None and (entry := self._old.pop(customer, None)) is not None:
            self._young[customer] = entry
        return entry

    def put(self, customer: str, entry: Entry[E]) -> None:
        """Remember `entry` in place of what was remembered."""
        self._old.pop(customer, None)
        if customer not in self._young and len(self) >= self._max_entries:
            self._make_room()
        self._young[customer] = entry

    def forget(self, customer: str) -> None:
        """Nothing is remembered of `customer` after this."""
        self._young.pop(customer, None)
        self._old.pop(customer, None)

    def _make_room(self) -> None:
        if not self._old:
            self._old, self._young = self._young, {}
            # A list of its own: finding the first key of a dictionary that is emptied from the front is a walk over
            # all that were removed before it.
            self._next_to_go = iter(list(self._old))
        for customer in self._next_to_go:
            if self._old.pop(customer, None) is not None:
                return
