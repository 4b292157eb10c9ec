"""The last head of a caller's connection, by which the next one is read without the parser.

Between two requests the parser has no memory: what it made of some bytes once is what it would make of them now. And
what it makes of one field depends on no other, save for the few by which a message is framed, upgraded or kept alive:
those must be the same to the byte. So a head that differs from the last one in nothing but the values of other fields
is read here, if each such value is of the plainest kind. That is what most requests look like: a trace id, a date, an
idempotency key. Anything else is the parser's to read.

It must never say anything of a head that the parser would not: where there is doubt it says nothing.
"""

from __future__ import annotations

import re
from itertools import compress, count
from operator import ne
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.fields import Fields

LARGEST_BLOCK: Final = 8 * 1024
"""Of a head that is remembered, so that connections which rest don't hold much."""

_END: Final = b"\r\n\r\n"
_PLAIN_FIELD: Final = re.compile(rb"([A-Za-z0-9-]++): ([\x21-\x7e]++(?: ++[\x21-\x7e]++)*+)")
_PLAIN_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_NOT_TO_VARY: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade"),
        *(b"expect", b"host", b"http2-settings"),
    }
)
"""What the parser or the listener acts upon, and what belongs to it."""
_AROUND: Final = 3
"""What there is beside fields between the line breaks of a head: nothing in front of the first, nothing behind the last two."""


class KnownFields:
    """`block` is what followed the request line: from the break that ends it to the empty line."""

    __slots__ = ("_block", "_fields", "_lines")

    def __init__(self, block: bytes, fields: Fields) -> None:
        self._block = block
        self._fields = fields
        self._lines: list[bytes] | None = None

    def read(self, data: bytes, at: int) -> Fields | None:
        """What the parser would make of a whole request whose line ends `at` there; None where only the parser can say."""
        known = self._lines
        if known is None:
            known = self._lines = _lines_of(self._block, self._fields)
        end = len(data) - self._fields.length
        if data[end - 4 : end] == _END:  # as long as the last one: then no line of it is empty, or it is none of these
            block = data[at:end]
            if block == self._block:
                # Of a head that was not understood line by line nobody here knows where the parser saw its end.
                return self._fields if known or not self._fields.length else None
        else:
            end = data.find(_END, at) + 4
            block = data[at:end]
        if len(block) > LARGEST_BLOCK:
            return None
        lines = block.split(b"\r\n")
        if len(lines) != len(known):
            return None
        changed: list[tuple[int, bytes]] = []
        for number in compress(count(), map(ne, lines, known)):
            field = _PLAIN_FIELD.fullmatch(lines[number])
            if field is None:
                return None
            name, value = field.groups()
            name = name.lower()
            if name in _NOT_TO_VARY or name != self._fields.headers[number - 1][0]:
                return None
            if name == b"content-length" and _PLAIN_LENGTH.fullmatch(value) is None:
                return None
            changed.append((number - 1, value))
        fields = self._fields.varied(changed)
        if len(data) - end != fields.length:
            return None
        self._block, self._lines, self._fields = block, lines, fields
        return fields


def _lines_of(block: bytes, fields: Fields) -> list[bytes]:
    """The lines of a head if each of them is the field that the parser made of it; else none."""
    lines = block.split(b"\r\n")
    if len(lines) != len(fields.headers) + _AROUND or lines[0] or lines[-1] or lines[-2]:
        return []
    for line, (name, value) in zip(lines[1:], fields.headers, strict=False):
        said, _, told = line.partition(b":")
        if said.lower() != name or told.strip(b" \t") != value:
            return []
    return lines
