"""What an exchange needs of whatever carries it: a connection of its own with HTTP/1.1, a stream on a shared one with HTTP/2.

Both send under the peer's pace and say when something has happened. `abort` ends what is carried, and nothing else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.upstream.answer import AnswerHead
    from gateway.upstream.request_head import RequestHead


class Answer(Protocol):
    """One answer on its way. `problem` and `complete` exclude each other, and after either nothing more comes."""

    @property
    def head(self) -> AnswerHead | None:
        """The final head, once it is whole."""

    @property
    def complete(self) -> bool:
        """Whether the body is whole."""

    @property
    def problem(self) -> str | None:
        """Why it never will be."""

    @property
    def untouched(self) -> bool:
        """Whether nothing of it came, nor anything else that says that the request was read."""

    @property
    def unprocessed(self) -> bool:
        """Whether the upstream has said that it did nothing about the request."""

    def take_body(self) -> bytes:
        """What has come of the body since the last time."""


class Carrier(Protocol):
    """Carries one request up and its answer back."""

    @property
    def reader(self) -> Answer | None:
        """The answer to what was begun last."""

    @property
    def lost(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def timed_out(self) -> bool:
        """Whether it ended because the upstream was silent, or took nothing, for too long."""

    def begin(self, head: RequestHead, authority: bytes) -> Answer:
        """Send the head of a request; what is returned becomes its answer."""

    def write_body(self, piece: bytes, *, last: bool) -> None:
        """Send a piece of the request's body."""

    async def room(self, seconds: float) -> None:
        """Return when the upstream has taken most of what was written; aborts when it doesn't within `seconds`."""

    async def news(self, seconds: float | None) -> None:
        """Return when something has come or ended, or `seconds` have passed; `timed_out` says the last."""

    def bound_wait(self, seconds: float) -> None:
        """Whoever waits for news waits no longer than this from now."""

    def abort(self) -> None:
        """End it at once, so that half a request never looks whole. Safe at any time and any number of times."""
