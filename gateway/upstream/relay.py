"""A WebSocket's two connections joined: each side's bytes go to the other as they come, at the pace at which they are taken.

It decides how the conversation ends. Whoever says goodbye (a Close) or leaves ends it, and the other side sees what it
would have seen without a gateway between: the same Close, or a connection that ends without one. `close` ends it with a
Close of the gateway's own to both, each at the end of the frame that is on its way there. It must never

- hold more than a buffer's worth in either direction: a side is read no further while the other takes nothing;
- hand on what isn't framed as RFC 6455 asks, nor put a byte of its own inside somebody's frame;
- last: a silence of `idle_seconds` ends it, and once an end has begun, `CLOSE_SECONDS` do.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.deadline import Deadline
from gateway.upstream.frames import FrameTracker, close_frame

CLOSE_SECONDS: Final = 5.0
"""How long a side may take to answer a Close, or to take what was written to it, before its connection is cut."""

GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
SERVICE_RESTART: Final = 1012


class Side(asyncio.Protocol):
    """The connection to one of the two."""

    __slots__ = (
        "_parting",
        "_reading_paused",
        "_relay",
        "bytes_taken",
        "incoming",
        "is_lost",
        "is_told",
        "name",
        "other",
        "transport",
    )

    other: Side
    transport: asyncio.Transport

    def __init__(self, relay: Relay, name: str, incoming: FrameTracker) -> None:
        self._relay = relay
        self._parting: tuple[int, str] | None = None
        self._reading_paused = False
        self.name = name
        self.incoming = incoming
        self.bytes_taken = 0
        self.is_told = False
        """Whether a Close has been sent to it, the other side's or ours: nothing may follow."""
        self.is_lost = False

    @property
    def is_to_be_told(self) -> bool:
        """Whether a Close waits for the end of the frame that is on its way to it."""
        return self._parting is not None and not self.is_told

    def data_received(self, data: bytes) -> None:
        """It said something."""
        relay, other, incoming = self._relay, self.other, self.incoming
        relay.heard()
        if other.is_told or other.is_lost:
            incoming.feed(data)  # only the answer to a Close is still waited for
        else:
            behind = b""
            if other.is_to_be_told:
                data, behind = data[: incoming.left], data[incoming.left :]
            going = incoming.feed(data)
            if going:
                other.bytes_taken += len(going)
                other.transport.write(going)
            if incoming.close_code is not None:
                other.is_told = True
            elif other._parting is not None and not incoming.left:  # noqa: SLF001 -- its own kind
                other.tell(*other._parting)  # noqa: SLF001
                incoming.feed(behind)  # the answer to a Close may stand right behind
        if incoming.problem is not None:
            relay.broke_framing(self)
        elif incoming.close_code is not None:
            relay.said_goodbye(self)

    def eof_received(self) -> None:
        """It says nothing more: the transport closes by itself once everything is written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.is_lost = True
        self._relay.lost(self, is_clean=exc is None)

    def pause_writing(self) -> None:
        """It takes bytes more slowly than they come."""
        self.other.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.other.resume_reading()

    def pause_reading(self) -> None:
        """Read no further. At the end only what still goes on is held back: the rest is read away."""
        if self._relay.is_ending and not self.other.is_to_be_told:
            return
        if not (self._reading_paused or self.is_lost):
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._reading_paused and not self.is_lost:
            self._reading_paused = False
            self.transport.resume_reading()

    def tell(self, code: int, reason: str) -> None:
        """Send it a Close, at the end of the frame that is on its way to it."""
        if self.is_told or self.is_lost:
            return
        if self.other.incoming.left and not self.other.is_lost:
            self._parting = (code, reason)
            return
        if self.other.incoming.left:
            self.transport.abort()
            return
        self.is_told = True
        self.transport.write(close_frame(code, reason, masked=self is self._relay.upstream))
        self.other.resume_reading()


class Relay:
    """`join` the two, then await `over`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, extended: bool, idle_seconds: float) -> None:
        self.caller = Side(self, "caller", FrameTracker(masked=True, extended=extended))
        self.upstream = Side(self, "upstream", FrameTracker(masked=False, extended=extended))
        self.caller.other, self.upstream.other = self.upstream, self.caller
        self.over: asyncio.Future[None] = loop.create_future()
        self.how_it_ended = ""
        """Who ended it, and with which code: for the log."""
        self.is_ending = False
        self._idle_seconds = idle_seconds
        self._bound = Deadline(loop, self._out_of_time)

    def join(self, early: bytes, first: bytes) -> None:
        """Both transports are there: begin with what came from the caller and from the upstream before."""
        self._bound.set(self._idle_seconds)
        if first:
            self.upstream.data_received(first)
        if early:
            self.caller.data_received(early)

    def close(self, code: int, reason: str) -> None:
        """End it from here. `reason` is at most 123 bytes long."""
        if self.is_ending:
            return
        self._end(f"the gateway closed it: {code}")
        for side in (self.caller, self.upstream):
            side.tell(code, reason)
        for side in (self.caller, self.upstream):
            self._part(side)
        self._read_on()

    def stop(self) -> None:
        """The gateway is going down."""
        self.close(SERVICE_RESTART, "the gateway restarts")

    def abort(self) -> None:
        """End both connections at once."""
        self._note("it was cut off")
        self.is_ending = True
        for side in (self.caller, self.upstream):
            if not side.is_lost:
                side.transport.abort()

    # What the sides tell.

    def heard(self) -> None:
        """Somebody said something."""
        if not self.is_ending:
            self._bound.set(self._idle_seconds)

    def said_goodbye(self, side: Side) -> None:
        """Its Close has come."""
        self._note(f"the {side.name} closed it: {side.incoming.close_code}")
        if self.is_ending:
            self._part(side)
        elif side.other.incoming.close_code is not None:
            # The upstream, as the server, closes now (RFC 6455, section 7.1.1), and the caller's connection follows.
            self._end("")
            self._read_on()

    def broke_framing(self, side: Side) -> None:
        """The rest of what it says can't be told apart; the other side sees a connection that ends without a Close."""
        self._note(f"the {side.name} broke RFC 6455: {side.incoming.problem}")
        was_ending = self.is_ending
        self._end("")
        if was_ending:
            side.transport.abort()
            return
        side.other.transport.abort()
        if side.other.incoming.left:
            side.transport.abort()
        else:
            side.tell(PROTOCOL_ERROR, side.incoming.problem or "")

    def lost(self, side: Side, *, is_clean: bool) -> None:
        """Its connection has ended."""
        self._note(f"the {side.name} left without a Close")
        other = side.other
        self._end("")
        if other.is_lost:
            self._bound.cancel()
            if not self.over.done():
                self.over.set_result(None)
        elif (is_clean or side.incoming.close_code is not None) and (other.is_told or not other._parting):  # noqa: SLF001
            self._part(other)
        else:
            other.transport.abort()
        self._read_on()

    # How it ends.

    def _note(self, how: str) -> None:
        if not self.how_it_ended:
            self.how_it_ended = how

    def _end(self, how: str) -> None:
        if how:
            self._note(how)
        if not self.is_ending:
            self.is_ending = True
            self._bound.set(CLOSE_SECONDS)

    def _read_on(self) -> None:
        """An answer to the Close, or the end, may stand behind what wasn't read; but a frame that goes on keeps its pace."""
        for side in (self.caller, self.upstream):
            if not side.other.is_to_be_told:
                side.resume_reading()

    def _part(self, side: Side) -> None:
        """Close its connection, unless a Close was sent to it that it hasn't answered, or is still to be sent."""
        if side.is_lost or side.is_to_be_told:
            return
        if not side.is_told or side.incoming.close_code is not None or side.incoming.problem is not None:
            side.transport.close()

    def _out_of_time(self) -> None:
        if self.is_ending:
            self.abort()
        else:
            self.close(GOING_AWAY, "idle for too long")
