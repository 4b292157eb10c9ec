"""The public listener's HTTP/1.1: uvicorn's httptools protocol, with what it leaves open closed.

It decides what is a request at all, how much and how slowly a caller may send, and in what order answers go out. What
is not a request is refused here, in the gateway's own shape, and ends the connection. It must never

- hand the app a header that came as a trailer (RFC 9110, section 6.5.1), or a target other than the one that came;
- read a second request where the first one's end is in doubt, or answer one request inside another's answer;
- keep more of a caller's bytes than the limits allow, nor a caller who neither sends nor reads.

Pipelined requests are answered in order. What comes behind a queued request is kept unparsed, so that a caller can't
make the gateway hold thousands of requests, while his leaving is still noticed.
"""

from __future__ import annotations

import socket
import struct
import urllib.parse
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from gateway.deadline import Deadline
from gateway.listener_cycle import GatewayCycle
from gateway.listener_head import (
    ListenerLimits,
    Refusal,
    has_body,
    head_refusal,
    problem_renderer,
    without_upgrade,
)
from gateway.upstream.outcome import DEPARTURE_KEY, TARGET_KEY
from policies.reasons import Reason

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from gateway.listener_head import RenderRefusal

_SLICE_BYTES: Final = 16 * 1024
"""How much is parsed at once. The parser can't be stopped inside a read, and uvloop reads up to 256 KiB: nine thousand requests."""
_BACKLOG_BYTES: Final = 64 * 1024
_BLANKS: Final = frozenset({b" ", b"\t"})
_TOO_LARGE: Final = Refusal(Reason.HEADERS_TOO_LARGE, "The head of the request is too long.")


class _RefusedError(Exception):
    """Stops the parser from within a callback; what is refused stands in `_refusal`."""


