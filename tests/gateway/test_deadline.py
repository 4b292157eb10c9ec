"""A deadline fires once its time has come, and never when it was moved or cleared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class FakeTimer:
    when: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeLoop:
    """Time that moves when told, and timers that go off when it has moved past them."""

    now: float = 0.0
    timers: list[FakeTimer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(when, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in self.timers[:]:
            if timer.when <= self.now and not timer.cancelled:
                timer.cancelled = True
                timer.callback()


def test_it_fires_once_and_not_before_its_time() -> None:
    loop = FakeLoop()
    fired: list[float] = []
    deadline = Deadline(loop, lambda: fired.append(loop.now))
    deadline.set(10)
    loop.advance(9)
    assert fired == []
    loop.advance(1)
    loop.advance(100)
    assert fired == [10]


def test_moved_it_fires_at_the_later_time_without_a_new_timer_at_each_move() -> None:
    loop = FakeLoop()
    fired: list[float] = []
    deadline = Deadline(loop, lambda: fired.append(loop.now))
    for _ in range(100):
        deadline.set(10)
        loop.advance(0.1)
    assert len(loop.timers) <= 2
    for _ in range(100):
        loop.advance(0.1)
    assert len(fired) == 1
    assert fired[0] >= 19.9


def test_moved_to_an_earlier_time_it_fires_then() -> None:
    loop = FakeLoop()
    fired: list[float] = []
    deadline = Deadline(loop, lambda: fired.append(loop.now))
    deadline.set(100)
    deadline.set(1)
    loop.advance(1)
    loop.advance(200)
    assert fired == [1]


def test_cleared_or_cancelled_it_never_fires() -> None:
    loop = FakeLoop()
    fired: list[float] = []
    deadline = Deadline(loop, lambda: fired.append(loop.now))
    deadline.set(1)
    deadline.clear()
    loop.advance(5)
    deadline.set(1)
    deadline.cancel()
    assert all(timer.cancelled for timer in loop.timers)
    loop.advance(5)
    assert fired == []


def test_it_can_be_set_again_by_what_it_calls() -> None:
    loop = FakeLoop()
    fired: list[float] = []

    def again() -> None:
        fired.append(loop.now)
        if len(fired) < 3:
            deadline.set(1)

    deadline = Deadline(loop, again)
    deadline.set(1)
    for _ in range(5):
        loop.advance(1)
    assert fired == [1, 2, 3]
