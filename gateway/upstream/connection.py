"""One connection to an upstream, carrying one exchange after another: bytes out under the peer's pace, bytes in under the reader's.

It owns the socket and says when something has happened; what the bytes mean is `gateway.upstream.answer`'s business. It
must never hold more than a buffer's worth in either direction, nor carry a second exchange unless the first one ended
cleanly and nothing has come since: `is_silent` asks the kernel, too. `abort` is safe at any time and any number of times.

    at rest (no reader) ── begin ──▶ in use ── rest, if `reusable` ──▶ at rest
         │ any byte, or its end         │ abort, its end, out of time
         ▼                              ▼
       lost                           lost
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final, Protocol

from gateway.deadline import Deadline
from gateway.upstream.answer import AnswerReader
from gateway.upstream.opening import OpeningReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.request_head import RequestHead
    from gateway.upstream.target import Target

_LAST_CHUNK: Final = b"0\r\n\r\n"
_BODY_BUFFER_BYTES: Final = 64 * 1024
"""Above it nothing more is read from the upstream until the caller has taken what is there."""


class Follower(Protocol):
    """Who follows an exchange without a task."""

    def news(self) -> None:
        """Bytes have come, or the connection has ended."""

    def takes_long(self) -> None:
        """The time that was asked for has passed."""


class UpstreamConnection(asyncio.Protocol):
    """The transport's callbacks on one side, one coroutine that waits for news on the other, one that writes."""

    __slots__ = (
        "_bound",
        "_follower",
        "_in_chunks",
        "_incoming",
        "_loop",
        "_news",
        "_on_loss",
        "_reading_paused",
        "_room",
        "_spent",
        "_transport",
        "_writing_paused",
        "lost",
        "opened_at",
        "reader",
        "timed_out",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._incoming: select.poll | None = None
        self._on_loss: Callable[[UpstreamConnection], None] | None = None
        self._in_chunks = False
        self._reading_paused = False
        self._news: asyncio.Future[None] | None = None
        self._follower: Follower | None = None
        self._room: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._bound = Deadline(loop, self._out_of_time)
        self.reader: AnswerReader | None = None
        self._spent: AnswerReader | None = None  # making a parser costs more than reading a small answer
        self.opened_at = 0.0
        self.lost = False
        self.timed_out = False

    # What its pool asks for.

    @property
    def reusable(self) -> bool:
        """Whether the exchange ended so that another one may follow: a whole answer, nothing behind it, nothing unsent."""
        reader = self.reader
        if reader is None or not reader.reusable or self.lost or self._transport is None:
            return False
        return not self._writing_paused and self._transport.get_write_buffer_size() == 0

    @property
    def now(self) -> float:
        """The time of the loop that it belongs to."""
        return self._loop.time()

    @property
    def age(self) -> float:
        """How long it has been open, in seconds."""
        return self._loop.time() - self.opened_at

    @property
    def must_settle(self) -> bool:
        """Whether bytes that nobody may get could still be on their way, or unread, behind the answer."""
        return self._reading_paused or (self.reader is not None and self.reader.bodiless)

    def rest(self, on_loss: Callable[[UpstreamConnection], None]) -> None:
        """The exchange is over; `on_loss` is called once if the connection ends before the next one begins."""
        reader, self.reader = self.reader, None
        self._spent = reader if reader is not None and reader.renew() else None
        self._bound.clear()
        self._on_loss = on_loss
        self._go_on_reading()

    def is_silent(self) -> bool:
        """Whether nothing has come while it rested: neither bytes nor the end, not even unread in the kernel."""
        if self.lost or self._transport is None or self._transport.is_closing():
            return False
        if self._incoming is None:
            self._incoming = select.poll()
            self._incoming.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._incoming.poll(0)

    # What an exchange asks for.

    def begin(self, head: RequestHead, authority: bytes, body: bytes = b"") -> AnswerReader:
        """Send the head of a request, and its body where that is here whole; the reader returned reads its answer."""
        self._on_loss = None
        self._in_chunks = head.length is None
        self.reader = reader = self._reader_for(head)
        if self.lost:
            reader.finish()
        self.write(head.bytes_for(authority) + body)
        return reader

    def _reader_for(self, head: RequestHead) -> AnswerReader:
        spent, self._spent = self._spent, None
        if head.accept is not None:
            return OpeningReader(head.accept)
        if spent is not None and not head.to_head:
            return spent
        return AnswerReader(to_head=head.to_head)

    def write_body(self, piece: bytes, *, last: bool) -> None:
        """Send a piece of the request's body, framed as its head said."""
        if not self._in_chunks:
            self.write(piece)
            return
        chunk = (b"%x\r\n" % len(piece), piece, b"\r\n") if piece else ()
        self.write(*chunk, _LAST_CHUNK if last else b"")

    def write(self, *parts: bytes) -> None:
        """Send these bytes, unless nobody is there any more to get them: a reset is known before `connection_lost` tells of it."""
        if self._transport is not None and not self.lost and not self._transport.is_closing():
            self._transport.writelines(parts)

    async def room(self, seconds: float) -> None:
        """Return when the upstream has taken most of what was written; aborts when it doesn't within `seconds`."""
        if not self._writing_paused or self.lost:
            return
        self._room = self._loop.create_future()
        bound = self._loop.call_later(seconds, self._out_of_time)
        try:
            await self._room
        finally:
            bound.cancel()
            self._room = None

    async def news(self, seconds: float | None) -> None:
        """Return when bytes have come, the connection has ended, or `seconds` have passed; `timed_out` says the last."""
        self._go_on_reading()
        self._news = self._loop.create_future()
        if seconds is not None:
            self._bound.set(seconds)
        try:
            await self._news
        finally:
            self._bound.clear()
            self._news = None

    def bound_wait(self, seconds: float) -> None:
        """Whoever waits for news waits no longer than this from now."""
        if self._news is not None:
            self._bound.set(seconds)

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        """It is HTTP no longer, and `protocol` has its transport. None where it has ended."""
        if self.lost or self._transport is None:
            return None
        self._bound.cancel()
        self._transport.set_protocol(protocol)
        if self._writing_paused:
            protocol.pause_writing()
        self._go_on_reading()
        return self._transport

    def follow(self, follower: Follower, seconds: float) -> None:
        """Whom to tell of news, instead of one who waits for them, and that `seconds` have passed."""
        self._follower = follower
        self._bound.set(seconds)

    def unfollow(self) -> None:
        """Nobody is told any more."""
        self._follower = None
        self._bound.clear()

    def _wake(self) -> None:
        if self._follower is not None:
            self._follower.news()
        elif self._news is not None and not self._news.done():
            self._news.set_result(None)

    def abort(self) -> None:
        """End the connection at once; what was not sent is not, so that half a request never looks whole."""
        self._end("the gateway ended the connection")

    def _end(self, problem: str) -> None:
        self.lost = True
        if self.reader is not None and not self.reader.over:
            self.reader.problem = problem  # or an answer that lasts until the close would look whole
        self._bound.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._tell_of_loss()

    def _go_on_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _tell_of_loss(self) -> None:
        on_loss, self._on_loss = self._on_loss, None
        if on_loss is not None:
            on_loss(self)
        self._wake_writer()
        self._wake()

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected, and through the TLS handshake if there is one."""
        self._transport = transport
        self.opened_at = self._loop.time()
        if self.lost:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """The upstream sent something; before it was asked, that is nothing anyone may get."""
        reader = self.reader
        if reader is None:
            self.abort()
            return
        reader.feed(data)
        if reader.body_bytes > _BODY_BUFFER_BYTES and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The upstream closed its side."""
        if self.reader is not None:
            self.reader.finish()
            self._wake()
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self.lost = True
        if self.reader is not None:
            if exc is not None and not self.reader.over:
                # A reset is never the end that a close-delimited answer waits for.
                self.reader.problem = f"the connection broke ({type(exc).__name__})"
            self.reader.finish()
        self._bound.cancel()
        self._tell_of_loss()

    def pause_writing(self) -> None:
        """The upstream takes bytes more slowly than they come."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self._writing_paused = False
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _out_of_time(self) -> None:
        if self._follower is not None:
            self._follower.takes_long()
            return
        self.timed_out = True
        self._end("the upstream was silent for too long")


async def connect(loop: asyncio.AbstractEventLoop, target: Target) -> UpstreamConnection:
    """Open a connection, TLS handshake included. Raises OSError (which ssl.SSLError is)."""
    _, connection = await loop.create_connection(
        lambda: UpstreamConnection(loop), target.host, target.port, ssl=target.tls, server_hostname=target.server_name
    )
    return connection
