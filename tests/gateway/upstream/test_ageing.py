"""Things that live equally long: who expires when, by a clock of the test's own."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.ageing import Ageing

if TYPE_CHECKING:
    from collections.abc import Callable


class Handle:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Clock:
    """A loop's timers, whose time goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Handle]] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Handle:
        self.made += 1
        handle = Handle(callback)
        heapq.heappush(self.timers, (when, self.made, handle))
        return handle

    def advance(self, to: float) -> None:
        while self.timers and self.timers[0][0] <= to:
            self.now, _, handle = heapq.heappop(self.timers)
            if handle.callback is not None:
                handle.callback()
        self.now = to


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["add", "newest", "oldest", "discard"]), st.integers(0, 20)),
        max_size=60,
    )
)
def test_everything_expires_when_it_is_due_unless_it_was_taken_out(steps: list[tuple[float, str, int]]) -> None:
    clock = Clock()
    expired: list[tuple[int, float]] = []
    ageing: Ageing[int] = Ageing(4.0, lambda thing: expired.append((thing, clock.now)), timers=lambda: clock)
    due: dict[int, float] = {}
    expected: list[tuple[int, float]] = []

    def pass_time(to: float) -> None:
        clock.advance(to)
        expected.extend((thing, due.pop(thing)) for thing in [thing for thing, at in due.items() if at <= to])

    for number, (wait, step, which) in enumerate(steps):
        pass_time(clock.now + wait)
        if step == "add":
            ageing.add(number)
            due[number] = clock.now + 4.0
        elif step == "discard":
            assert ageing.discard(which) is (due.pop(which, None) is not None)
        elif due:
            taken = ageing.pop_newest() if step == "newest" else ageing.pop_oldest()
            assert taken == list(due)[-1 if step == "newest" else 0]
            del due[taken]
        assert list(ageing) == list(due)
        assert len(clock.timers) <= 1  # one for all of them
    pass_time(clock.now + 100)
    assert expired == expected
    assert len(ageing) == 0


def test_nothing_expires_once_it_is_cancelled_and_all_is_well_when_something_is_added() -> None:
    clock = Clock()
    expired: list[str] = []
    ageing: Ageing[str] = Ageing(1.0, expired.append, timers=lambda: clock)
    ageing.add("a")
    ageing.pop_newest()
    ageing.cancel()
    clock.advance(10)
    ageing.add("b")
    clock.advance(20)
    assert expired == ["b"]


def test_what_is_added_while_something_expires_is_kept() -> None:
    clock = Clock()
    ageing: Ageing[str] = Ageing(1.0, lambda thing: ageing.add(thing + "'"), timers=lambda: clock)
    ageing.add("a")
    clock.advance(1.5)
    assert list(ageing) == ["a'"]
    clock.advance(2.5)
    assert list(ageing) == ["a''"]
