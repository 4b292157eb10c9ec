"""One request and its answer on the listener's side: the ASGI `receive` and `send`, and the framing of what goes out.

It decides how an answer is framed (Content-Length, chunked, or by the end of the connection for HTTP/1.0) and that an
answer which doesn't end as it was framed ends the connection as broken. It must never write two answers, nor bytes
that the app's headers could have smuggled in.
"""

from __future__ import annotations

import asyncio
import http
import math
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

from gateway.listener_scope import scope_of
from gateway.upstream.outcome import BODY_FOLLOWS_KEY, TornAnswerError

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

    from uvicorn.protocols.http.flow_control import FlowControl

    from gateway.fields import Fields
    from gateway.listener_head import ListenerLimits
    from gateway.upstream.outcome import Message, Receive, Scope, Send

    App = Callable[[Scope, Receive, Send], Awaitable[None]]


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES: Final = {status: _status_line(status) for status in range(200, 600)}
_BODILESS_STATUSES: Final = frozenset({204, 304})
_OURS: Final = frozenset({b"transfer-encoding", b"keep-alive", b"upgrade", b"trailer"})
_BODY_BUFFER_BYTES: Final = 64 * 1024
"""Above it nothing more is read from the caller until the app has taken what is there."""

_WHOLE_BODY_BYTES: Final = 16 * 1024
"""Of a body that is handed on in one piece with its head: well below what a connection takes without being asked to wait."""

_JOINED_BYTES: Final = 4096
"""Of a body, up to which it is copied behind its head."""

_CRASHED: Final = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
)


class Connection(Protocol):
    """What a cycle needs of the connection it belongs to."""

    limits: ClassVar[ListenerLimits]
    transport: asyncio.Transport
    flow: FlowControl
    logger: logging.Logger
    is_stopping: bool
    scheme: Literal["http", "https"] | None
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    asgi_version: Any
    app_state: dict[str, Any]

    def awaiting_body(self) -> None:
        """The app waits for more of the body."""

    def body_taken(self) -> None:
        """The app has taken what had come of the body."""

    def answered(self, cycle: GatewayCycle) -> None:
        """The answer is complete."""

    def tear(self, cycle: GatewayCycle) -> None:
        """The answer will never be complete."""

    def run(self, cycle: GatewayCycle, app: App) -> asyncio.Task[None]:
        """Let the app work on it in a task of its own."""


