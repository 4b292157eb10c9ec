"""Things that all live equally long, in the order in which they came, and one timer for all of them.

Since each lives as long as the others, the oldest is always the next to expire: an ordered dict and one look at its
front do what a wheel of timers does elsewhere. It must never expire anything early, nor anything that was taken out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from gateway.deadline import Timer, Timers

    T = TypeVar("T", bound=Hashable)
else:
    T = TypeVar("T")


class Ageing(Generic[T]):
    """Calls `on_expiry` with whatever has been in here for `seconds`."""

    def __init__(
        self,
        seconds: float,
        on_expiry: Callable[[T], None],
        *,
        timers: Callable[[], Timers] = asyncio.get_running_loop,
    ) -> None:
        self._seconds = seconds
        self._on_expiry = on_expiry
        self._make_timers = timers
        self._timers: Timers | None = None  # the loop's, once there is something to wait for
        self._due_at: OrderedDict[T, float] = OrderedDict()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._due_at)

    def __iter__(self) -> Iterator[T]:
        """Oldest first."""
        return iter(self._due_at)

    def add(self, thing: T) -> None:
        """It is the newest, and lives for `seconds` from now."""
        timers = self._timers
        if timers is None:
            timers = self._timers = self._make_timers()
        self._due_at[thing] = due_at = timers.time() + self._seconds
        if self._timer is None:
            self._timer = timers.call_at(due_at, self._look)

    def discard(self, thing: T) -> bool:
        """Take it out; whether it was in here."""
        return self._due_at.pop(thing, None) is not None

    def pop_newest(self) -> T:
        """Take out what came last. Raises KeyError where there is nothing."""
        return self._due_at.popitem(last=True)[0]

    def pop_oldest(self) -> T:
        """Take out what came first. Raises KeyError where there is nothing."""
        return self._due_at.popitem(last=False)[0]

    def cancel(self) -> None:
        """Let go of the timer; nothing expires any more until something is added."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        timers = self._timers or self._make_timers()
        while self._due_at:
            oldest = next(iter(self._due_at))
            due_at = self._due_at[oldest]
            if timers.time() < due_at:
                self._timer = timers.call_at(due_at, self._look)
                return
            del self._due_at[oldest]
            self._on_expiry(oldest)
