"""SQLite without its thread: a statement runs where it is awaited, which makes a campaign three times as fast.

Now and then it yields before it runs, so that a task that is cut off is cut off in the middle of a transaction, too.
The statements, the file and its transactions are the real ones; the driver's thread is in play in every other test.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiosqlite
import aiosqlite.core

_YIELDS_EVERY: Final = 7


@contextmanager
def statements_run_inline() -> Iterator[None]:
    """Within, every SQLite connection of this process works so."""
    turns = itertools.count()

    async def execute(self: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._running or not self._connection:
            raise ValueError("Connection closed")
        if next(turns) % _YIELDS_EVERY == 0:
            await asyncio.sleep(0)
        return function(*args, **kwargs)

    def connect(*args: Any, **kwargs: Any) -> aiosqlite.Connection:
        # It is opened and closed by the driver's thread and used by ours, one after the other.
        return connect_before(*args, **{**kwargs, "check_same_thread": False})

    execute_before, connect_before = aiosqlite.core.Connection._execute, aiosqlite.connect
    aiosqlite.core.Connection._execute, aiosqlite.connect = execute, connect  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        aiosqlite.core.Connection._execute, aiosqlite.connect = execute_before, connect_before  # type: ignore[method-assign]
