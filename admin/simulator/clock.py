"""What time it is in the simulated Stripe: real time plus an offset that only grows.

It decides nothing else. It must never go backwards: what was billed stays billed.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_STEP_SECONDS: Final = 10 * 366 * 86400
"""Ten years: further in one step is a slip, and a daily price would be billed thousands of times."""

LATEST: Final = 7_258_118_400.0
"""The year 2200: calendar arithmetic beyond it helps nobody."""


class SimulatedClock:
    """Real time that can be moved forward, and held still while overdue changes are worked off in their order."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._held: float | None = None
        self.offset = 0.0

    def now(self) -> float:
        """Simulated UTC seconds."""
        return self._held if self._held is not None else self._wall_clock() + self.offset

    def advance(self, seconds: float) -> float:
        """Move forward and return the new time. Raises ValueError with a sentence when that can't be."""
        if not 0 <= seconds <= LONGEST_STEP_SECONDS:  # NaN fails this, too
            raise ValueError("the clock moves forward by 0 seconds to 10 years at a time, never back")
        if self.now() + seconds > LATEST:
            raise ValueError("the clock stops at the year 2200")
        self.offset += seconds
        return self.now()

    def set(self, to: float) -> float:
        """Move forward to `to`, UTC seconds. Raises ValueError when that is in the past or too far."""
        return self.advance(to - self.now())

    @contextmanager
    def held_at(self, moment: float) -> Iterator[None]:
        """Within, `now()` is `moment`: a renewal that fell due on the 3rd is dated the 3rd, whenever it is worked off."""
        before, self._held = self._held, moment
        try:
            yield
        finally:
            self._held = before
