"""One HTTP/2 connection to an upstream (RFC 9113), shared by the streams of many callers.

The frames are read and written by h2; this owns the socket, and says to each stream what concerns it. It must never

- let what one caller takes slowly hold back the others: the connection's window is given back as bytes come, and each
  stream's own window (`gateway.upstream.http2_stream`) bounds what may lie here;
- begin a stream once the end is announced or in doubt, nor cut one that may still be answered;
- remember a header of one caller in the compression that the others share (RFC 7541, section 7.1): a length that can
  be seen on the wire would tell what the others send.

h2 is kept from two things. A GOAWAY ends it at once, though answers to what was sent before are still to come (section
6.8; nginx sends one each thousand requests), so that those frames are read here. And one answer's wrong Content-Length
ends the whole connection, so that this is counted per stream.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError, TooManyStreamsError
from h2.settings import SettingCodes, Settings
from hpack import NeverIndexedHeaderTuple

from gateway.upstream.answer import HEAD_BYTES
from gateway.upstream.http2_stream import STREAM_WINDOW_BYTES, Http2Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from h2.events import Event

    from gateway.upstream.request_head import RequestHead

_CONFIG: Final = H2Configuration(
    client_side=True, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False
)
_CONNECTION_WINDOW_BYTES: Final = 16 * 1024 * 1024
_FRAME_HEADER_BYTES: Final = 9
_FRAME_BYTES: Final = 16 * 1024
"""What a frame may hold unless more is asked for (RFC 9113, section 4.2), which it never is."""
_GOAWAY: Final = 7
_UNSENT_BYTES: Final = 1024 * 1024
"""Of answers to pings and settings. An upstream that asks and doesn't read is let go (CVE-2019-9512, CVE-2019-9515)."""
MOST_STREAMS: Final = 100
"""On one connection, whatever the upstream allows; above it another one is opened."""


