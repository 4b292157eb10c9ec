"""How the gateway ends a WebSocket in which a frame is half on its way, by raw bytes on both sides."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.upstream import relay as relaying
from tests.support.conversations import AGREED, SWITCH, eventually, frame, offer, relay_of
from tests.support.house import house
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.house import House
    from tests.support.upstreams import Visit

CLOSE = b"\x88\x0f" + (4402).to_bytes(2) + b"tier_required"


async def agreeing(visit: Visit) -> None:
    """Opens; what it says is said by the test."""
    await visit.request()
    await visit.say(b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"\r\n")
    while await visit.read():
        pass


@asynccontextmanager
async def tunnel(directory: Path, script: Any = agreeing, **options: Any) -> AsyncIterator[tuple[House, RawClient]]:
    async with (
        house(directory, stripe=False, script=script) as one,
        await RawClient.connect(one.address, **options) as client,
    ):
        await one.grant("alice", "pro")
        await client.send(offer(more="X-Request-Id: mine\r\n"))
        assert (await client.head())[0] == 101
        yield one, client


async def revoke(one: House) -> None:
    answer = await one.operate("POST", "/api/revoke/alice", json={"reason": "a test"})
    assert answer.status_code == 200


@pytest.mark.parametrize("with_answer", [True, False])
async def test_a_close_waits_for_the_end_of_the_frame_that_is_on_its_way_to_the_caller(
    tmp_path: Path, with_answer: bool
) -> None:
    async with tunnel(tmp_path) as (one, client):
        visit = await one.upstream.visit()
        message = frame(0x82, b"x" * 300, masked=False)
        await visit.say(message[:100])
        assert await client.reader.readexactly(100) == message[:100]
        relay = await relay_of(one)
        await revoke(one)
        await eventually(lambda: len(visit.body) == 6 + 15)  # the upstream is told at once, masked
        assert relay.caller.is_to_be_told
        answer = frame(0x88, (4402).to_bytes(2), masked=False)
        await visit.say(message[100:] + (answer if with_answer else frame(0x81, b"too late", masked=False)))
        assert await client.reader.readexactly(len(message) - 100 + len(CLOSE)) == message[100:] + CLOSE
        if not with_answer:
            await visit.say(answer)
        await client.send(frame(0x88, (4402).to_bytes(2)))
        assert await client.rest() == b""
        assert relay.upstream.incoming.close_code == 4402  # nobody had to be cut off
        assert (await one.logged("mine"))["note"] == "the gateway closed it: 4402"
        assert len(visit.body) == 6 + 15


async def test_a_close_waits_for_the_end_of_the_frame_that_is_on_its_way_to_the_upstream(tmp_path: Path) -> None:
    async with tunnel(tmp_path) as (one, client):
        visit = await one.upstream.visit()
        message = frame(0x82, b"x" * 300)
        await client.send(message[:100])
        await eventually(lambda: visit.body == message[:100])
        relay = await relay_of(one)
        await revoke(one)
        assert await client.reader.readexactly(len(CLOSE)) == CLOSE
        assert relay.upstream.is_to_be_told
        await client.send(message[100:] + frame(0x88, (4402).to_bytes(2)))
        await eventually(lambda: len(visit.body) == len(message) + 6 + 15)
        assert visit.body.startswith(message + b"\x88\x8f")
        await visit.say(frame(0x88, (4402).to_bytes(2), masked=False))
        assert await client.rest() == b""
        assert relay.caller.incoming.close_code == 4402


async def test_a_frame_that_never_ends_is_cut_off_and_nothing_is_put_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "CLOSE_SECONDS", 0.2)
    async with tunnel(tmp_path) as (one, client):
        visit = await one.upstream.visit()
        await visit.say(frame(0x82, b"x" * 300, masked=False)[:100])
        await client.reader.readexactly(100)
        await relay_of(one)
        await revoke(one)
        assert await client.rest() == b""


async def test_a_caller_who_stops_reading_within_a_frame_holds_the_upstream_back_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "CLOSE_SECONDS", 1.0)
    sent = 0

    async def flood(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        await visit.say(b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"\r\n\x82\x7f" + (1 << 40).to_bytes(8))
        while sent < 256 << 20:
            await visit.say(b"x" * 60_000)
            sent += 60_000

    async with tunnel(tmp_path, flood, receive_buffer=4096) as (one, _):
        visit = await one.upstream.visit()
        relay = await relay_of(one)
        await eventually(lambda: relay.upstream._reading_paused)
        await revoke(one)
        await eventually(visit.closed.is_set)
        assert sent < 32 << 20
