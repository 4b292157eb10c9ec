"""The public listener's HTTP/1.1: uvicorn's httptools protocol, with what it leaves open closed.

It decides what is a request at all: one parser's reading of the bytes, with the checks that the parser doesn't make.
What is not a request is refused in the gateway's own shape and ends the connection. It must never

- hand the app a header that came as a trailer (RFC 9110, section 6.5.1), or a target other than the one that came;
- read a second request where the first one's end is in doubt;
- let the parser swallow more than the limits allow, in whatever it doesn't tell of.

The connection of a request that offers a WebSocket goes to `gateway.listener_tunnel` until it is answered.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import httptools

from gateway.fields import Fields
from gateway.known_fields import LARGEST_BLOCK, KnownFields
from gateway.listener_connection import CallerConnection
from gateway.listener_cycle import GatewayCycle
from gateway.listener_head import (
    ListenerLimits,
    Refusal,
    has_plain_line,
    head_refusal,
    offers_websocket,
    without_upgrade,
)
from gateway.listener_tunnel import CallerTunnel
from gateway.upstream.outcome import TUNNEL_KEY
from policies.reasons import Reason

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from gateway.listener_connection import AtOnce
    from gateway.listener_head import RenderRefusal

_SLICE_BYTES: Final = 16 * 1024
"""How much is parsed at once. The parser can't be stopped inside a read, and uvloop reads up to 256 KiB: nine thousand requests."""
_BLANKS: Final = frozenset({b" ", b"\t"})
_PLAIN_LINE: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*+) HTTP/1\.1(?=\r\n)"
)
_ANNOUNCE_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_TOO_LARGE: Final = Refusal(Reason.HEADERS_TOO_LARGE, "The head of the request is too long.")


class _RefusedError(Exception):
    """Stops the parser from within a callback; what is refused stands in `_refusal`."""