class Http2Connection(asyncio.Protocol):
    """`ready` is done once the upstream's own preface has come: from then on it is known what it allows."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[Http2Connection], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._transport: asyncio.Transport | None = None
        self._incoming: select.poll | None = None
        self._streams: dict[int, Http2Stream] = {}
        self._held = 0
        self._unread = b""
        self._scheme = b""
        self._credit_bytes = 0
        self._heard_at = 0.0
        self._h2 = H2Connection(_CONFIG)
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
            },
        )
        self._h2.decoder.max_header_list_size = HEAD_BYTES
        self.ready: asyncio.Future[None] = loop.create_future()
        self.opened_at = 0.0
        self.writing_paused = False
        self.retired = False
        self.lost = False

    # What its pool asks for.

    @property
    def streams(self) -> int:
        """How many are held, begun or not."""
        return self._held

    @property
    def has_room(self) -> bool:
        """Whether one more stream may be begun."""
        most = min(MOST_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        return not (self.retired or self.lost) and self._held < most

    def hold_stream(self) -> Http2Stream:
        """A place for one stream, which `abort` gives back."""
        self._held += 1
        return Http2Stream(self, self._loop)

    def is_silent(self) -> bool:
        """Whether nothing waits in the kernel: where something does, it could be the end."""
        if self.lost or self._transport is None or self._transport.is_closing():
            return False
        if self._incoming is None:
            self._incoming = select.poll()
            self._incoming.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._incoming.poll(0)

    def retire(self) -> None:
        """Begin no more streams; it ends with the last of those there are."""
        self.retired = True
        if self._held == 0:
            self.close()

    def close(self) -> None:
        """Say that this is the end, and let it be."""
        if self._transport is not None and not self.lost:
            self._h2.close_connection()
            self._flush()
            self._transport.close()
        self._end("the gateway ended the connection")

    # What a stream asks for.

    def open_stream(self, stream: Http2Stream, head: RequestHead, authority: bytes) -> None:
        """Send the head of a request; the stream ends at once where that can't be."""
        if self.lost or self._transport is None:
            stream.end("the connection is no more", unprocessed=True)
            return
        identity = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(identity, _fields(head, authority, self._scheme), end_stream=head.length == 0)
        except TooManyStreamsError:  # it allows fewer than it did a moment ago
            stream.end("the upstream takes no more streams", unprocessed=True)
            return
        stream.identity = identity
        self._streams[identity] = stream
        sent = self._h2.streams[identity]
        # Private, and covered by tests: nothing public keeps h2 from ending all streams for one answer's sake, nor
        # from taking a 304's Content-Length for that of the body which it doesn't have.
        sent._initialize_content_length = _not_counted  # type: ignore[assignment]  # noqa: SLF001
        sent._track_content_length = _not_counted  # type: ignore[assignment]  # noqa: SLF001
        self._flush()

    def send_body_of(self, stream: Http2Stream) -> None:
        """As much as the windows and the socket take."""
        identity = stream.identity
        if identity is None or stream.lost:
            return
        unsent, last = stream.unsent, stream.last_is_unsent
        if not unsent and last:
            self._h2.end_stream(identity)
            stream.last_is_unsent = False
        position = 0
        while position < len(unsent) and not self.writing_paused and not stream.lost:
            room = min(self._h2.local_flow_control_window(identity), self._h2.max_outbound_frame_size)
            if room <= 0:
                break
            piece = unsent[position : position + room]
            position += len(piece)
            is_end = last and position == len(unsent)
            self._h2.send_data(identity, piece, end_stream=is_end)
            if is_end:
                stream.last_is_unsent = False
            self._flush()
        self._flush()
        if not stream.lost:
            stream.unsent = unsent[position:]
            stream.wake_writer()

    def credit(self, stream: Http2Stream, taken_bytes: int) -> None:
        """The caller has taken so much: as much again may come."""
        if stream.identity is not None and not self.lost:
            self._h2.increment_flow_control_window(taken_bytes, stream.identity)
            self._flush()

    def close_stream(self, stream: Http2Stream, code: ErrorCodes | None) -> None:
        """It is over here; `code` tells the upstream, unless it knows. What still comes of it is nobody's."""
        identity, stream.identity = stream.identity, None
        if identity is not None:
            self._streams.pop(identity, None)
            known = self._h2.streams.get(identity)
            if code is not None and not self.lost and known is not None and not known.closed:
                self._h2.reset_stream(identity, code)
                self._flush()

    def release(self) -> None:
        """A stream's place is free again."""
        self._held -= 1
        if self._held == 0 and self.retired:
            self.close()
        else:
            self._on_change(self)

    def doubt(self, since: float) -> None:
        """A stream has waited in vain; where nothing at all has come since it began, nobody may be there any more."""
        if self._heard_at <= since:
            self.retired = True

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected, and through the TLS handshake if there is one: HTTP/2 begins where that has been agreed on."""
        self._transport = transport
        self.opened_at = self._loop.time()
        self._scheme = b"http" if transport.get_extra_info("ssl_object") is None else b"https"
        if self.lost:
            transport.abort()
        elif not self.is_agreed:
            self.ready.set_result(None)
        else:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(_CONNECTION_WINDOW_BYTES)
            self._flush()

    @property
    def is_agreed(self) -> bool:
        """Whether the other side has agreed to HTTP/2; without TLS that is known beforehand (RFC 9113, section 3.3)."""
        if self._transport is None:
            return False
        tls = self._transport.get_extra_info("ssl_object")
        return tls is None or tls.selected_alpn_protocol() == "h2"

    def data_received(self, data: bytes) -> None:
        """Frames have come, or parts of them."""
        if not self.is_agreed:
            self._end("bytes came before anything was asked")
            return
        self._heard_at = self._loop.time()
        data = self._unread + data if self._unread else data
        fed = position = 0
        while len(data) - position >= _FRAME_HEADER_BYTES and not self.lost:
            length = int.from_bytes(data[position : position + 3], "big")
            if length > _FRAME_BYTES:
                self._end("the upstream doesn't speak HTTP/2" if not self.ready.done() else "a frame is too long")
                return
            end = position + _FRAME_HEADER_BYTES + length
            if end > len(data):
                break
            if data[position + 3] == _GOAWAY:
                self._feed(data[fed:position])
                self._goaway_came(data[position + _FRAME_HEADER_BYTES : end])
                fed = end
            position = end
        self._feed(data[fed:position])
        self._unread = data[position:]

    def eof_received(self) -> None:
        """The upstream closed its side."""
        self._end("the connection ended", died=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._end("the connection ended" if exc is None else f"the connection broke ({type(exc).__name__})", died=True)

    def pause_writing(self) -> None:
        """The upstream takes bytes more slowly than they come."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self.writing_paused = False
        self._go_on_sending()

    # What the bytes mean.

    def _feed(self, frames: bytes) -> None:
        if not frames or self.lost:
            return
        try:
            events = self._h2.receive_data(frames)
        except ProtocolError as error:
            self._flush()  # h2 says why, in a GOAWAY
            self._end(f"the upstream broke the protocol: {error}")
            return
        windows_changed = False
        for event in events:
            windows_changed |= self._tell(event)
        self._flush()
        if windows_changed:
            self._go_on_sending()

    def _tell(self, event: Event) -> bool:
        """Say to its stream what has come; whether it may let a stream send more. Informational heads and trailers are dropped."""
        if isinstance(event, DataReceived):
            self._credit_bytes += event.flow_controlled_length
            if self._credit_bytes >= _CONNECTION_WINDOW_BYTES // 4:
                self._h2.increment_flow_control_window(self._credit_bytes)
                self._credit_bytes = 0
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.data_came(event.data, event.flow_controlled_length)
        elif isinstance(event, ResponseReceived):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.head_came(event.headers)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.end_came()
        elif isinstance(event, StreamReset):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.reset_came(event.error_code)
        elif isinstance(event, RemoteSettingsChanged):
            if not self.ready.done():
                self.ready.set_result(None)
            return True
        else:
            return isinstance(event, WindowUpdated)
        return False

    def _goaway_came(self, payload: bytes) -> None:
        """The end is announced: what came behind `last` was not looked at, what came before may still be answered."""
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        code = int.from_bytes(payload[4:8], "big")
        self.retired = True
        for identity, stream in list(self._streams.items()):
            if identity > last:
                stream.end(f"the upstream went away (code {code})", unprocessed=True)
        if not self.ready.done():
            self._end("the upstream went away")
        elif self._held == 0:
            self.close()

    def _go_on_sending(self) -> None:
        for stream in list(self._streams.values()):
            if stream.unsent or stream.last_is_unsent:
                self.send_body_of(stream)
            else:
                stream.wake_writer()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        transport = self._transport
        if data and transport is not None and not transport.is_closing():
            transport.write(data)
            if transport.get_write_buffer_size() > _UNSENT_BYTES:
                self._end("the upstream doesn't read what it asks for")

    def _end(self, problem: str, *, died: bool = False) -> None:
        if self.lost:
            return
        self.lost = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()
        for stream in list(self._streams.values()):
            stream.end(problem, died=died)
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(problem))
            self.ready.exception()  # told to whoever waits; where nobody does any more, it is nothing to report
        self._on_change(self)


def _fields(head: RequestHead, authority: bytes, scheme: bytes) -> list[tuple[bytes, bytes]]:
    """RFC 9113, section 8.3.1: `Host` becomes `:authority`, and how the body ends is the frames' business."""
    fields: list[tuple[bytes, bytes]] = []
    for name, value in head.headers:
        if name == b"host":
            authority = value
        elif name != b"transfer-encoding":
            fields.append(NeverIndexedHeaderTuple(name, value))
    return [
        NeverIndexedHeaderTuple(b":method", head.method.encode("ascii")),
        (b":scheme", scheme),
        NeverIndexedHeaderTuple(b":authority", authority),
        NeverIndexedHeaderTuple(b":path", head.target),
        *fields,
    ]


def _not_counted(*_: object) -> None:
    """In place of what h2 counts."""
