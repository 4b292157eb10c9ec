"""One deadline that moves often and fires seldom: on the request path, setting and clearing it costs an assignment.

A connection has at most a few bounds in force (head, idle, drain), and they change with every request. Arming and
cancelling a loop timer each time is the larger part of their cost, so the timer stays armed and looks, when it goes
off, whether the deadline has moved. It must never fire early, nor after `clear`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """One timer of a loop."""

    def cancel(self) -> None:
        """It doesn't go off."""


class Timers(Protocol):
    """What a deadline needs of an event loop."""

    def time(self) -> float:
        """Now, in the loop's own seconds."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        """Call `callback` at `when`."""


class Deadline:
    """Calls `on_expiry` once the seconds given to `set` have passed, unless it was set anew or cleared before."""

    __slots__ = ("_due_at", "_fires_at", "_handle", "_loop", "_on_expiry")

    def __init__(self, loop: Timers, on_expiry: Callable[[], None]) -> None:
        self._loop = loop
        self._on_expiry = on_expiry
        self._due_at: float | None = None
        self._fires_at = 0.0
        self._handle: Timer | None = None

    def set(self, seconds: float) -> None:
        """Expire `seconds` from now, whatever was set before."""
        self._due_at = due_at = self._loop.time() + seconds
        if self._handle is None:
            self._arm(due_at)
        elif due_at < self._fires_at:
            self._handle.cancel()
            self._arm(due_at)

    def clear(self) -> None:
        """Nothing expires until the next `set`."""
        self._due_at = None

    def cancel(self) -> None:
        """Clear, and let go of the timer: the connection is over."""
        self._due_at = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, at: float) -> None:
        self._fires_at = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        due_at = self._due_at
        if due_at is None:
            return
        if self._loop.time() < due_at:
            self._arm(due_at)
            return
        self._due_at = None
        self._on_expiry()