class GatewayProtocol(HttpToolsProtocol):
    """One caller's connection. `uvicorn.Config(http=GatewayProtocol, ...)`; see `gateway_protocol` for settings."""

    limits: ClassVar[ListenerLimits] = ListenerLimits()
    render_refusal: ClassVar[RenderRefusal] = staticmethod(problem_renderer())

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # The request being received, the one being answered, and those that wait for their turn behind it.
        self._newest: GatewayCycle | None = None
        self._active: GatewayCycle | None = None
        self._queued: deque[GatewayCycle] = deque()
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        # The head being read.
        self._reading_head = False
        self._head_is_timed = False
        self._upgrade_offered = False
        self._progressed = False
        self._silent_bytes = 0
        self._slice = b""
        self._head_so_far = b""
        # How it ends.
        self._last_request = False
        self._deaf = False
        self._lingering = False
        self._refusal: Refusal | None = None
        self._parting_words: bytes | None = None
        self._discarded_bytes = 0
        # What has to happen in time.
        self._otherwise: Callable[[], None] = self._close
        self._bound = Deadline(self.loop, self._out_of_time)
        self._write_bound = Deadline(self.loop, self._abort)

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected, and has `head_seconds` to say something."""
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = get_local_addr(transport)
        self.client = get_remote_addr(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._in_time(self.limits.head_seconds, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone: whoever works for him is told at once."""
        self.connections.discard(self)
        self._bound.cancel()
        self._write_bound.cancel()
        for cycle in (self._active, self._newest, *self._queued):
            if cycle is not None:
                cycle.leave()
        self._queued.clear()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]  # as uvicorn does: breaks a reference cycle

    def data_received(self, data: bytes) -> None:
        """The caller sent something."""
        if self._deaf:
            self._discard(len(data))
        elif self._queued:
            self._keep_for_later(data)
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        """The caller reads more slowly than the answer comes."""
        self.flow.pause_writing()
        self._write_bound.set(self.limits.body_silence_seconds)

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self.flow.resume_writing()
        self._write_bound.clear()

    def shutdown(self) -> None:
        """The server is going down: finish what is under way, and nothing else."""
        if self._active is None and not self._queued:
            self._close()
        elif self._newest is not None:
            self._newest.keep_alive = False

    # Parsing.

    def _feed(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE_BYTES):
            if self._deaf:
                self._discard(len(data) - start)
                return
            if self._queued:
                self._keep_for_later(data[start:])
                return
            self._feed_slice(data if len(data) <= _SLICE_BYTES else data[start : start + _SLICE_BYTES])
        if self._reading_head and self._active is None and not self._head_is_timed:
            self._head_is_timed = True
            self._in_time(self.limits.head_seconds, self._head_too_slow)

    def _feed_slice(self, data: bytes) -> None:
        while True:
            self._slice = data
            self._progressed = False
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._upgrade_offered = False
                if self._takes_websocket():
                    self._bound.cancel()
                    self.handle_websocket_upgrade()
                    return
                head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
                data = head + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._stop_reading()
                return
            else:
                break
        # What the parser swallows without telling is bounded: an unfinished head, trailers, chunk extensions, blank lines.
        if self._progressed:
            self._silent_bytes = 0
        else:
            self._silent_bytes += len(data)
            if self._silent_bytes > self.limits.head_bytes:
                self._refuse(_TOO_LARGE)
        if self._reading_head:
            self._head_so_far += data
        if self._discarded_bytes > self.limits.drain_bytes:
            self._stop_draining()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._last_request:  # RFC 9112, section 9.6: what follows `Connection: close` is not a request
            raise _RefusedError
        self._bound.clear()
        self._reading_head = True
        self._head_is_timed = False
        self._head_so_far = b""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request-target."""
        self.url += url
        if len(self.url) > self.limits.target_bytes:
            self._refusal = Refusal(Reason.URI_TOO_LONG, "The request target is too long.")
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head; or of the trailers, which are dropped, since they would pass for headers."""
        if not self._reading_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        # llhttp leaves some of the whitespace behind a value, which is no part of it (RFC 9112, section 5.1).
        self.headers.append((name, value.rstrip(b" \t") if value[-1:] in _BLANKS else value))

    def on_headers_complete(self) -> None:
        """The head is whole: refuse it, or make it a request and start on it."""
        self._progressed = True
        self._bound.clear()
        method: bytes = self.parser.get_method()
        if self.parser.should_upgrade() and method != b"CONNECT":
            self._upgrade_offered = True
            if not self._takes_websocket():
                return
        version: str = self.parser.get_http_version()
        self._refusal = self._what_is_wrong(method, version)
        if self._refusal is not None:
            raise _RefusedError
        self._reading_head = False
        target = self.url
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("ascii")
        cycle = GatewayCycle(
            self,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            expects_continue=self.expect_100_continue and version == "1.1",
        )
        cycle.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self.scheme,
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
            "state": self.app_state.copy(),
            TARGET_KEY: target,
            DEPARTURE_KEY: cycle.on_departure,
        }
        if self._upgrade_offered:  # a WebSocket: its own protocol takes over once the parser has let go
            self.scope = cycle.scope  # type: ignore[assignment]
            return
        self._newest = cycle
        if self._active is None:
            self._start(cycle)
        else:
            self._queued.append(cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._progressed = True
        cycle = self._newest
        if cycle is None or cycle.response_complete:
            self._discarded_bytes += len(body)
        else:
            self._bound.clear()
            cycle.feed(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._progressed = True
        cycle = self._newest
        if self._upgrade_offered or cycle is None:
            return
        self._last_request = not cycle.keep_alive
        cycle.body_complete()
        if cycle.response_complete:
            self._discarded_bytes = 0
            self._await_request()
        else:
            self._bound.clear()

    def _what_is_wrong(self, method: bytes, version: str) -> Refusal | None:
        limits = self.limits
        if len(self.headers) > limits.header_count:
            return Refusal(Reason.HEADERS_TOO_LARGE, f"There are more than {limits.header_count} headers.")
        head = self._slice
        if self._head_so_far:
            head = self._head_so_far + head
            if sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.head_bytes:
                return _TOO_LARGE
        # llhttp also takes RTSP/1.0 and ICE/1.0 for HTTP, several spaces for one, and none before a missing version.
        if b"%b %b HTTP/1." % (method, self.url) not in head:
            return Refusal(Reason.BAD_REQUEST, "The request line is not one of HTTP/1.1 or HTTP/1.0.")
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) > limit or len(self.tasks) >= limit):
            return Refusal(Reason.OVERLOADED, "Too many requests are under way.")
        return head_refusal(method, self.url, version, self.headers)

    def _takes_websocket(self) -> bool:
        """Whether the other protocol may have this connection: nothing may be under way on it, and no body to come."""
        return (
            self._active is None
            and not has_body(self.headers)
            and self.parser.get_method() == b"GET"
            and self._should_upgrade()
        )

    # Whose turn it is.

    def _start(self, cycle: GatewayCycle) -> None:
        self._active = cycle
        task = self.loop.create_task(cycle.run(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def answered(self, cycle: GatewayCycle) -> None:
        """The answer is complete: go on with what came after it, or bring the connection to its end."""
        self.server_state.total_requests += 1
        self._active = None
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self._queued.clear()
            if cycle.more_body:
                self._linger()
            else:
                self._close()
            return
        self._advance()

    def _advance(self) -> None:
        if self._queued:
            self._start(self._queued.popleft())
        if not self._queued and self._backlog:
            backlog = b"".join(self._backlog)
            self._backlog.clear()
            self._backlog_bytes = 0
            self._feed(backlog)
        self.body_taken()
        if self._active is None:
            self._await_request()

    def _await_request(self) -> None:
        if self._parting_words is not None:
            self.transport.write(self._parting_words)
            self._linger()
        elif self._deaf:
            return
        elif self._newest is not None and self._newest.more_body:
            # The app answered without reading the body. Reading it away is what keeps its rest from being taken for a
            # request (Pingora, CVE-2025-4366); but not for ever.
            self._in_time(self.limits.drain_seconds, self._abort)
        elif self._reading_head:
            self._head_is_timed = True
            self._in_time(self.limits.head_seconds, self._head_too_slow)
        else:
            self._in_time(self.timeout_keep_alive, self._close)

    def _keep_for_later(self, data: bytes) -> None:
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > _BACKLOG_BYTES:
            self.flow.pause_reading()

    # What a cycle asks for.

    def awaiting_body(self) -> None:
        """The app waits for the caller, who has a bounded time to go on."""
        self._in_time(self.limits.body_silence_seconds, self._body_too_slow)

    def body_taken(self) -> None:
        """There is room again for what the caller sends."""
        if self._backlog_bytes <= _BACKLOG_BYTES:
            self.flow.resume_reading()

    def tear(self, cycle: GatewayCycle) -> None:
        """End the connection so that the caller can see the answer is not whole (RFC 9112, section 8)."""
        self._deaf = True
        self._active = None
        self._queued.clear()
        if cycle.ends_with_connection:
            # Its end is the end of the connection, so only a reset tells the two apart.
            reset = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self.transport.abort()
        else:
            self._close()

    # Refusing and ending.

    def _stop_reading(self) -> None:
        if self._last_request:
            self._deaf = True
            return
        refusal, self._refusal = self._refusal, None
        self._refuse(refusal or Refusal(Reason.BAD_REQUEST, "The request is not valid HTTP/1.1."))

    def _refuse(self, refusal: Refusal) -> None:
        """Say no, after what is still owed to earlier requests, and read no further: nobody knows where the next one begins."""
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        self._bound.clear()
        words = type(self).render_refusal(refusal.reason, refusal.detail)
        cycle = self._newest
        if cycle is not None and cycle.more_body and not self._reading_head:
            # It is the body of this request that went wrong; whoever works on it must not take it for whole.
            if cycle.response_complete:
                self._close()
                return
            if cycle.response_started:
                cycle.leave()
                self.tear(cycle)
                return
            cycle.leave()
            if cycle is self._active:
                self._active = None
            else:
                self._queued.remove(cycle)
        if self._active is not None:
            self._parting_words = words
            return
        self.transport.write(words)
        self._linger()

    def _head_too_slow(self) -> None:
        self._refuse(Refusal(Reason.REQUEST_TIMEOUT, "The head of the request took too long to come."))

    def _body_too_slow(self) -> None:
        self._refuse(Refusal(Reason.REQUEST_TIMEOUT, "The body of the request stopped coming."))

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._lingering and self._discarded_bytes > self.limits.drain_bytes:
            self._stop_draining()

    def _linger(self) -> None:
        """Close in stages: a close with unread bytes resets the connection, and the caller may lose the answer (RFC 9112, section 9.6)."""
        self._deaf = True
        if self._lingering:
            return
        self._lingering = True
        self._discarded_bytes = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._in_time(self.limits.drain_seconds, self._abort)
        else:
            self._close()

    def _stop_draining(self) -> None:
        """Enough was read away. Reading no more holds the caller back without a reset, so that he can still read his answer."""
        if not self.transport.is_closing():
            self._linger()
            self.flow.pause_reading()

    def _close(self) -> None:
        """Close once what is written has been taken, which also has its time."""
        self._deaf = True
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._write_bound.set(self.limits.drain_seconds)

    def _abort(self) -> None:
        self._deaf = True
        self.transport.abort()

    def _in_time(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._otherwise = otherwise
        self._bound.set(seconds)

    def _out_of_time(self) -> None:
        self._otherwise()


def gateway_protocol(
    *, limits: ListenerLimits | None = None, render_refusal: RenderRefusal | None = None
) -> type[GatewayProtocol]:
    """The protocol with these settings; uvicorn makes the instances, so that settings live on the class."""
    members: dict[str, object] = {}
    if limits is not None:
        members["limits"] = limits
    if render_refusal is not None:
        members["render_refusal"] = staticmethod(render_refusal)
    return type("ConfiguredGatewayProtocol", (GatewayProtocol,), members)
