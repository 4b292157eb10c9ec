"""WebSockets through the whole gateway, by a client and a server that nobody here wrote, and by raw bytes."""

from __future__ import annotations

import asyncio
import base64
import math
import os
from typing import TYPE_CHECKING, Any, Final

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.upstream.opening import accept_of
from tests.support.conversations import AGREED, KEY, SEEN, SWITCH, echoing, eventually, frame, offer, opened, relay_of
from tests.support.house import house, token_for
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.upstreams import Visit


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_messages_of_every_kind_come_back_as_they_were_sent(tmp_path: Path, compression: Any) -> None:
    async with echoing(tmp_path, compression=compression) as (one, _), opened(one, compression=compression) as client:
        assert bool(client.protocol.extensions) is (compression is not None)
        for message in ("text", "", b"binary\0", b"", "ü" * 1000, os.urandom(3 << 20), "x" * (3 << 20)):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["a", "b", "c"])
        assert await client.recv() == "abc"
        await client.send("fragments")
        assert [part async for part in client.recv_streaming()] == ["a", "b", "", "c", ""]
        await asyncio.wait_for(await client.ping(), 10)


@pytest.mark.parametrize("offered", [None, ["v9"], ["v1", "v9"]])
async def test_the_upstream_chooses_the_subprotocol(tmp_path: Path, offered: Any) -> None:
    async with echoing(
        tmp_path, subprotocols=["v1"], select_subprotocol=lambda _, asked: "v1" if "v1" in asked else None
    ) as (one, server):
        direct = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with (
            connect(direct, subprotocols=offered, proxy=None) as plain,
            opened(one, subprotocols=offered) as client,
        ):
            assert client.subprotocol == plain.subprotocol


async def test_a_refusal_is_an_ordinary_answer_before_the_handshake(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (one, _):
        for path, token, status, reason in (
            ("/pro/ws", None, 401, "token_missing"),
            ("/pro/ws", token_for("bob"), 402, "tier_required"),
            ("/nowhere", None, 404, "no_route"),
            ("/write", None, 405, "method_not_allowed"),
            ("/pro/../x", None, 400, "bad_path"),
            ("/gold", "", 403, "forbidden"),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with opened(one, path, token):
                    pass
            answer = refused.value.response
            assert (answer.status_code, answer.headers["X-Gateway-Reason"]) == (status, reason)
        assert SEEN == []


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 426, 500])
async def test_the_upstreams_own_answer_reaches_the_caller_as_it_is(tmp_path: Path, status: int) -> None:
    async def refusing(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 %d X\r\nX-Its-Own: 1\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nno" % status)

    async with house(tmp_path, stripe=False, script=refusing) as one, await RawClient.connect(one.address) as client:
        await one.grant("alice", "pro")
        answer = await client.ask(offer() + b"GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (answer.status, answer.body, answer.one("x-its-own")) == (status, b"no", "1")
        assert await client.rest() == b""  # what stood behind the offer is no request
        assert one.visit_count() == 1
        assert ("upgrade", "websocket") in one.last().headers
        assert ("sec-websocket-key", KEY.decode()) in one.last().headers


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 X\r\n" + SWITCH + b"\r\n",
        b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + AGREED + b"\r\n",
        b"HTTP/1.1 101 X\r\n" + SWITCH + b"Sec-WebSocket-Accept: AAAA\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n" + AGREED + b"\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n" + AGREED + b"\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n" + AGREED + b"\r\n",
        b"HTTP/1.0 101 X\r\n" + SWITCH + AGREED + b"\r\n",
        b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"Transfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"Content-Length: 5\r\n\r\nhello",
    ],
)
async def test_no_tunnel_without_a_101_that_answers_the_offer(tmp_path: Path, answer: bytes) -> None:
    async def agreeing(visit: Visit) -> None:
        await visit.request()
        await visit.say(answer)
        while await visit.read():
            pass

    early = frame(0x81, b"early")
    async with house(tmp_path, stripe=False, script=agreeing) as one, await RawClient.connect(one.address) as client:
        await one.grant("alice", "pro")
        got = await client.ask(offer() + early)
        assert (got.status, got.one("x-gateway-reason")) == (502, "upstream_protocol_error")
        assert one.last().body == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (offer(version="777"), 400),
        (offer().replace(KEY, b"short"), 400),
        (offer(more="Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), 400),
        (offer().replace(b"Connection: Upgrade\r\n", b""), 502),
        (offer().replace(b"GET", b"POST"), 502),
        (offer().replace(b"HTTP/1.1", b"HTTP/1.0"), 502),
        (offer().replace(b"websocket", b"h2c"), 502),
        (offer().replace(b"websocket", b"websocket, h2c"), 502),
        (offer(more="Content-Length: 3\r\n") + b"abc", 502),
        (offer(token=token_for("bob")), 402),
    ],
)
async def test_what_is_not_a_whole_offer_opens_no_tunnel_even_where_the_upstream_would(
    tmp_path: Path, request_: bytes, status: int
) -> None:
    async def eager(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"\r\n")
        while await visit.read():
            pass

    async with house(tmp_path, stripe=False, script=eager) as one, await RawClient.connect(one.address) as client:
        await one.grant("alice", "pro")
        answer = await client.ask(request_)
        assert answer.status == status
        if status == 400:
            assert answer.one("sec-websocket-version") == "13"


