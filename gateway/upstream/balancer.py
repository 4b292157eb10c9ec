"""Which of an upstream's targets gets the next request, and which are left out for a while.

Pure: the time and the dice are arguments. Of two targets drawn at random the one with fewer requests under way is
taken (the power of two choices: nearly as even as looking at all of them, and no herd runs to the idle one); among
equals, whose turn is longest ago. A target that can't be connected, or failed three times in a row otherwise, is
ejected, each time for twice as long as before, until it has given a whole answer again.

It must never leave a request without a target to try: where all are ejected, all are tried.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

FAILURES_IN_A_ROW: Final = 3
"""Of a target that takes connections. One request that no target can answer in time must not eject them all at once."""

FIRST_EJECTION_SECONDS: Final = 1.0
LONGEST_EJECTION_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 10


class Standing:
    """How a target has behaved lately. `healthy` is what active checks say; True where there are none."""

    __slots__ = ("_ejected_until", "_ejections", "_failures", "healthy")

    def __init__(self) -> None:
        self.healthy = True
        self._failures = 0
        self._ejections = 0
        self._ejected_until = 0.0

    def admits(self, now: float) -> bool:
        """Whether it should be sent anything."""
        return self.healthy and now >= self._ejected_until

    def failed(self, now: float, *, at_connecting: bool) -> None:
        """It can't be connected, did not answer in time, or did not answer as HTTP asks."""
        if now < self._ejected_until:
            return  # what was under way when it was ejected says nothing new
        self._failures += 1
        if at_connecting or self._failures >= FAILURES_IN_A_ROW:
            seconds = FIRST_EJECTION_SECONDS * 2 ** min(self._ejections, _MOST_DOUBLINGS)
            self._ejected_until = now + min(seconds, LONGEST_EJECTION_SECONDS)
            self._ejections += 1
            self._failures = 0

    def succeeded(self) -> None:
        """It gave a whole answer."""
        self._failures = 0
        self._ejections = 0
        self._ejected_until = 0.0


class Candidate(Protocol):
    """What the balancer needs to know of a target."""

    standing: Standing
    pending: int
    last_turn: int

    @property
    def has_room(self) -> bool:
        """Whether it may be sent one more."""


C = TypeVar("C", bound=Candidate)


class Balancer(Generic[C]):
    """Chooses among the targets for one request after another."""

    def __init__(self, candidates: Sequence[C], *, dice: Callable[[], float] = random.random) -> None:
        self.candidates = tuple(candidates)
        self._dice = dice
        self._turn = 0

    def fit(self, now: float, tried: Collection[C] = ()) -> Sequence[C]:
        """Those that should be sent something; where none should, those that are left."""
        left = self.candidates
        if tried:
            left = tuple(candidate for candidate in left if candidate not in tried)
        return [candidate for candidate in left if candidate.standing.admits(now)] or left

    def choose(self, now: float, tried: Collection[C] = ()) -> C | None:
        """One that has room; None where none has."""
        if len(self.candidates) == 1 and not tried:
            only = self.candidates[0]
            return only if only.has_room else None
        roomy = [candidate for candidate in self.fit(now, tried) if candidate.has_room]
        if not roomy:
            return None
        chosen = roomy[0]
        if len(roomy) > 1:
            one = int(self._dice() * len(roomy))
            other = int(self._dice() * (len(roomy) - 1))
            other += other >= one
            chosen = min(roomy[one], roomy[other], key=_load)
        self._turn += 1
        chosen.last_turn = self._turn
        return chosen


def _load(candidate: Candidate) -> tuple[int, int]:
    return candidate.pending, candidate.last_turn
