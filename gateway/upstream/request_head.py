"""The bytes of a request's head, made of parts that are final; it refuses what would say something else than was meant.

A connection carries more than one request, so that a head which could be read in two ways, or frames its body twice,
would decide about somebody else's request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2."""

_SPLIT: Final = "a line break, NUL or space where none may be in the head of a request"
_TOLD_APART: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})


class RequestHead(NamedTuple):
    """Everything but a `Host` that names the target. `length` is that of the body, None where it goes in chunks.

    `method`, `target` and `headers` are what the bytes were made of: HTTP/2 makes others of them.
    """

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    request_line: bytes
    fields: bytes
    names_host: bool
    length: int | None
    to_head: bool
    repeatable: bool
    accept: bytes | None = None
    """The `Sec-WebSocket-Accept` of a 101; None where none may come."""

    def bytes_for(self, authority: bytes) -> bytes:
        """What is sent to the target of this authority."""
        if self.names_host:
            return self.request_line + self.fields
        return b"%bHost: %b\r\n%b" % (self.request_line, authority, self.fields)


def request_head(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> RequestHead:
    """Raises ValueError where the bytes would say something else than was meant."""
    names_host = False
    framings = 0
    length: int | None = 0
    for name, value in headers:
        if name in _TOLD_APART:
            if name == b"host":
                names_host = True
            else:
                framings += 1
                length = _length(value) if name == b"content-length" else None
    if framings > 1:
        raise ValueError("the request is framed twice")
    # One join of joins, and one look at the whole: of what there is to do per request, this is a good part.
    request_line = _request_line(method, target)
    fields = b"\r\n".join([*map(b": ".join, headers), b"", b""])
    breaks = len(headers) + 1
    if (
        fields.count(b"\n") != breaks  # a line break inside a name or value would split the request
        or fields.count(b"\r") != breaks
        or b"\0" in fields
    ):
        raise ValueError(_SPLIT)
    repeatable = length == 0 and method in IDEMPOTENT
    return RequestHead(method, target, headers, request_line, fields, names_host, length, method == "HEAD", repeatable)


def _request_line(method: str, target: bytes) -> bytes:
    line = b"%b %b HTTP/1.1\r\n" % (method.encode("ascii"), target)
    if line.count(b" ") != 2 or line.count(b"\n") + line.count(b"\r") != 2 or b"\0" in line:
        raise ValueError(_SPLIT)
    return line


def _length(value: bytes) -> int:
    if not value.isdigit():
        raise ValueError("the length of the body can't be read")
    return int(value)
