"""One request handed on and its answer handed back, each chunk as it comes, both ways at once.

It decides when an exchange is over, how it ended (`gateway.upstream.outcome`) and whether it may be tried again:

- no connection to a target: the next target gets it, since nothing was sent (RFC 9110, section 9.2.2);
- a connection that had rested ends without a byte of an answer: once more on a fresh one, if the request has no body
  and is idempotent. The upstream closed it while the request was on its way, and nobody can tell whether it was read;
- the upstream says that it did nothing about the request: once more, if it has no body, or all that was sent of it is kept;
- anything else: never.

It may begin with what `gateway.upstream.begun` has sent already. It must never

- leave a connection or a place behind it, however it ends: normally, by a caller who left, by cancellation;
- let a caller's half-sent body look whole to the upstream, nor an upstream's half-sent answer whole to the caller;
- count against the upstream what the caller did.

A body goes up in a task of its own, so that an answer that comes before the body's end gets through (RFC 9112,
section 9.3: a 413, say). A request without a body needs no task at all where the listener tells of departures.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.upstream.headers import inbound_response_headers
from gateway.upstream.outcome import (
    BODY_FOLLOWS_KEY,
    DEPARTURE_KEY,
    AnswerBroken,
    CallerLeft,
    Forwarded,
    Outcome,
    Tunnelled,
    UpstreamFailure,
)
from policies.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.upstream.begun import Begun
    from gateway.upstream.carrier import Answer, Carrier
    from gateway.upstream.kept_body import KeptBody
    from gateway.upstream.opening import Opening
    from gateway.upstream.outcome import Receive, Scope, Send
    from gateway.upstream.places import Places, Ticket
    from gateway.upstream.pool import Pool
    from gateway.upstream.request_head import RequestHead
    from policies.schema import Timeouts

_QUEUE_FULL: Final = UpstreamFailure(
    Reason.OVERLOADED, "The upstream has as many requests under way as it may have.", "the queue is full"
)
_NOT_IN_TIME: Final = UpstreamFailure(Reason.OVERLOADED, _QUEUE_FULL.detail, "no place came free in time")


class Exchange:
    """One request on its way to one of the targets, and back."""

    __slots__ = (
        "_answer_due_at",
        "_answer_status",
        "_begun",
        "_bytes_received",
        "_bytes_sent",
        "_connecting",
        "_connection",
        "_head",
        "_kept",
        "_left",
        "_loop",
        "_opening",
        "_places",
        "_pump",
        "_pump_error",
        "_receive",
        "_send",
        "_tell_of_departure",
        "_ticket",
        "_timeouts",
        "_uploading",
    )

    def __init__(
        self,
        places: Places,
        head: RequestHead,
        *,
        timeouts: Timeouts,
        loop: asyncio.AbstractEventLoop,
        scope: Scope,
        receive: Receive,
        send: Send,
        opening: Opening | None = None,
        kept: KeptBody | None = None,
        begun: Begun | None = None,
    ) -> None:
        self._kept = kept
        self._places = places
        self._begun = begun
        self._opening = opening
        self._head = head
        self._timeouts = timeouts
        self._loop = loop
        self._receive = receive
        self._send = send
        self._tell_of_departure: Callable[[Callable[[], None] | None], None] | None = scope.get(DEPARTURE_KEY)
        self._ticket: Ticket | None = None
        self._connecting: asyncio.Task[Carrier] | None = None
        self._connection: Carrier | None = None
        self._pump: asyncio.Task[None] | None = None
        self._pump_error: BaseException | None = None
        self._uploading = False
        self._left = False
        self._answer_due_at: float | None = None
        self._answer_status: int | None = None
        self._bytes_received = 0
        self._bytes_sent = 0

    async def run(self) -> Outcome:
        """Try the targets in turn until one is connected, then hand the request on."""
        if self._tell_of_departure is not None:
            self._tell_of_departure(self._caller_left)
        try:
            return await self._try_targets()
        finally:
            if self._tell_of_departure is not None:
                self._tell_of_departure(None)
            if self._pump is not None:
                self._pump.cancel()

    async def _try_targets(self) -> Outcome:
        places = self._places
        tried: list[Pool] = []
        while True:
            pool = places.take(self._loop.time(), tried) if self._begun is None else self._begun.take_over()
            if pool is None:
                queued = await self._queue(tried)
                if isinstance(queued, UpstreamFailure):
                    return self._left_outcome() if self._left else queued
                pool = queued
            try:
                outcome = await self._try(pool, tried)
            finally:
                self._let_go(pool)
            if pool not in tried or len(tried) == len(places.pools):
                return outcome

    async def _queue(self, tried: list[Pool]) -> Pool | UpstreamFailure:
        """Wait for a place."""
        ticket = self._places.queue_up(self._loop, tried)
        if ticket is None:
            return _QUEUE_FULL
        self._ticket = ticket
        try:
            return await ticket.turn or _NOT_IN_TIME
        except asyncio.CancelledError:
            self._places.withdraw(ticket)
            raise
        finally:
            self._ticket = None

    async def _try(self, pool: Pool, tried: list[Pool]) -> Outcome:
        """Hand the request on to this target; where it can't be connected, it is one of those `tried`."""
        if self._begun is not None:
            connection: Carrier | None = self._begun.connection
        elif self._left:
            return self._left_outcome()
        else:
            connection = pool.take() if self._opening is None else pool.take_http1()
        self._connection = connection
        if connection is not None:
            outcome = await self._converse(connection, pool)
            if not self._may_repeat(connection, outcome):
                self._judge(pool, connection, outcome)
                return outcome
            connection.abort()
            self._connection = None
            if self._kept is not None:
                await self._begin_again(self._kept)
        opened = await self._open(pool)
        if opened is None or self._left:
            return self._left_outcome()
        if isinstance(opened, UpstreamFailure):
            pool.standing.failed(self._loop.time(), at_connecting=True)
            tried.append(pool)
            return opened
        outcome = await self._converse(opened, pool)
        self._judge(pool, opened, outcome)
        return outcome

    async def _begin_again(self, kept: KeptBody) -> None:
        """Take the body from its beginning once more; what was received and not sent is kept, too."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait((pump,))
        self._uploading, self._answer_due_at, self._bytes_received = False, None, 0
        kept.rewind()

    def _let_go(self, pool: Pool) -> None:
        """Of the connection and of the place, however it went."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._uploading:
                connection.abort()  # the rest of the body never came
            pool.put_back(connection)
        self._places.give_back(pool)

    def _may_repeat(self, connection: Carrier, outcome: Outcome) -> bool:
        """Whether a connection that had rested was at its end, and the request does no harm if it was read after all."""
        reader = connection.reader
        if not isinstance(outcome, UpstreamFailure) or connection.timed_out or reader is None or not reader.untouched:
            return False
        all_is_kept = self._kept.is_whole if self._kept is not None else self._head.length == 0
        return self._head.repeatable or (reader.unprocessed and all_is_kept)

    def _judge(self, pool: Pool, connection: Carrier, outcome: Outcome) -> None:
        """What this says of the target. An upstream that ends before a slow caller's body does has done nothing wrong."""
        if isinstance(outcome, Forwarded | Tunnelled):
            pool.standing.succeeded()
        elif not isinstance(outcome, CallerLeft) and (connection.timed_out or not self._uploading):
            pool.standing.failed(self._loop.time(), at_connecting=False)

    async def _open(self, pool: Pool) -> Carrier | UpstreamFailure | None:
        """A connection, why there is none, or None when the caller left meanwhile."""
        target = pool.target
        task = self._loop.create_task(self._dial(pool))
        self._connecting = task
        try:
            self._connection = connection = await task
        except TimeoutError:
            return UpstreamFailure(
                Reason.UPSTREAM_TIMEOUT,
                "The upstream did not accept a connection in time.",
                f"connecting to {target.authority.decode()} timed out",
            )
        except OSError as error:
            return UpstreamFailure(
                Reason.UPSTREAM_UNREACHABLE,
                "The upstream can't be reached.",
                f"connecting to {target.authority.decode()}: {error}",
            )
        except asyncio.CancelledError:
            if self._left and task.cancelled() and not _being_cancelled():
                return None
            task.add_done_callback(_abort_result)  # it may have connected in the very turn that cancelled us
            task.cancel()
            raise
        finally:
            self._connecting = None
        return connection

    async def _dial(self, pool: Pool) -> Carrier:
        async with asyncio.timeout(self._timeouts.connect):
            return await (pool.open() if self._opening is None else pool.open_http1())

    async def _converse(self, connection: Carrier, pool: Pool) -> Outcome:
        head = self._head
        begun, self._begun = self._begun, None
        if begun is None:
            began_at = self._loop.time()
            reader = connection.begin(head, pool.target.authority)
        else:
            began_at, reader = begun.at, begun.reader
            self._bytes_received = head.length or 0
        if head.length != 0 and begun is None:
            self._uploading = True
            self._start_pump(self._upload(connection))
        else:
            self._answer_due_at = began_at + self._timeouts.response
            if self._tell_of_departure is None and self._pump is None:
                self._start_pump(self._watch())
        while reader.head is None and reader.problem is None and not self._left:
            # The upstream's time runs from the end of the request, and informational answers don't stretch it.
            due_at = self._answer_due_at
            await connection.news(None if due_at is None else max(0.0, due_at - self._loop.time()))
        if self._left:
            return self._left_outcome()
        if reader.head is None:
            self._raise_pump_error()
            return _failure(connection, reader)
        seconds_to_head = self._loop.time() - began_at
        self._answer_status = status = reader.head.status
        answer_headers = inbound_response_headers(reader.head.headers)
        if status == 101 and self._opening is not None:
            return await self._opening.converse(connection, reader, answer_headers, self._timeouts.idle) or (
                self._left_outcome() if self._left else _failure(connection, reader)
            )
        body = reader.take_body()
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": answer_headers,
                BODY_FOLLOWS_KEY: bool(body) or reader.complete,
            }
        )
        if not await self._send_body(connection, reader, body):
            return self._left_outcome()
        if reader.complete:
            return Forwarded(status, self._bytes_sent, self._bytes_received, seconds_to_head)
        self._raise_pump_error()
        failure = _failure(connection, reader)
        return AnswerBroken(
            status, self._bytes_sent, self._bytes_received, seconds_to_head, failure.reason, failure.cause
        )

    async def _send_body(self, connection: Carrier, reader: Answer, body: bytes) -> bool:
        """Whether the caller is still there when the answer is complete or broken. Time spent on a slow caller doesn't count.

        `body` is what had come with the head.
        """
        while not self._left:
            body += reader.take_body()  # more may have come while the head waited for a slow caller
            complete = reader.complete
            if body or complete:
                self._bytes_sent += len(body)
                await self._send({"type": "http.response.body", "body": body, "more_body": not complete})
                if complete:
                    break
                body = b""
            elif reader.problem is not None:
                break
            else:
                await connection.news(self._timeouts.idle)
        return not self._left

    async def _upload(self, connection: Carrier) -> None:
        """Hand the body on at the upstream's pace."""
        to_come = self._head.length
        while self._uploading:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._caller_left()
                return
            body: bytes = message.get("body", b"")
            more: bool = message.get("more_body", False)
            self._bytes_received += len(body)
            if to_come is not None:
                to_come -= len(body)
                if to_come < 0 or (to_come and not more):  # on a shared connection it would run into the next request
                    raise RuntimeError("The body of the request is not as long as its Content-Length")
            connection.write_body(body, last=not more)
            if not more:
                self._uploading = False
                self._answer_due_at = self._loop.time() + self._timeouts.response
                connection.bound_wait(self._timeouts.response)
            await connection.room(self._timeouts.idle)
            if connection.lost:
                return
        if self._tell_of_departure is None:
            await self._watch()

    async def _watch(self) -> None:
        """Under a server that tells of no departures: wait for the caller to leave."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._caller_left()

    def _start_pump(self, work: Coroutine[None, None, None]) -> None:
        self._pump = self._loop.create_task(work)
        self._pump.add_done_callback(self._pump_ended)

    def _pump_ended(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled() and pump.exception() is not None and self._connection is not None:
            self._pump_error = pump.exception()
            self._connection.abort()

    def _raise_pump_error(self) -> None:
        if self._pump_error is not None:
            raise self._pump_error  # what the server's `receive` raised is nobody's outcome

    def _caller_left(self) -> None:
        self._left = True
        if self._ticket is not None:
            self._places.leave(self._ticket)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def _left_outcome(self) -> CallerLeft:
        return CallerLeft(self._answer_status, self._bytes_sent, self._bytes_received)


def _failure(connection: Carrier, reader: Answer) -> UpstreamFailure:
    cause = reader.problem or "the answer ended early"
    if connection.timed_out:
        return UpstreamFailure(Reason.UPSTREAM_TIMEOUT, "The upstream did not answer in time.", cause)
    return UpstreamFailure(Reason.UPSTREAM_PROTOCOL_ERROR, "The upstream did not answer as HTTP asks.", cause)


def _being_cancelled() -> bool:
    return (task := asyncio.current_task()) is not None and task.cancelling() > 0


def _abort_result(task: asyncio.Task[Carrier]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