class GatewayCycle:
    """Receives the body of one request and sends its answer."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_body_bytes",
        "_bytes_come",
        "_chunked",
        "_connection",
        "_expects_continue",
        "_head_to_send",
        "_length_left",
        "_news",
        "_on_departure",
        "_on_stop",
        "_scope",
        "disconnected",
        "fields",
        "is_tunnel",
        "keep_alive",
        "method",
        "more_body",
        "response_complete",
        "response_started",
        "target",
        "version",
    )

    def __init__(
        self,
        connection: Connection,
        method: str,
        target: bytes,
        version: str,
        fields: Fields,
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self._connection = connection
        self._scope: Scope | None = None
        self.version = version
        self.method = method
        self.target = target
        self.fields = fields
        self.is_tunnel = False
        self._expects_continue = expects_continue
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._bytes_come = 0
        self._news: asyncio.Event | None = None
        self._on_departure: Callable[[], None] | None = None
        self._on_stop: Callable[[], None] | None = None
        self._bodiless = False
        self._chunked = False
        self._length_left: int | None = None
        self._head_to_send = b""
        self.keep_alive = keep_alive
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    @property
    def scope(self) -> Scope:
        """What ASGI tells of it, made when first asked for."""
        scope = self._scope
        if scope is None:
            scope = self._scope = scope_of(self._connection, self)
        return scope

    @property
    def scheme(self) -> str:
        """That of the caller's connection."""
        return self._connection.scheme or "http"

    @property
    def peer(self) -> str:
        """The address that connected; empty where it has none."""
        client = self._connection.client
        return client[0] if client else ""

    @property
    def whole_body(self) -> bytes | None:
        """The body, where it has come whole, is small, and its sender doesn't wait for a 100 Continue."""
        if not self._body and not self.more_body:
            return b""
        if self.more_body or self._expects_continue or self._body_bytes > _WHOLE_BODY_BYTES:
            return None
        if len(self._body) > 1:
            self._body = [b"".join(self._body)]
        return self._body[0]

    # What the connection tells.

    def feed(self, body: bytes) -> None:
        """More of the body has come."""
        self._body.append(body)
        self._body_bytes += len(body)
        self._bytes_come += len(body)
        if self._body_bytes > _BODY_BUFFER_BYTES:
            self._connection.flow.pause_reading()
        self._tell()

    @property
    def bytes_come(self) -> int:
        """How much has come of the body."""
        return self._bytes_come

    def body_complete(self) -> None:
        """The body has come whole."""
        self.more_body = False
        self._tell()

    def leave(self) -> None:
        """The caller has gone, or sent what can't be understood: nothing more comes, nothing more goes."""
        if self.disconnected or self.response_complete:
            return
        self.disconnected = True
        self._tell()
        if self._on_departure is not None:
            self._on_departure()

    def on_departure(self, callback: Callable[[], None] | None) -> None:
        """What to call at once when the caller leaves; see `gateway.upstream.outcome.DEPARTURE_KEY`."""
        self._on_departure = callback
        if callback is not None and self.disconnected:
            callback()

    def stop(self) -> None:
        """The server is going down."""
        if self._on_stop is not None:
            self._on_stop()

    def on_stop(self, callback: Callable[[], None] | None) -> None:
        """What to call when the server goes down; see `gateway.upstream.outcome.STOP_KEY`."""
        self._on_stop = callback
        if callback is not None and self._connection.is_stopping:
            callback()

    def become_tunnel(self) -> None:
        """The answer was a 101: there is nothing to send or receive here any more."""
        self.response_started = self.response_complete = True
        self._on_departure = None
        self._tell()

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is what ends this answer, so that a clean end would make it look whole."""
        return self.response_started and not (self._bodiless or self._chunked or self._length_left is not None)

    # What is answered without an app's task.

    def whole_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """The head of an answer that `send_whole` can send at once; None while the caller takes less than there is to send.

        Raises RuntimeError where a header can't be sent.
        """
        return None if self._connection.flow.write_paused else self._head(status, headers)

    def send_whole(self, head: bytes, body: bytes) -> None:
        """The whole answer; `head` is that of `whole_head`."""
        self.response_started = True
        self._body.clear()
        self._head_to_send = head
        self._send_body(body, more=False)

    def go_on(self, app: App) -> asyncio.Task[None]:
        """Let an app answer after all."""
        return self._connection.run(self, app)

    # What the app calls.

    async def run(self, app: App) -> None:
        """Run the app to its end, and never leave an answer looking whole that is not."""
        try:
            await app(self.scope, self.receive, self.send)
        except TornAnswerError:
            self.end_unanswered()
        except Exception as error:
            self._connection.logger.exception("The application failed", exc_info=error)
            self.end_unanswered()
        except BaseException:
            self.end_unanswered()
            raise
        else:
            if not (self.disconnected or self.response_complete):
                self._connection.logger.error("The application ended without completing its answer")
                self.end_unanswered()

    async def receive(self) -> Message:
        """The next part of the body, or that there is nobody any more to answer."""
        connection = self._connection
        if self._expects_continue and not self.response_started and not self.disconnected:
            # Only now: an app that refuses from the headers alone never asks for the body (RFC 9110, section 10.1.1).
            self._expects_continue = False
            if not self._body and self.more_body:
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self.disconnected or self.response_complete):
            await self._await_news()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._body_bytes = 0
        connection.body_taken()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _await_news(self) -> None:
        """Return when there is something that the app was not told yet."""
        if self._news is None:
            self._news = asyncio.Event()
            if self._body or not self.more_body:
                return  # it came before anybody asked
        if not self._news.is_set():
            if self.more_body:
                self._connection.awaiting_body()
            await self._news.wait()
        self._news.clear()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    async def send(self, message: Message) -> None:
        """Hand on the head of the answer, or a part of its body; returns when the caller has taken most of what went before."""
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"The answer must begin with http.response.start, not {message['type']}")
            head = self._head(message["status"], message.get("headers", ()))
            self.response_started = True
            if message.get(BODY_FOLLOWS_KEY, False):
                self._head_to_send = head
            else:
                self._connection.transport.write(head)
        elif self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']} is not what can follow now")
        else:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        self._bodiless = self.method == "HEAD" or status in _BODILESS_STATUSES
        if self._expects_continue:
            # The caller may now send the body or not, and nobody can tell which: never read on from here.
            self.keep_alive = False
        if self.more_body and self._left_of_body() > self._connection.limits.drain_bytes:
            # More than will be read away: said now, or the caller would send his next request into a closing connection.
            self.keep_alive = False
        lines = [_STATUS_LINES[status]]
        says_close = False
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"content-length":
                if status == 204:  # RFC 9110, section 8.6: MUST NOT
                    continue
                if not self._bodiless:
                    self._length_left = int(value)
            elif lowered == b"connection":
                says_close = b"close" in [token.strip() for token in value.lower().split(b",")]
                continue
            elif lowered in _OURS:
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self._bodiless and self._length_left is None:
            if self.version == "1.1":
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:  # RFC 9112, section 6.1: MUST NOT send chunked to HTTP/1.0
                says_close = True
        if says_close:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        # One look at the whole: a line break inside a name or value would split the answer.
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("A header of the answer holds a line break or NUL")
        return head

    def _left_of_body(self) -> float:
        """How many bytes of the body are still to come; of a chunked one nobody knows."""
        for name, value in self.fields.headers:
            if name == b"content-length":
                return int(value) - self._bytes_come
        return math.inf

    def _send_body(self, body: bytes, *, more: bool) -> None:
        parts: tuple[bytes, ...] = (body,) if body else ()
        if self._bodiless:
            parts = ()
        elif self._chunked:
            end = b"\r\n" if more else b"\r\n0\r\n\r\n"
            parts = (b"%x\r\n" % len(body), body, end) if body else () if more else (b"0\r\n\r\n",)
        elif self._length_left is not None:
            if len(body) > self._length_left:
                raise RuntimeError("The answer is longer than its Content-Length")
            self._length_left -= len(body)
            if not more and self._length_left:
                raise RuntimeError("The answer is shorter than its Content-Length")
        if self._head_to_send:
            parts = (self._head_to_send, *parts)
            self._head_to_send = b""
        if len(body) <= _JOINED_BYTES:  # one small write, where copying costs less than handing over the parts
            if parts:
                self._connection.transport.write(b"".join(parts))
        else:
            self._connection.transport.writelines(parts)
        if not more:
            self.response_complete = True
            self._on_departure = None
            self._tell()
            self._connection.answered(self)

    def end_unanswered(self) -> None:
        """The last resort, when the app itself failed or meant to; every expected outcome has an answer of its own there."""
        if self.response_complete or self.disconnected:
            return
        if self.response_started:
            self._connection.tear(self)
            return
        self.keep_alive = False
        self.response_started = self.response_complete = True
        self._on_departure = None
        self._connection.transport.write(_CRASHED)
        self._connection.answered(self)
