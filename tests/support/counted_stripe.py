"""Stands between a gateway and the simulated Stripe: counts what is asked, and keeps answers back until they are let go."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_ONE = re.compile(r"^(/v1/[a-z_]+)/[a-z]+_[A-Za-z0-9]+$")


@dataclass(slots=True)
class CountedStripe:
    """`calls` counts GETs by path, a single object's without its id. The next `to_hold` lists of subscriptions are held.

    What is held is an answer that has been made: as old as it is, whatever happens meanwhile.
    """

    app: Any = None
    calls: Counter[str] = field(default_factory=Counter)
    to_hold: int = 0
    held: list[asyncio.Event] = field(default_factory=list)

    def before(self, app: Any) -> Any:
        """Stand before this one."""
        self.app = app
        return self

    async def until_held(self, count: int) -> None:
        """Until so many answers are kept back."""
        async with asyncio.timeout(30):
            while len(self.held) < count:  # noqa: ASYNC110 -- nobody announces it
                await asyncio.sleep(0.005)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        path = _ONE.sub(r"\1/{id}", scope["path"])
        self.calls[path] += 1
        if path != "/v1/subscriptions" or not self.to_hold:
            await self.app(scope, receive, send)
            return
        self.to_hold -= 1
        said: list[Any] = []

        async def keep(message: Any) -> None:
            said.append(message)

        await self.app(scope, receive, keep)
        gate = asyncio.Event()
        self.held.append(gate)
        await gate.wait()
        for message in said:
            await send(message)
