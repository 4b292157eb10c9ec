"""How an exchange with an upstream can end, as values; and the words by which listener, app and exchange speak in the scope.

| outcome | has the caller been sent anything? | what the app does |
|---|---|---|
| `Forwarded` | the whole answer | logs it |
| `UpstreamFailure` | nothing | answers 502 or 504 with the reason |
| `CallerLeft` | perhaps a part, and nobody reads it | logs 499; never the upstream's fault |
| `Tunnelled` | a 101, and everything after it | logs it |
| `AnswerBroken` | the head, and not all of the body | logs it and raises its `torn()` (P5) |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from policies.reasons import Reason

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TARGET_KEY: Final = "gateway.target"
"""In the scope: the request-target as it came, byte for byte. `raw_path` and `query_string` can't tell `/a?` from `/a`."""

DEPARTURE_KEY: Final = "gateway.on_departure"
"""In the scope: a callable that takes what to call at once when the caller leaves (None: nothing any more).

A server without it is watched through `receive()`, which costs a task per request."""

STOP_KEY: Final = "gateway.on_stop"
"""In the scope: a callable that takes what to call when the server goes down, at once where it already does (None: nothing)."""

TUNNEL_KEY: Final = "gateway.tunnel"
"""In the scope of a request that offers a WebSocket: the `Tunnel` by which its connection can become one.

Under a server without it the offer is ignored, as HTTP allows (RFC 9110, section 7.8)."""

BODY_FOLLOWS_KEY: Final = "gateway.body_follows"
"""In the message of an answer's head: a part of its body, or its end, follows without anything to wait for in between.

The listener then writes both at once. A system call is the most expensive thing there is in a small answer."""

CLIENT_CLOSED_REQUEST: Final = 499
"""What logs and metrics say of a caller who left; nginx's number."""


class TornAnswerError(Exception):
    """Raised out of the ASGI app so that the server ends the connection as broken: no last chunk, a short body."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The upstream's whole answer was handed to the caller."""

    status: int
    bytes_sent: int
    bytes_received: int
    seconds_to_head: float


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """The upstream gave no answer, and the caller has been sent nothing.

    `detail` is for the caller and names no address; `cause` is for logs.
    """

    reason: Reason
    detail: str
    cause: str


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """The caller closed the connection before the answer was complete. `answer_status` is None before its head."""

    answer_status: int | None
    bytes_sent: int
    bytes_received: int

    @property
    def status(self) -> int:
        """What to log."""
        return CLIENT_CLOSED_REQUEST


@dataclass(frozen=True, slots=True)
class AnswerBroken:
    """The upstream died, stalled or broke the protocol after its head had been sent on."""

    status: int
    bytes_sent: int
    bytes_received: int
    seconds_to_head: float
    reason: Reason
    cause: str

    def torn(self) -> TornAnswerError:
        """What the app must raise; ending normally would make a truncated answer look whole (RFC 9112, section 8)."""
        return TornAnswerError(self.cause)


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A WebSocket was open, and is over. `how_it_ended` says by whom and with which code."""

    bytes_sent: int
    bytes_received: int
    how_it_ended: str


class Tunnel(Protocol):
    """The listener's end of a connection that may stop being HTTP."""

    def switch(
        self, headers: list[tuple[bytes, bytes]], protocol: asyncio.Protocol, stop: Callable[[], None]
    ) -> tuple[asyncio.Transport, bytes] | None:
        """Send a 101 with these headers and let `protocol` have the connection: its transport, and what has come already.

        `stop` is called when the server goes down. None: the caller has left.
        """

    def over(self) -> None:
        """The connection has ended."""


Outcome = Tunnelled | Forwarded | UpstreamFailure | CallerLeft | AnswerBroken


def request_target(scope: Scope) -> bytes:
    """The request-target to forward; under a server that doesn't hand it over, the nearest that ASGI allows."""
    target: bytes | None = scope.get(TARGET_KEY)
    if target is not None:
        return target
    query: bytes = scope.get("query_string", b"")
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path
