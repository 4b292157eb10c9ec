"""An upstream's answer on its way, and how it ends when it must end before its time.

It stands between the exchange and the listener, and only looks: at the head, and at the last bytes of the body. It ends
an answer in the one way that its reader can't misread:

- nothing sent yet: the refusal itself, like that of any request;
- server-sent events, at the boundary of an event, readable as they are: a last event with the problem as its data, and
  then the end. Its name says what to do: `payment-required` (402), `token-expired` (401), else `access-ended`;
- a WebSocket: a Close whose code is 4000 and the status that a request would get;
- anything else, half an event or an encoded one included: a broken connection, so that what was cut never looks whole.

At a stop, events that were asked for as an EventSource asks for them end at their next boundary: whoever does that opens
them again by himself (WHATWG HTML, section 9.2.3). Nobody can tell how long other events still last, and a completion
that is cut must not look whole: they have `drain`, as any answer has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import Gauge

from gateway.answers import Answer, Headers
from gateway.streams import Ending, Open
from gateway.upstream.outcome import DEPARTURE_KEY, STOP_KEY, Message, Send
from gateway.walk import Walk
from policies.caller import Caller
from policies.reasons import ANSWERS, Reason
from policies.routes import CompiledRoute

EVENT_STREAM: Final = b"text/event-stream"
_BOUNDARIES: Final = (b"\n\n", b"\r\r", b"\n\r", b"\n\r\n", b"\r\r\n")
"""A line's end and an empty line. CR, LF and CRLF each end a line (WHATWG HTML, section 9.2.5)."""
_LONGEST_BOUNDARY: Final = 3
_RESTART: Final = (
    b'event: restart\ndata: {"detail": "The gateway stops. Open the stream again, here or elsewhere."}\n\n'
)
NOBODY: Final = Caller(customer="", issuer="", expires_at=0)
"""Stands for whoever is under no decision, on a public route: what is his is in no registry."""


class AnswerUnderWay(Open):
    """One answer.

    Only the listener's word by which departures are told can interrupt it, so it is under no server but ours.
    """

    __slots__ = (
        "_close",
        "_headers",
        "_interrupt",
        "_is_stopping",
        "_is_stream",
        "_is_whole",
        "_send",
        "_tail",
        "_tell_of_departure",
        "has_parted",
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
        self._is_whole = False
        self._is_stopping = False
        self.has_parted = False
        """Whether a stop has ended it."""
        self._interrupt: Callable[[], None] | None = None
        self._tell_of_departure: Callable[[Callable[[], None] | None], None] | None = walk.scope.get(DEPARTURE_KEY)
        if self._tell_of_departure is not None:
            walk.scope[DEPARTURE_KEY] = self._on_departure

    def send(self, message: Message) -> Awaitable[None]:
        """What the exchange sends through."""
        if self._is_stream is None:
            self._headers = message["headers"]
            self._is_stream = _media_type(self._headers) == EVENT_STREAM
            if self._is_stream and STOP_KEY in self.walk.scope and asks_for_events(self.walk):
                self.walk.scope[STOP_KEY](self._stop)
        else:
            self._is_whole = not message["more_body"]
            if self._is_stream:
                self._tail = (self._tail + message["body"][-_LONGEST_BOUNDARY:])[-_LONGEST_BOUNDARY:]
                if self._is_stopping:
                    self._part()
        return self._send(message)

    @property
    def is_stream(self) -> bool | None:
        """Whether these are server-sent events, or a WebSocket."""
        return self._is_stream

    def interrupt(self) -> None:
        """The exchange ends as if the caller had left: it drops the upstream's connection, and blames nobody."""
        if self._close is not None and self.ending is not None:
            self._close(*close_of(self.ending))
        elif self._interrupt is not None and not self._is_whole:  # else a slow caller still takes its last bytes
            self._interrupt()

    def opened(self, close: Callable[[int, str], None]) -> None:
        """It has become a WebSocket; `close` ends it with a code and a reason."""
        self._is_stream, self._close = True, close

    def last_event(self, problem: Answer) -> bytes | None:
        """What tells the reader why it ends; None where nothing can be said that would be understood."""
        if not self._takes_an_event:
            return None
        return b"event: " + _event_name(problem) + b"\ndata: " + problem.body.strip() + b"\n\n"

    @property
    def _takes_an_event(self) -> bool:
        told = {name.lower() for name, _ in self._headers}
        if not self._is_stream or b"content-length" in told or b"content-encoding" in told:
            return False
        return not self._tail or self._tail.endswith(_BOUNDARIES)

    def _stop(self) -> None:
        self._is_stopping = True
        # Not at once: this may be the turn in which the head goes out, and the first event right behind it.
        asyncio.get_running_loop().call_soon(self._part)

    def _part(self) -> None:
        """End it here, if it is between two events. What goes out in this turn still does."""
        if self.ending is not None or self.has_parted or self._is_whole:
            return
        if self._interrupt is not None and self._takes_an_event:
            self.has_parted = True
            self._interrupt()

    async def tell_of_restart(self, status: int) -> None:
        """The last event of a stream that a stop has ended; `status` is that of its head."""
        self.walk.status, self.walk.note = status, "the gateway stops: ended with an event"
        self.walk.bytes_sent += len(_RESTART)
        await self._send({"type": "http.response.body", "body": _RESTART})

    def over(self) -> None:
        """The exchange has ended: nothing of the request refers to this any more, so that no cycle is left to collect."""
        if self._tell_of_departure is not None:
            self.walk.scope[DEPARTURE_KEY] = self._tell_of_departure
        if self._is_stream and STOP_KEY in self.walk.scope:
            self.walk.scope[STOP_KEY](None)

    def _on_departure(self, callback: Callable[[], None] | None) -> None:
        self._interrupt = callback
        if self._tell_of_departure is not None:
            self._tell_of_departure(callback)


def close_of(ending: Ending) -> tuple[int, str]:
    """How a WebSocket ends that is admitted no longer: 4000 and the status that a request would get, and the reason."""
    return 4000 + ANSWERS[ending.reason].status, ending.reason.value


def asks_for_events(walk: Walk) -> bool:
    """Whether an EventSource asks, or whoever asks as one does."""
    if walk.method == "GET":
        for name, value in walk.headers:
            if name == b"accept" and EVENT_STREAM in value.lower():
                return True
    return False


def _media_type(headers: Headers) -> bytes:
    for name, value in headers:
        if len(name) == 12 and name.lower() == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""


def _event_name(problem: Answer) -> bytes:
    if problem.status == 402:
        return b"payment-required"
    return b"token-expired" if problem.reason is Reason.TOKEN_EXPIRED else b"access-ended"


def counted(open_now: Gauge, under_way: AnswerUnderWay | None) -> Callable[[Callable[[int, str], None]], None]:
    """What a WebSocket is to call once it is open; whoever sees its end counts it off."""

    def opened(close: Callable[[int, str], None]) -> None:
        open_now.inc()
        if under_way is not None:
            under_way.opened(close)

    return opened
