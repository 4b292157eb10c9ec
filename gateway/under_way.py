"""An upstream's answer on its way to a known caller, and how it ends when it must end before its time.

It stands between the exchange and the listener, and only looks: at the head, and at the last bytes of the body. It ends
an answer in the one way that its reader can't misread:

- nothing sent yet: the refusal itself, like that of any request;
- server-sent events, at the boundary of an event, readable as they are: a last event with the problem as its data, and
  then the end. Its name says what to do: `payment-required` (402), `token-expired` (401), else `access-ended`;
- a WebSocket: a Close whose code is 4000 and the status that a request would get;
- anything else, half an event or an encoded one included: a broken connection, so that what was cut never looks whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from gateway.answers import Answer, Headers
from gateway.streams import Ending, Open
from gateway.upstream.outcome import DEPARTURE_KEY, Message, Send
from gateway.walk import Walk
from policies.caller import Caller
from policies.reasons import ANSWERS, Reason
from policies.routes import CompiledRoute

EVENT_STREAM: Final = b"text/event-stream"
_BOUNDARIES: Final = (b"\n\n", b"\r\r", b"\n\r", b"\n\r\n", b"\r\r\n")
"""A line's end and an empty line. CR, LF and CRLF each end a line (WHATWG HTML, section 9.2.5)."""
_LONGEST_BOUNDARY: Final = 3


class AnswerUnderWay(Open):
    """One answer.

    Only the listener's word by which departures are told can interrupt it, so it is under no server but ours.
    """

    __slots__ = (
        "_close",
        "_headers",
        "_interrupt",
        "_is_stream",
        "_send",
        "_tail",
        "_tell_of_departure",
        "plan",
        "route",
        "walk",
    )

    def __init__(self, walk: Walk, route: CompiledRoute, caller: Caller) -> None:
        super().__init__(walk, route, caller)
        self._send: Send = walk.send
        self._headers: Headers = []
        self._close: Callable[[int, str], None] | None = None
        self._is_stream: bool | None = None
        self._tail = b""
        self._interrupt: Callable[[], None] | None = None
        self._tell_of_departure: Callable[[Callable[[], None] | None], None] | None = walk.scope.get(DEPARTURE_KEY)
        if self._tell_of_departure is not None:
            walk.scope[DEPARTURE_KEY] = self._on_departure

    def send(self, message: Message) -> Awaitable[None]:
        """What the exchange sends through."""
        if self._is_stream is None:
            self._headers = message["headers"]
            self._is_stream = _media_type(self._headers) == EVENT_STREAM
        elif self._is_stream:
            self._tail = (self._tail + message["body"][-_LONGEST_BOUNDARY:])[-_LONGEST_BOUNDARY:]
        return self._send(message)

    @property
    def is_stream(self) -> bool | None:
        """Whether these are server-sent events, or a WebSocket."""
        return self._is_stream

    def interrupt(self) -> None:
        """The exchange ends as if the caller had left: it drops the upstream's connection, and blames nobody."""
        if self._close is not None and self.ending is not None:
            self._close(*close_of(self.ending))
        elif self._interrupt is not None:
            self._interrupt()

    def opened(self, close: Callable[[int, str], None]) -> None:
        """It has become a WebSocket; `close` ends it with a code and a reason."""
        self._is_stream, self._close = True, close

    def last_event(self, problem: Answer) -> bytes | None:
        """What tells the reader why it ends; None where nothing can be said that would be understood."""
        told = {name.lower() for name, _ in self._headers}
        if not self._is_stream or b"content-length" in told or b"content-encoding" in told:
            return None
        if self._tail and not self._tail.endswith(_BOUNDARIES):
            return None
        return b"event: " + _event_name(problem) + b"\ndata: " + problem.body.strip() + b"\n\n"

    def over(self) -> None:
        """The exchange has ended: nothing of the request refers to this any more, so that no cycle is left to collect."""
        if self._tell_of_departure is not None:
            self.walk.scope[DEPARTURE_KEY] = self._tell_of_departure

    def _on_departure(self, callback: Callable[[], None] | None) -> None:
        self._interrupt = callback
        if self._tell_of_departure is not None:
            self._tell_of_departure(callback)


def close_of(ending: Ending) -> tuple[int, str]:
    """How a WebSocket ends that is admitted no longer: 4000 and the status that a request would get, and the reason."""
    return 4000 + ANSWERS[ending.reason].status, ending.reason.value


def _media_type(headers: Headers) -> bytes:
    for name, value in headers:
        if len(name) == 12 and name.lower() == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""


def _event_name(problem: Answer) -> bytes:
    if problem.status == 402:
        return b"payment-required"
    return b"token-expired" if problem.reason is Reason.TOKEN_EXPIRED else b"access-ended"
