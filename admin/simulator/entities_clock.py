"""What the simulated Stripe keeps of a test clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TestClock:
    """A handle on the simulator's one clock; customers may be made under it."""

    __test__ = False  # for pytest

    id: str
    created: int
    frozen_time: int
    name: str | None