async def test_close_codes_and_aborts_reach_the_other_side(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (one, server):
        async with opened(one) as client:
            await client.send("close")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4001, "bye")
        async with opened(one, headers={"X-Request-Id": "mine"}) as client:
            await client.close(4002, "farewell")
        line = await one.logged("mine")
        assert (line["status"], line["reason"], line["note"]) == (101, "forwarded", "the caller closed it: 4002")
        async with opened(one) as client:
            await client.send("abort")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1006
        async with opened(one) as client:
            await client.send("x")
            await client.recv()
            client.transport.abort()
        async with opened(one) as client:
            await client.send(b"x" * (5 << 20))
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1009
        await eventually(lambda: len(SEEN) == 5)
        assert [code for code, _ in SEEN[:4]] == [4001, 4002, 1006, 1006]
        direct = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with connect(direct, proxy=None) as client:
            await client.send(b"x" * (5 << 20))
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await eventually(lambda: len(SEEN) == 6)
        assert SEEN[4] == SEEN[5]
        assert SEEN[1] == (4002, "farewell")
        target = one.process.gateway.plan.upstreams.state("api").targets[0]
        assert (target.pending, target.idle) == (0, 0)
        assert len(one.process.gateway.streams) == 0


async def test_a_subscription_that_ends_closes_with_4402_and_the_reason(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (one, _), opened(one, headers={"X-Request-Id": "mine"}) as client:
        await client.send("x")
        assert await client.recv() == "x"
        await one.operate("POST", "/api/revoke/alice", json={"reason": "a test"})
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4402, "tier_required")
        line = await one.logged("mine")
        assert (line["status"], line["reason"], line["note"]) == (101, "tier_required", "the gateway closed it: 4402")
        await eventually(lambda: SEEN == [(4402, "tier_required")])


async def test_a_block_closes_with_4403_and_a_downgrade_that_is_admitted_closes_nothing(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (one, _):
        await one.grant("alice", "enterprise", until="10d")
        async with opened(one) as client:
            await client.send("x")
            await client.recv()
            customers = one.process.gateway.streams._customers
            await eventually(lambda: "alice" in customers and math.isfinite(customers["alice"].edge))
            before = customers["alice"].edge
            one.clock.offset = 11 * 86400
            await eventually(lambda: customers["alice"].edge != before)
            await client.send("y")
            assert await client.recv() == "y"
            await one.operate("POST", "/api/block/alice", json={"reason": "a test"})
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4403, "blocked")