class GatewayProtocol(CallerConnection):
    """Reads one caller's connection. `uvicorn.Config(http=GatewayProtocol, ...)`; see `gateway_protocol` for settings."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._upgrade_offered = False
        self._tunnel: CallerTunnel | None = None
        self._refusal: Refusal | None = None
        # What is being parsed, and what of an unfinished head was before it.
        self._slice = b""
        self._head_so_far = b""
        self._slice_ends_body = False
        self._slice_has_begun_one = False
        self._begins_slice = True
        self._progressed = False
        self._silent_bytes = 0
        self._announces_body = False
        # The last head, where the next one may be known by it; and a request whose body may come whole with its head.
        self._known: KnownFields | None = None
        self._unstarted: GatewayCycle | None = None

    def _feed(self, data: bytes) -> None:
        if self._known is not None and self._take_known(self._known, data):
            return
        for start in range(0, len(data), _SLICE_BYTES):
            if self._deaf:
                self._discard(len(data) - start)
                return
            if self._queued:
                self._keep_for_later(data[start:])
                return
            if start and self._tunnel is not None:
                self._tunnel.data_received(data[start:])
                return
            self._feed_slice(data if len(data) <= _SLICE_BYTES else data[start : start + _SLICE_BYTES])
        if self._reading_head and self._active is None and not self._head_is_timed:
            self._head_is_timed = True
            self._in_time(self.limits.head_seconds, self._head_too_slow)

    def _take_known(self, known: KnownFields, data: bytes) -> bool:
        """Take a request that is here whole, and alone, and whose fields are known; False, and nothing done, for any other."""
        newest = self._newest
        if newest is None or newest.more_body or self._active is not None or self._reading_head or self._silent_bytes:
            return False
        line = _PLAIN_LINE.match(data)
        if line is None or self._last_request or len(data) > _SLICE_BYTES:
            return False
        fields = known.read(data, line.end())
        if fields is None:
            return False
        method, target = line.groups()
        if len(target) > self.limits.target_bytes or self.limit_concurrency is not None or self.is_stopping:
            return False
        self._bound.clear()
        self._newest = cycle = GatewayCycle(
            self,
            method.decode("ascii"),
            target,
            "1.1",
            fields,
            keep_alive=True,
            expects_continue=False,
        )
        if fields.length:
            cycle.feed(data[-fields.length :])
        cycle.more_body = False
        self._start(cycle)
        return True

    def _know_again(self, cycle: GatewayCycle) -> None:
        """Remember the fields of a request that came alone and whole, in one piece."""
        self._known = None
        # Behind the end of a body the request begins anywhere: what stands before it would pass for its line and fields.
        if not cycle.keep_alive or self._slice_ends_body or self._head_so_far or self.expect_100_continue:
            return
        line = _PLAIN_LINE.match(self._slice)
        if line is not None:
            at = line.end()
            end = self._slice.find(b"\r\n\r\n", at) + 4
            if end <= at + LARGEST_BLOCK and end + cycle.bytes_come == len(self._slice):
                cycle.fields.length = cycle.bytes_come
                self._known = KnownFields(self._slice[at:end], cycle.fields)

    def _feed_slice(self, data: bytes) -> None:
        self._slice_ends_body = self._newest is not None and self._newest.more_body
        self._slice_has_begun_one = self._reading_head
        while True:
            self._slice = data
            self._progressed = False
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._upgrade_offered = False
                if self._tunnel is not None:
                    self._offer(self._tunnel, data[upgrade.args[0] :])
                    return
                head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
                data = head + data[upgrade.args[0] :]
                self._slice_ends_body = self._slice_has_begun_one = False
                # Anew: with `Connection: close`, or HTTP/1.0, the parser has closed and would swallow what it is fed.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(
                    lenient_data_after_close=True
                )  # as uvicorn: `on_message_begin` judges
            except httptools.HttpParserError as error:
                if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(
                    error.__context__, _RefusedError
                ):
                    raise  # a defect of ours, not of the request
                self._start_unstarted()
                self._stop_reading()
                return
            else:
                break
        self._start_unstarted()
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
        self._begins_slice = not (self._slice_has_begun_one or self._slice_ends_body)
        self._slice_has_begun_one = True
        self._reading_head = True
        self._head_is_timed = False
        self._head_so_far = b""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._announces_body = False

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
        elif name in _ANNOUNCE_BODY:
            self._announces_body = True
        # llhttp leaves some of the whitespace behind a value, which is no part of it (RFC 9112, section 5.1).
        self.headers.append((name, value.rstrip(b" \t") if value[-1:] in _BLANKS else value))

    def on_headers_complete(self) -> None:
        """The head is whole: refuse it, or make it a request and start on it."""
        self._progressed = True
        self._bound.clear()
        method: bytes = self.parser.get_method()
        head = self._head_so_far + self._slice if self._head_so_far else self._slice
        if not has_plain_line(head, method, self.url, at_its_beginning=self._begins_slice):
            self._refusal = Refusal(Reason.BAD_REQUEST, "The request line is not one of HTTP/1.1 or HTTP/1.0.")
            raise _RefusedError
        if self.parser.should_upgrade() and method != b"CONNECT":
            self._upgrade_offered = True
            if not self._offers_websocket():
                return
        version: str = self.parser.get_http_version()
        self._refusal = self._what_is_wrong(method, version)
        if self._refusal is not None:
            raise _RefusedError
        self._reading_head = False
        cycle = GatewayCycle(
            self,
            method.decode("ascii"),
            self.url,
            version,
            Fields(self.headers),
            keep_alive=version == "1.1" and self.parser.should_keep_alive() and not self.is_stopping,
            expects_continue=self.expect_100_continue and version == "1.1",
        )
        self._newest = cycle
        if self._upgrade_offered:  # a WebSocket: it begins once the parser has let go
            cycle.keep_alive = False
            cycle.body_complete()
            cycle.is_tunnel = True
            self._tunnel = cycle.scope[TUNNEL_KEY] = CallerTunnel(self, cycle)
            return
        if self._active is None:
            self._unstarted = cycle  # until it is whole, or this read ends: then the rest of its body is still to come
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
        if self._announces_body and not self.parser.should_keep_alive():
            cycle.keep_alive = False  # it stood in the trailers, which the parser obeys: it swallows whatever follows
        self._last_request = not cycle.keep_alive
        cycle.body_complete()
        if cycle is self._unstarted:
            self._unstarted = None
            self._bound.clear()
            self._know_again(cycle)
            self._start(cycle)
            return
        if cycle.response_complete:
            self._discarded_bytes = 0
            self._await_request()
        else:
            self._bound.clear()

    def _start_unstarted(self) -> None:
        cycle, self._unstarted = self._unstarted, None
        if cycle is not None:
            self._start(cycle)

    def _what_is_wrong(self, method: bytes, version: str) -> Refusal | None:
        limits = self.limits
        if len(self.headers) > limits.header_count:
            return Refusal(Reason.HEADERS_TOO_LARGE, f"There are more than {limits.header_count} headers.")
        if self._head_so_far and sum(len(name) + len(value) + 4 for name, value in self.headers) > limits.head_bytes:
            return _TOO_LARGE
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) > limit or len(self.tasks) >= limit):
            return Refusal(Reason.OVERLOADED, "Too many requests are under way.")
        return head_refusal(method, self.url, version, self.headers)

    def _offers_websocket(self) -> bool:
        """Whether this may become a WebSocket: nothing may be under way on the connection."""
        parser = self.parser
        return self._active is None and offers_websocket(parser.get_method(), parser.get_http_version(), self.headers)

    def _offer(self, tunnel: CallerTunnel, early: bytes) -> None:
        """Start on a request whose connection may be HTTP no longer when it is answered."""
        self.transport.set_protocol(tunnel)
        if early:
            tunnel.data_received(early)
        if self._newest is not None:
            self._start(self._newest)

    def _stop_reading(self) -> None:
        if self._last_request:
            self._deaf = True
            return
        refusal, self._refusal = self._refusal, None
        self._refuse(refusal or Refusal(Reason.BAD_REQUEST, "The request is not valid HTTP/1.1."))


def gateway_protocol(
    *,
    limits: ListenerLimits | None = None,
    render_refusal: RenderRefusal | None = None,
    at_once: AtOnce | None = None,
) -> type[GatewayProtocol]:
    """The protocol with these settings; uvicorn makes the instances, so that settings live on the class."""
    members: dict[str, object] = {}
    if limits is not None:
        members["limits"] = limits
    if render_refusal is not None:
        members["render_refusal"] = staticmethod(render_refusal)
    if at_once is not None:
        members["at_once"] = staticmethod(at_once)
    return type("ConfiguredGatewayProtocol", (GatewayProtocol,), members)
