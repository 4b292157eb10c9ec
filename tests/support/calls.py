"""Requests handed straight to `Upstreams.forward`, by callers who can leave at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from gateway.upstream.outcome import DEPARTURE_KEY, TARGET_KEY, CallerLeft, Forwarded

if TYPE_CHECKING:
    from gateway.upstream.forward import Upstreams
    from gateway.upstream.outcome import Message, Outcome, Scope


class Call:
    """One caller. `pieces` are his body, sent as fast as they are taken; a piece of None is where he sends no more."""

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        method: str = "GET",
        path: bytes = b"/x",
        headers: Sequence[tuple[bytes, bytes]] = (),
        pieces: Iterable[bytes | None] = (),
    ) -> None:
        self.status: int | None = None
        self.body = b""
        self.whole = False
        self.has_left = asyncio.Event()
        self.started = asyncio.Event()
        self.may_take = asyncio.Event()
        self.may_take.set()
        self._on_departure: Callable[[], None] | None = None
        self._pieces = list(pieces)
        scope: Scope = {
            "type": "http",
            "method": method,
            "raw_path": path,
            TARGET_KEY: path,
            DEPARTURE_KEY: self._tell_me,
        }
        self.outcome: asyncio.Task[Outcome] = asyncio.create_task(
            upstreams.forward("api", scope=scope, headers=list(headers), receive=self._receive, send=self._send)
        )

    def leave(self) -> None:
        """Close the connection."""
        self.has_left.set()
        if self._on_departure is not None:
            self._on_departure()

    async def answer(self) -> tuple[int | None, bytes]:
        """Status and body, of a caller who was served."""
        outcome = await asyncio.wait_for(self.outcome, 30)
        assert isinstance(outcome, Forwarded), outcome
        return self.status, self.body

    async def end(self) -> Outcome:
        return await asyncio.wait_for(self.outcome, 30)

    def _tell_me(self, callback: Callable[[], None] | None) -> None:
        self._on_departure = callback
        if callback is not None and self.has_left.is_set():
            callback()

    async def _receive(self) -> Message:
        if self.has_left.is_set():
            return {"type": "http.disconnect"}
        if not self._pieces:
            return {"type": "http.request", "body": b"", "more_body": False}
        piece = self._pieces.pop(0)
        if piece is None:
            await self.has_left.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def _send(self, message: Message) -> None:
        await self.may_take.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.started.set()
        else:
            self.body += message["body"]
            self.whole = not message["more_body"]


async def asked(upstreams: Upstreams, path: bytes = b"/x", method: str = "GET") -> tuple[int | None, bytes]:
    """The answer to one plain request."""
    return await Call(upstreams, method=method, path=path).answer()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return once it holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.005)


def is_left(outcome: Outcome) -> bool:
    return isinstance(outcome, CallerLeft)
