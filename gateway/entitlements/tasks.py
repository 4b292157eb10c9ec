"""How a background task is ended for certain.

redis-py sends through `asyncio.wait_for`, which before Python 3.12 drops a cancellation that comes in the same turn as
its result (CPython gh-86296): the task goes on as if it had never been asked to stop, and who awaits its end hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

ASK_AGAIN_SECONDS: Final = 0.5
"""Long enough for what a task does at its end, such as giving back a lease, not to be called off as well."""


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` until they have ended. One that ended by an exception of its own raises it here."""
    under_way = set(tasks)
    while under_way:
        for task in under_way:
            task.cancel()
        _, under_way = await asyncio.wait(under_way, timeout=ASK_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.result()
