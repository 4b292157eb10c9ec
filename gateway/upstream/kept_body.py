"""A body that has begun to go up, kept while it is small, so that it can go up once more from its beginning.

Only HTTP/2 has a way to say that a request was not looked at (RFC 9113, section 8.7): REFUSED_STREAM, or a GOAWAY in front of it,
which any server sends that is told to reload. Such a request may be repeated whatever its method, if nothing of it is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.upstream.outcome import Message, Receive

KEPT_BYTES: Final = 64 * 1024
"""Of a body whose end or whose length lies beyond it nothing is kept: it is the caller who has it whole."""


class KeptBody:
    """Stands in for `receive`. Once `rewound` it gives again what it gave before, and then goes on."""

    __slots__ = ("_given", "_kept", "_receive", "_size", "is_whole")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._given = 0
        self._size = 0
        self.is_whole = True
        """Whether nothing of what has been given is missing."""

    async def receive(self) -> Message:
        """The next message."""
        if self._given < len(self._kept):
            self._given += 1
            return self._kept[self._given - 1]
        message = await self._receive()
        if self.is_whole:
            self._size += len(message.get("body", b""))
            if self._size > KEPT_BYTES:
                self.is_whole = False
                self._kept = []
                self._given = 0
            else:
                self._kept.append(message)
                self._given += 1
        return message

    def rewind(self) -> None:
        """Begin again; only while it `is_whole`."""
        self._given = 0
