"""How much of a body a route lets through (`max_body`), for bodies that don't say their length.

It counts what comes in, and lets nothing through from the piece on that is too much: the upstream's connection ends
without the end of the body, so that half a request never looks whole to it.
"""

from __future__ import annotations

from gateway.upstream.outcome import Message, Receive, Send


class BodyTooLargeError(Exception):
    """Raised out of `receive`, and so out of the exchange that asked for more."""


class BodyLimit:
    """Stands between the listener and the exchange. `answer_begun` says whether anything was sent already."""

    def __init__(self, receive: Receive, send: Send, most_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._left = most_bytes
        self.answer_begun = False

    async def receive(self) -> Message:
        """The next piece of the body. Raises BodyTooLargeError where it is too much."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise BodyTooLargeError
        return message

    async def send(self, message: Message) -> None:
        """The answer, as it is."""
        self.answer_begun = True
        await self._send(message)


def declared_length(headers: list[tuple[bytes, bytes]]) -> int:
    """What the request says of its body's length; 0 where it says nothing, as for one that goes in chunks."""
    return next((int(value) for name, value in headers if name == b"content-length" and value.isdigit()), 0)
