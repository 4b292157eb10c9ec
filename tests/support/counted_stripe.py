"""Stands between a gateway and the simulated Stripe: counts what is asked, and keeps answers back until they are let go.

`before` an app of this process, or `behind` an address of its own where gateway and Stripe are processes.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.simulator import in_a_thread

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
    loop: asyncio.AbstractEventLoop | None = None

    def before(self, app: Any) -> Any:
        """Stand before this one."""
        self.app = app
        return self

    async def until_held(self, count: int) -> None:
        """Until so many answers are kept back."""
        async with asyncio.timeout(30):
            while len(self.held) < count:  # noqa: ASYNC110 -- nobody announces it
                await asyncio.sleep(0.005)

    @contextmanager
    def behind(self, base: str) -> Iterator[str]:
        """The address of one that hands on what it is asked to the Stripe at `base`."""
        self.app = _HandedOn(base)
        with in_a_thread(self) as address:
            yield address

    def let_all_go(self) -> None:
        """From another thread: what is held goes on, and nothing more is."""
        assert self.loop is not None
        self.to_hold = 0
        for gate in self.held:
            self.loop.call_soon_threadsafe(gate.set)

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
        self.loop = asyncio.get_running_loop()
        self.held.append(gate)
        await gate.wait()
        for message in said:
            await send(message)


@dataclass(slots=True)
class _HandedOn:
    """Asks the Stripe at `base` the same, and says what it said."""

    base: str

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        url = f"{self.base}{scope['path']}?{scope['query_string'].decode()}"
        headers = [(name, value) for name, value in scope["headers"] if name not in {b"host", b"content-length"}]
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=60) as client:
            answer = await client.request(scope["method"], url, headers=headers, content=body)
        content_type = answer.headers.get("content-type", "application/json").encode()
        said = [(b"content-type", content_type), (b"content-length", str(len(answer.content)).encode())]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": said})
        await send({"type": "http.response.body", "body": answer.content})