async def test_a_token_that_ends_closes_with_4401(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (one, _), opened(one, token=token_for(lifetime=2)) as client:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(client.recv(), 15)
        assert (client.close_code, client.close_reason) == (4401, "token_expired")


async def test_a_cookie_is_believed_only_with_an_allowed_origin(tmp_path: Path) -> None:
    async with echoing(
        tmp_path, auth="  token_from: [header, 'cookie:session']", server="  cors_origins: [https://app.test]"
    ) as (one, _):
        cookie = {"Cookie": f"session={token_for()}"}
        for origin in (None, "https://evil.test"):
            with pytest.raises(InvalidStatus) as refused:
                async with opened(one, token=None, headers=cookie, origin=origin):
                    pass
            assert refused.value.response.headers["X-Gateway-Reason"] == "forbidden"
        for origin in ("https://app.test", one.api):
            async with opened(one, token=None, headers=cookie, origin=origin) as client:
                await client.send("x")
                assert await client.recv() == "x"


async def test_early_bytes_wait_for_the_101_and_the_upstreams_come_behind_it(tmp_path: Path) -> None:
    agree = asyncio.Event()

    async def slowly(visit: Visit) -> None:
        await visit.request()
        await agree.wait()
        assert visit.body == b""
        await visit.say(
            b"HTTP/1.1 101 X\r\nX-Gateway-Tier: lie\r\nX-Own: 1\r\n"
            + SWITCH
            + AGREED
            + b"\r\n"
            + frame(0x81, b"hi", masked=False)
        )
        while await visit.read():
            pass

    early = frame(0x81, b"early") + frame(0x82, b"x" * 300)
    async with house(tmp_path, stripe=False, script=slowly) as one, await RawClient.connect(one.address) as client:
        await one.grant("alice", "pro")
        await client.send(offer() + early[:3])
        visit = await one.upstream.visit()
        await client.send(early[3:])
        agree.set()
        status, headers, _ = await client.head()
        assert status == 101
        names = {name.lower(): value for name, value in headers}
        assert (names["x-own"], names["sec-websocket-accept"]) == ("1", accept_of(KEY).decode())
        assert "x-gateway-tier" not in names
        assert await client.reader.readexactly(4) == frame(0x81, b"hi", masked=False)
        await eventually(lambda: visit.body == early)
        assert one.seen("x-gateway-customer") == ["alice"]


async def test_silence_closes_with_1001(tmp_path: Path) -> None:
    async with echoing(tmp_path, upstream_settings="    timeouts: {idle: 300ms}") as (one, _), opened(one) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1001


BROKEN: Final = {
    "unmasked": frame(0x81, b"x", masked=False),
    "reserved opcode": frame(0x83, b"x"),
    "reserved bit": frame(0xC1, b"x"),
    "long ping": b"\x89\xfe\x00\x7e\1\2\3\4" + b"x" * 126,
    "fragmented ping": frame(0x09, b"x"),
    "top bit of the length": b"\x81\xff\x80" + b"\0" * 7 + b"\1\2\3\4",
    "length too wide": b"\x81\xfe\x00\x05\1\2\3\4hello",
    "continuation of nothing": frame(0x80, b"x"),
    "message within a message": frame(0x01, b"x") + frame(0x81, b"y"),
    "half a code": frame(0x88, b"x"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_framing_that_is_broken_is_not_handed_on(tmp_path: Path, name: str) -> None:
    async def agreeing(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"\r\n")
        while await visit.read():
            pass

    good = frame(0x81, b"good")
    async with house(tmp_path, stripe=False, script=agreeing) as one, await RawClient.connect(one.address) as client:
        await one.grant("alice", "pro")
        await client.send(offer(more="X-Request-Id: mine\r\n"))
        await client.head()
        await client.send(good + BROKEN[name] + good)
        assert (await client.reader.readexactly(4))[2:] == (1002).to_bytes(2)
        visit = await one.upstream.visit()
        await asyncio.wait_for(visit.closed.wait(), 10)
        allowed = good + (frame(0x01, b"x") if name == "message within a message" else b"")
        assert visit.body == allowed
        await client.close()
        assert "broke RFC 6455" in (await one.logged("mine"))["note"]


async def test_a_caller_who_stops_reading_holds_the_upstream_back(tmp_path: Path) -> None:
    sent = 0

    async def flood(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        await visit.say(b"HTTP/1.1 101 X\r\n" + SWITCH + AGREED + b"\r\n")
        piece = frame(0x82, b"x" * 60_000, masked=False)
        while sent < 256 << 20:
            await visit.say(piece)
            sent += len(piece)

    async with (
        house(tmp_path, stripe=False, script=flood) as one,
        await RawClient.connect(one.address, receive_buffer=4096) as client,
    ):
        await one.grant("alice", "pro")
        await client.send(offer())
        await client.head()
        relay = await relay_of(one)
        await eventually(lambda: relay.upstream._reading_paused)
        assert sent < 32 << 20
        held = sent
        while sent == held:  # who reads on gets more
            await client.reader.readexactly(60_000)
        client.reset()
        await asyncio.wait_for((await one.upstream.visit()).closed.wait(), 10)


def test_the_accept_is_that_of_the_rfc() -> None:
    assert accept_of(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert base64.b64decode(accept_of(KEY))
