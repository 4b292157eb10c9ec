"""What an upstream's bytes mean: one answer, read from one request's connection. No sockets, no clock.

Theory of operation: bytes go in by `feed`, the end of the connection by `finish`. `head` appears once the final head is
whole (1xx are read over, RFC 9110, section 15.2, which uvicorn can't send on); `take_body` gives what has come of the
body since; `complete` says that the body is whole; `problem` says why it never will be. `problem` and `complete`
exclude each other, and after either nothing more is read.

The parser can't be told that no body follows the answer to a HEAD. Such an answer is fed to it line by line, so that
its end is known to the byte: it is where the head was complete.

It must never take bytes behind a complete answer for anything (RFC 9112, section 6.3): they make the connection
unusable, `reusable` says so. Two framings, a doubtful length, or a head that could be read in two ways is a problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httptools

HEAD_BYTES: Final = 256 * 1024
"""Of all heads before the body, informational ones included, and of trailers; and at most one read more. nginx: 8 KiB x 4; aiohttp's 8 KiB break real sites."""
HEADER_COUNT: Final = 1000
_BODILESS_STATUSES: Final = frozenset({204, 304})
_START: Final = b"HTTP/1."
_LENGTHS_TOLD_APART: Final = frozenset(map(len, (b"connection", b"content-length", b"transfer-encoding")))


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """The final status and the headers as they came."""

    status: int
    headers: list[tuple[bytes, bytes]]


class _StopParsingError(Exception):
    """Stops the parser from within a callback; why stands in `problem` or `complete`."""


class AnswerReader:
    """Reads the answer to one request, of which it knows only whether it was a HEAD."""

    __slots__ = (
        "_body",
        "_first_bytes",
        "_headers",
        "_keep_alive",
        "_parser",
        "_parser_goes_on",
        "_progressed",
        "_silent_bytes",
        "_to_head",
        "_until_close",
        "bodiless",
        "body_bytes",
        "complete",
        "head",
        "problem",
        "reusable",
    )

    def __init__(self, *, to_head: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._begin(to_head=to_head)

    def _begin(self, *, to_head: bool) -> None:
        self._to_head = to_head
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._until_close = False
        self._keep_alive = False
        self._parser_goes_on = False
        self._progressed = False
        self._silent_bytes = 0
        self._first_bytes = b""
        self.bodiless = to_head
        self.body_bytes = 0
        self.head: AnswerHead | None = None
        self.complete = False
        self.reusable = False
        self.problem: str | None = None

    def renew(self) -> bool:
        """Forget this answer, to read the next one on the same connection unless that is to a HEAD; False where that can't be."""
        # The parser has its own idea of when a connection is over: by `Proxy-Connection`, and by what stands in trailers.
        if self._to_head or not (self.reusable and self._parser_goes_on):
            return False
        self._begin(to_head=False)
        return True

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected, for better or worse."""
        return self.complete or self.problem is not None

    @property
    def unprocessed(self) -> bool:
        """Whether the upstream has said that it did nothing about the request, which HTTP/1.1 has no way to say."""
        return False

    @property
    def untouched(self) -> bool:
        """Whether not a single byte has come."""
        return not self._first_bytes

    def feed(self, data: bytes) -> None:
        """The upstream sent these bytes."""
        if self.complete:
            self.reusable = False
            return
        if len(self._first_bytes) < len(_START):
            self._first_bytes += data[: len(_START)]
            if not self._first_bytes.startswith(_START[: len(self._first_bytes)]):  # llhttp also takes RTSP/ and ICE/
                self.problem = "the answer doesn't begin with HTTP/1"
                return
        if self.problem is None:
            if self._to_head:
                self._parse_lines(data)
            else:
                self._parse(data)

    def finish(self) -> None:
        """The upstream closed its side."""
        self.reusable = False
        if self.over:
            return
        if self._until_close:
            self.complete = True
        elif self.head is not None:
            self.problem = "the connection ended within the body"
        elif self._first_bytes:
            self.problem = "the connection ended within the head"
        else:
            self.problem = "the connection ended without an answer"

    def take_body(self) -> bytes:
        """What has come of the body since the last time."""
        parts = self._body
        if not parts:
            return b""
        self._body = []
        self.body_bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _parse_lines(self, data: bytes) -> None:
        start = 0
        while start < len(data) and self.problem is None:
            if self.complete:
                self.reusable = False
                return
            end = data.find(b"\n", start) + 1 or len(data)
            self._parse(data[start:end])
            start = end

    def _parse(self, data: bytes) -> None:
        self._progressed = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switched(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(
                error.__context__, _StopParsingError
            ):
                raise  # a defect of ours, not of the upstream
            if self._to_head and self.complete:
                return  # it was stopped on purpose, at the very end of the head
            if self.complete:  # bytes behind a complete answer
                self.reusable = False
            elif self.problem is None:
                self.problem = str(error) or "the answer is not valid HTTP"
            return
        self._silent_bytes = 0 if self._progressed else self._silent_bytes + len(data)
        if self._silent_bytes > HEAD_BYTES and not self.over:
            self.problem = "the head of the answer is too long"

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        """The first byte of a head; behind a complete answer there is none to come."""
        if self.complete:
            self.reusable = False
            raise _StopParsingError
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of a head; those behind it are trailers, which are dropped."""
        if self.head is None:
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head is whole: an informational one, or the final one."""
        status: int = self._parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                self._fail("the upstream switched protocols unasked")
            return
        if not 200 <= status < 600:
            self._fail(f"the status {status} can't be sent on")
        version: str = self._parser.get_http_version()
        length = False
        encoding: bytes | None = None
        connection = b""
        for name, value in self._headers:
            if len(name) not in _LENGTHS_TOLD_APART:
                continue
            lowered = name.lower()
            if lowered == b"content-length":
                length = True
            elif lowered == b"transfer-encoding":
                if encoding is not None or length:
                    self._fail("the answer is framed twice")
                encoding = value.lower()
            elif lowered == b"connection":
                connection += b"," + value.lower()
        if encoding is not None and (length or encoding != b"chunked" or version != "1.1"):
            self._fail("the Transfer-Encoding can't be read")
        if len(self._headers) > HEADER_COUNT:
            self._fail("there are too many headers")
        if self._silent_bytes and sum(len(name) + len(value) + 4 for name, value in self._headers) > HEAD_BYTES:
            self._fail("the head of the answer is too long")
        self._progressed = True
        self._keep_alive = _keeps_alive(version, connection)
        self.head = AnswerHead(status, self._headers)
        if self._to_head:
            self.complete = True
            self.reusable = self._keep_alive
            raise _StopParsingError
        self.bodiless = status in _BODILESS_STATUSES
        self._until_close = not length and encoding is None and not self.bodiless

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._progressed = True
        self._body.append(body)
        self.body_bytes += len(body)

    def on_message_complete(self) -> None:
        """The end of an informational answer, or of the final one."""
        if self.head is not None:
            self.complete = True
            self.reusable = self._keep_alive
            self._parser_goes_on = self._parser.should_keep_alive()

    def _switched(self, _rest: bytes) -> None:
        """What stands behind a 101 that nobody asked for."""
        self.problem = self.problem or "the upstream switched protocols unasked"

    def _fail(self, problem: str) -> None:
        self.problem = problem
        raise _StopParsingError


def _keeps_alive(version: str, connection: bytes) -> bool:
    """RFC 9112, section 9.3, by the lower-cased values of all Connection fields; whoever says both has said close."""
    if not connection:
        return version == "1.1"
    options = {option.strip() for option in connection.split(b",")}
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
