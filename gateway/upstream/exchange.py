"""One request handed on and its answer handed back, each chunk as it comes, both ways at once.

It decides when an exchange is over and how it ended (`gateway.upstream.outcome`). It must never

- leave a connection open behind it, however it ends: normally, by a caller who left, by cancellation;
- let a caller's half-sent body look whole to the upstream, nor an upstream's half-sent answer whole to the caller;
- count against the upstream what the caller did.

The body goes up in a task of its own, so that an answer that comes before the body's end gets through (RFC 9112,
section 9.3: a 413, say). A request without a body needs no task at all where the listener tells of departures.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.upstream.connection import UpstreamConnection, connect
from gateway.upstream.headers import inbound_response_headers
from gateway.upstream.outcome import (
    DEPARTURE_KEY,
    AnswerBroken,
    CallerLeft,
    Forwarded,
    Outcome,
    UpstreamFailure,
)
from policies.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.upstream.answer import AnswerReader
    from gateway.upstream.balancer import Target
    from gateway.upstream.outcome import Receive, Scope, Send
    from policies.schema import Timeouts

    Headers = list[tuple[bytes, bytes]]

_LAST_CHUNK: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _RequestHead:
    """The bytes of a request's head, and how its body follows."""

    data: bytes
    chunked: bool
    has_body: bool


def _request_head(method: str, target: bytes, headers: Headers, authority: bytes) -> _RequestHead:
    """Raises ValueError where the bytes would say something else than was meant."""
    lines = [b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target), b""]
    has_host = chunked = has_body = False
    for header in headers:
        name, value = header
        if name == b"host":
            has_host = True
        elif name == b"content-length":
            has_body = bool(value.strip(b"0"))
        elif name == b"transfer-encoding":
            chunked = has_body = True
        lines.append(b"%b: %b\r\n" % header)
    if not has_host:
        lines[1] = b"Host: %b\r\n" % authority
    lines.append(b"Connection: close\r\n\r\n")
    head = b"".join(lines)
    # One look at the whole: a line break inside a name or value would split the request.
    breaks = len(headers) + (3 if has_host else 4)
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head or b" " in target:
        raise ValueError("a line break, NUL or space where none may be in the head of a request")
    return _RequestHead(head, chunked, has_body)


