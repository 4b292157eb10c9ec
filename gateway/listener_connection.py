"""One caller's connection to the listener: whose turn it is, how long he may take, and how it ends.

It decides the order of answers, when a caller is refused and what becomes of bytes that nobody wants any more. It must
never answer one request inside another's answer, keep more of a caller's bytes than the limits allow, nor keep a caller
who neither sends nor reads. What the bytes say is read in `gateway.listener`.

Pipelined requests are answered in order. What comes behind a queued request is kept unparsed, so that a caller can't
make the gateway hold thousands of requests, while his leaving is still noticed.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from gateway.deadline import Deadline
from gateway.listener_head import ListenerLimits, Refusal, problem_renderer
from policies.reasons import Reason

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from gateway.listener_cycle import App, GatewayCycle
    from gateway.listener_head import RenderRefusal

    AtOnce = Callable[[GatewayCycle], bool]
    """Takes a request whose body is whole, without a task, where nothing has to be waited for; or has done nothing, and says no."""

_BACKLOG_BYTES: Final = 64 * 1024


class CallerConnection(HttpToolsProtocol):
    """Everything about a connection but the reading of it, which is `_feed`."""

    limits: ClassVar[ListenerLimits] = ListenerLimits()
    render_refusal: ClassVar[RenderRefusal] = staticmethod(problem_renderer())
    at_once: ClassVar[AtOnce | None] = None

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
        # Whether a head is being read, and its time is running.
        self._reading_head = False
        self._head_is_timed = False
        # How it ends.
        self._last_request = False
        self._deaf = False
        self._lingering = False
        self._parting_words: bytes | None = None
        self._discarded_bytes = 0
        # What ends a WebSocket that this has become; and whether the server is going down.
        self._stop_tunnel: Callable[[], None] | None = None
        self.is_stopping = False
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
        if not self.transport.is_closing():
            self._write_bound.clear()

    def shutdown(self) -> None:
        """The server is going down: finish what is under way, be it half a head or on its way here, and nothing else."""
        self.is_stopping = True
        if self._stop_tunnel is not None:
            self._stop_tunnel()
        elif self._active is None and not self._queued:
            if self._lingering or self._deaf:
                return  # it ends already
            if not self._reading_head:
                at_first = self._newest is None
                limits = self.limits
                self._in_time(limits.first_word_seconds if at_first else limits.last_word_seconds, self._close)
        else:
            if self._newest is not None:
                self._newest.keep_alive = False
            if self._active is not None:
                self._active.stop()

    def _feed(self, data: bytes) -> None:
        """Read what the caller sent."""
        raise NotImplementedError

    # Whose turn it is.

    def _start(self, cycle: GatewayCycle) -> None:
        self._active = cycle
        at_once = type(self).at_once
        if at_once is None or cycle.more_body or cycle.is_tunnel or not at_once(cycle):
            self.run(cycle, self.app)

    def run(self, cycle: GatewayCycle, app: App) -> asyncio.Task[None]:
        """Let the app work on a request in a task of its own."""
        task = self.loop.create_task(cycle.run(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        return task

    def answered(self, cycle: GatewayCycle) -> None:
        """The answer is complete: go on with what came after it, or bring the connection to its end."""
        self.server_state.total_requests += 1
        self._active = None
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self._queued.clear()
            if cycle.more_body or cycle.is_tunnel:
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
        elif self.is_stopping:
            self._close()
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

    def become_tunnel(self, stop: Callable[[], None]) -> None:
        """It is no HTTP any more; `stop` ends it when the server goes down, which may be now."""
        self.server_state.total_requests += 1
        self._bound.clear()
        self._write_bound.clear()
        self._stop_tunnel = stop
        if self.is_stopping:
            self.loop.call_soon(stop)

    # Refusing and ending.

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
            self._write_bound.set(self.limits.body_silence_seconds)

    def _abort(self) -> None:
        self._deaf = True
        self.transport.abort()

    def _in_time(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._otherwise = otherwise
        self._bound.set(seconds)

    def _out_of_time(self) -> None:
        self._otherwise()
