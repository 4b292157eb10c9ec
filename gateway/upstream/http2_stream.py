"""One request and its answer on a connection that others share (HTTP/2, RFC 9113): what `gateway.upstream.carrier` asks for.

It decides what an answer's frames mean and how much of it may come before the caller has taken what is there. It must
never let one caller's fault, slowness or departure reach the others on the connection: what goes wrong here ends this
stream alone, by RST_STREAM, and is nobody else's problem.

What a message may not say is refused, not repaired (RFC 9113, section 8.1.1): a connection-specific field, a line break
in a value, a body that is not as long as its Content-Length, a body where none may be.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes

from gateway.deadline import Deadline
from gateway.upstream.answer import HEADER_COUNT, AnswerHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.upstream.http2_connection import Http2Connection
    from gateway.upstream.request_head import RequestHead

    Header = tuple[bytes, bytes]

STREAM_WINDOW_BYTES: Final = 256 * 1024
"""How much of a body may lie here before its caller takes it. On a way of 20 ms it allows for 12 MiB/s a request."""

_BODILESS_STATUSES: Final = frozenset({204, 304})
_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n]*")


class Http2Stream:
    """Begun once, and over once."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_bound",
        "_connection",
        "_is_over",
        "_is_released",
        "_length_left",
        "_loop",
        "_news",
        "_room",
        "_taken_bytes",
        "_to_head",
        "_uncredited_bytes",
        "_waiting_since",
        "complete",
        "head",
        "identity",
        "last_is_unsent",
        "lost",
        "problem",
        "timed_out",
        "unprocessed",
        "unsent",
        "untouched",
    )

    def __init__(self, connection: Http2Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._bound = Deadline(loop, self._out_of_time)
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._body: list[bytes] = []
        self._uncredited_bytes = 0
        self._taken_bytes = 0
        self._length_left: int | None = None
        self._to_head = False
        self._bodiless = False
        self._is_over = False
        self._is_released = False
        self._waiting_since = 0.0
        self.identity: int | None = None
        self.unsent = b""
        self.last_is_unsent = False
        self.head: AnswerHead | None = None
        self.complete = False
        self.problem: str | None = None
        self.lost = False
        self.timed_out = False
        self.untouched = False
        self.unprocessed = False

    # What an exchange asks for.

    @property
    def reader(self) -> Http2Stream:
        """The answer is read where it is carried."""
        return self

    def begin(self, head: RequestHead, authority: bytes) -> Http2Stream:
        """Send the head of a request."""
        self._to_head = head.to_head
        self._connection.open_stream(self, head, authority)
        return self

    def write_body(self, piece: bytes, *, last: bool) -> None:
        """Send a piece of the request's body, as far as the upstream's windows allow; the rest goes when they open."""
        if self.lost:
            return
        self.unsent = self.unsent + piece if self.unsent else piece
        self.last_is_unsent = last
        self._connection.send_body_of(self)

    async def room(self, seconds: float) -> None:
        """Return when all that was written is on its way; aborts when it isn't within `seconds`."""
        if self.lost or not (self.unsent or self._connection.writing_paused):
            return
        self._waiting_since = self._loop.time()
        self._room = self._loop.create_future()
        bound = self._loop.call_later(seconds, self._out_of_time)
        try:
            await self._room
        finally:
            bound.cancel()
            self._room = None

    async def news(self, seconds: float | None) -> None:
        """Return when something has come or ended, or `seconds` have passed; `timed_out` says the last."""
        if self.problem is not None:
            return
        self._waiting_since = self._loop.time()
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

    def take_body(self) -> bytes:
        """What has come of the body since the last time; the upstream may send as much again."""
        parts = self._body
        if not parts:
            return b""
        self._body = []
        taken, self._uncredited_bytes = self._uncredited_bytes, 0
        self._credit(taken)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self) -> None:
        """Cancel it, as far as it is not over, and let go of its place on the connection."""
        self.end("the gateway ended the stream", ErrorCodes.CANCEL)
        if not self._is_released:
            self._is_released = True
            self._connection.release()

    def _credit(self, taken_bytes: int) -> None:
        self._taken_bytes += taken_bytes
        if self._taken_bytes >= STREAM_WINDOW_BYTES // 2 and not self._is_over:
            self._connection.credit(self, self._taken_bytes)
            self._taken_bytes = 0

    # What the connection tells.

    def head_came(self, fields: Sequence[Header]) -> None:
        """The final head."""
        wrong = _what_is_wrong(fields)
        if wrong is not None:
            self.end(wrong, ErrorCodes.PROTOCOL_ERROR)
            return
        status = int(fields[0][1])
        headers = [(bytes(name), bytes(value)) for name, value in fields[1:]]
        lengths = {value for name, value in headers if name == b"content-length"}
        self._bodiless = self._to_head or status in _BODILESS_STATUSES
        self._length_left = int(lengths.pop()) if lengths and not self._bodiless else None
        self.head = AnswerHead(status, headers)
        self.wake()

    def data_came(self, data: bytes, flow_controlled_bytes: int) -> None:
        """A piece of the body. With padding it counts for more than there is of it."""
        if data and (self.head is None or self._bodiless):
            self.end("a body came where none may be", ErrorCodes.PROTOCOL_ERROR)
            return
        if self._length_left is not None:
            self._length_left -= len(data)
            if self._length_left < 0:
                self.end("the body is longer than its Content-Length", ErrorCodes.PROTOCOL_ERROR)
                return
        if data:
            self._body.append(data)
            self._uncredited_bytes += flow_controlled_bytes
            self.wake()
        else:  # padding alone would else close the window for good
            self._credit(flow_controlled_bytes)

    def end_came(self) -> None:
        """The upstream has sent all that it will send."""
        if self.head is None:
            self.end("the stream ended without an answer", ErrorCodes.PROTOCOL_ERROR)
        elif self._length_left:
            self.end("the body is shorter than its Content-Length", ErrorCodes.PROTOCOL_ERROR)
        elif not self._is_over:
            self.complete = self._is_over = True
            self.wake()

    def reset_came(self, code: int) -> None:
        """The upstream ended the stream. Behind a whole answer it only says that the rest of the body isn't wanted."""
        refused = self.head is None and code == ErrorCodes.REFUSED_STREAM
        self.end(f"the upstream reset the stream ({_name_of(code)})", unprocessed=refused)

    def end(
        self, problem: str, reset_with: ErrorCodes | None = None, *, died: bool = False, unprocessed: bool = False
    ) -> None:
        """Nothing more comes or goes. Whether the connection `died`, or the upstream has done nothing about the request."""
        if not self._is_over:
            self._is_over = True
            self.problem = problem
            self.unprocessed = unprocessed
            self.untouched = unprocessed or (died and self.head is None)
        self.unsent = b""
        self.lost = True
        self._bound.cancel()
        self._connection.close_stream(self, reset_with)
        self.wake()
        self.wake_writer()

    def wake(self) -> None:
        """Whoever waits for news has some."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def wake_writer(self) -> None:
        """There may be room."""
        if self._room is not None and not self._room.done() and (self.lost or not self.unsent):
            self._room.set_result(None)

    def _out_of_time(self) -> None:
        self.timed_out = True
        self._connection.doubt(self._waiting_since)
        self.end("the upstream was silent for too long", ErrorCodes.CANCEL)


def _what_is_wrong(fields: Sequence[Header]) -> str | None:
    if len(fields) > HEADER_COUNT:
        return "there are too many headers"
    length: bytes | None = None
    for index, (name, value) in enumerate(fields):
        if index == 0:
            if name != b":status" or len(value) != 3 or not value.isdigit() or not b"200" <= value < b"600":
                return "the status can't be sent on"
            continue
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return "a header can't be read"
        if name in _CONNECTION_SPECIFIC:
            return f"the header {name.decode()} is none of HTTP/2"
        if name == b"content-length":
            if not value.isdigit() or (length is not None and value != length):
                return "the Content-Length can't be read"
            length = value
    return None if fields else "the head of the answer is empty"


def _name_of(code: int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"{code:#x}"