class Exchange:
    """One request on its way to one of the targets, and back."""

    def __init__(
        self, *, timeouts: Timeouts, loop: asyncio.AbstractEventLoop, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._timeouts = timeouts
        self._loop = loop
        self._scope = scope
        self._receive = receive
        self._send = send
        self._tell_of_departure: Callable[[Callable[[], None] | None], None] | None = scope.get(DEPARTURE_KEY)
        self._connecting: asyncio.Task[UpstreamConnection] | None = None
        self._connection: UpstreamConnection | None = None
        self._pump: asyncio.Task[None] | None = None
        self._pump_error: BaseException | None = None
        self._uploading = False
        self._left = False
        self._answer_status: int | None = None
        self._bytes_received = 0
        self._bytes_sent = 0

    async def run(self, targets: Sequence[Target], target_bytes: bytes, headers: Headers) -> Outcome:
        """Try the targets in turn until one is connected, then hand the request on, once."""
        if self._tell_of_departure is not None:
            self._tell_of_departure(self._caller_left)
        try:
            failure: UpstreamFailure | None = None
            for target in targets:
                if self._left:
                    return self._left_outcome()
                target.pending += 1
                try:
                    opened = await self._open(target)
                    if opened is None or self._left:
                        return self._left_outcome()
                    if isinstance(opened, UpstreamFailure):
                        failure = opened  # nothing was sent, so that another target may get it (RFC 9110, 9.2.2)
                        continue
                    head = _request_head(self._scope["method"], target_bytes, headers, target.authority)
                    return await self._converse(opened, head)
                finally:
                    target.pending -= 1
            assert failure is not None  # noqa: S101  # an upstream has a target: the schema saw to that
            return failure
        finally:
            if self._tell_of_departure is not None:
                self._tell_of_departure(None)
            if self._pump is not None:
                self._pump.cancel()
            if self._connection is not None:
                self._connection.abort()

    async def _open(self, target: Target) -> UpstreamConnection | UpstreamFailure | None:
        """A connection, why there is none, or None when the caller left meanwhile."""
        task = self._loop.create_task(self._dial(target))
        self._connecting = task
        try:
            self._connection = connection = await task
        except TimeoutError:
            return UpstreamFailure(
                Reason.UPSTREAM_TIMEOUT,
                "The upstream did not accept a connection in time.",
                f"connecting to {target.authority.decode()} timed out",
            )
        except OSError as error:
            return UpstreamFailure(
                Reason.UPSTREAM_UNREACHABLE,
                "The upstream can't be reached.",
                f"connecting to {target.authority.decode()}: {error}",
            )
        except asyncio.CancelledError:
            if self._left and task.cancelled() and not _being_cancelled():
                return None
            task.add_done_callback(_abort_result)  # it may have connected in the very turn that cancelled us
            task.cancel()
            raise
        finally:
            self._connecting = None
        return connection

    async def _dial(self, target: Target) -> UpstreamConnection:
        async with asyncio.timeout(self._timeouts.connect):
            return await connect(self._loop, target.host, target.port, target.tls)

    async def _converse(self, connection: UpstreamConnection, head: _RequestHead) -> Outcome:
        began_at = self._loop.time()
        reader = connection.begin(head.data, to_head=self._scope["method"] == "HEAD")
        self._uploading = head.has_body
        if self._uploading or self._tell_of_departure is None:
            self._pump = self._loop.create_task(self._upload(connection, chunked=head.chunked))
            self._pump.add_done_callback(self._pump_ended)
        if not await self._await_head(connection, reader):
            return self._left_outcome()
        if reader.head is None:
            self._raise_pump_error()
            return self._failure(connection, reader)
        seconds_to_head = self._loop.time() - began_at
        self._answer_status = status = reader.head.status
        answer_headers = inbound_response_headers(reader.head.headers)
        await self._send({"type": "http.response.start", "status": status, "headers": answer_headers})
        if not await self._send_body(connection, reader):
            return self._left_outcome()
        if reader.complete:
            return Forwarded(status, self._bytes_sent, self._bytes_received, seconds_to_head)
        self._raise_pump_error()
        failure = self._failure(connection, reader)
        return AnswerBroken(
            status, self._bytes_sent, self._bytes_received, seconds_to_head, failure.reason, failure.cause
        )

    async def _await_head(self, connection: UpstreamConnection, reader: AnswerReader) -> bool:
        """Whether the caller is still there when the head has come, or can't any more.

        The upstream's time runs from the end of the request, and informational answers don't stretch it.
        """
        due_at: float | None = None
        while reader.head is None and reader.problem is None and not self._left:
            if due_at is None and not self._uploading:
                due_at = self._loop.time() + self._timeouts.response
            await connection.news(None if due_at is None else max(0.0, due_at - self._loop.time()))
        return not self._left

    async def _send_body(self, connection: UpstreamConnection, reader: AnswerReader) -> bool:
        """Whether the caller is still there when the answer is complete or broken. Time spent on a slow caller doesn't count."""
        while not self._left:
            body = reader.take_body()
            complete = reader.complete
            if body or complete:
                self._bytes_sent += len(body)
                await self._send({"type": "http.response.body", "body": body, "more_body": not complete})
                if complete:
                    break
            elif reader.problem is not None:
                break
            else:
                await connection.news(self._timeouts.idle)
        return not self._left

    async def _upload(self, connection: UpstreamConnection, *, chunked: bool) -> None:
        """Hand the body on at the upstream's pace; then, under a server that tells of nothing, wait for the caller to leave."""
        while self._uploading:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._caller_left()
                return
            body: bytes = message.get("body", b"")
            self._bytes_received += len(body)
            if body and chunked:
                connection.write(b"%x\r\n" % len(body), body, b"\r\n")
            elif body:
                connection.write(body)
            if not message.get("more_body", False):
                if chunked:
                    connection.write(_LAST_CHUNK)
                self._uploading = False
                connection.wake()
            await connection.room(self._timeouts.idle)
            if connection.lost:
                return
        if self._tell_of_departure is None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._caller_left()

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled() and pump.exception() is not None and self._connection is not None:
            self._pump_error = pump.exception()
            self._connection.abort()

    def _raise_pump_error(self) -> None:
        """What the server's `receive` raised is nobody's outcome."""
        if self._pump_error is not None:
            raise self._pump_error

    def _caller_left(self) -> None:
        self._left = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def _left_outcome(self) -> CallerLeft:
        return CallerLeft(self._answer_status, self._bytes_sent, self._bytes_received)

    def _failure(self, connection: UpstreamConnection, reader: AnswerReader) -> UpstreamFailure:
        cause = reader.problem or "the answer ended early"
        if connection.timed_out:
            return UpstreamFailure(Reason.UPSTREAM_TIMEOUT, "The upstream did not answer in time.", cause)
        return UpstreamFailure(Reason.UPSTREAM_PROTOCOL_ERROR, "The upstream did not answer as HTTP asks.", cause)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _abort_result(task: asyncio.Task[UpstreamConnection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
