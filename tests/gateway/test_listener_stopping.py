"""A listener that goes down: whoever has begun to ask, or has asked a moment ago, is answered; whoever says nothing holds nothing up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.listener_head import ListenerLimits
from tests.support.calls import until
from tests.support.gateways import listening
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from gateway.upstream.outcome import Receive, Scope, Send

ASKED = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
PATIENT = ListenerLimits(first_word_seconds=10, last_word_seconds=10)
HASTY = ListenerLimits(first_word_seconds=0.05, last_word_seconds=0.05, head_seconds=0.2)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _is_answered_last(client: RawClient) -> None:
    answer = await client.answer()
    assert (answer.status, answer.body, answer.one("connection")) == (200, b"ok", "close")
    assert await client.rest() == b""


async def test_who_has_just_connected_is_answered() -> None:
    connections: list[Any] = []
    async with (
        listening(app, limits=PATIENT, connections=connections) as address,
        await RawClient.connect(address) as client,
    ):
        await until(lambda: len(connections) == 1)
        connections[0].shutdown()
        await asyncio.sleep(0)
        await client.send(ASKED)
        await _is_answered_last(client)


async def test_half_a_head_may_come_to_its_end() -> None:
    connections: list[Any] = []
    async with (
        listening(app, limits=PATIENT, connections=connections) as address,
        await RawClient.connect(address) as client,
    ):
        await client.send(ASKED[:10])
        await until(lambda: len(connections) == 1 and connections[0]._reading_head)
        connections[0].shutdown()
        await client.send(ASKED[10:])
        await _is_answered_last(client)


async def test_a_request_that_was_sent_before_the_stop_is_answered_on_a_kept_connection() -> None:
    connections: list[Any] = []
    async with (
        listening(app, limits=PATIENT, connections=connections) as address,
        await RawClient.connect(address) as client,
    ):
        for _ in range(2):  # so that its fields are known
            assert (await client.ask(ASKED)).one("connection") is None
        client.writer.write(ASKED)  # which is in the kernel now, and nobody has read it
        connections[0].shutdown()
        await _is_answered_last(client)


async def test_whoever_says_nothing_or_only_half_is_let_go() -> None:
    connections: list[Any] = []
    async with (
        listening(app, limits=HASTY, connections=connections) as address,
        await RawClient.connect(address) as silent,
        await RawClient.connect(address) as kept,
        await RawClient.connect(address) as half,
    ):
        assert (await kept.ask(ASKED)).status == 200
        await half.send(ASKED[:10])
        await until(lambda: len(connections) == 3)
        for one in connections:
            one.shutdown()
        assert (await half.rest()).startswith((b"HTTP/1.1 408 ", b""))
        assert await silent.rest() == await kept.rest() == b""
