"""WebSockets by what routes and upstreams are told in gateway.yaml, and under a server that is not the gateway's."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.conversations import SEEN, echoing, eventually, offer, opened, script
from tests.support.house import ROUTES, house, token_for
from tests.support.http2_upstream import answering, http2_upstream
from tests.support.rawclient import RawClient
from tests.support.tls import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from websockets.http11 import Request, Response

    from tests.support.upstreams import Visit

MORE: str = (
    ROUTES
    + """
  - {path: /lasting, access: authenticated, outlive_token: true}
  - {path: /watched, tier: pro, enforce: observe}
  - {path: /cut/**, tier: pro, strip_prefix: /cut}
"""
)


@pytest.mark.parametrize("with_token", [True, False])
async def test_on_a_public_route_nobody_is_asked_who_he_is(tmp_path: Path, with_token: bool) -> None:
    async with echoing(tmp_path) as (one, server), opened(one, "/open/ws", "" if with_token else None) as client:
        await client.send("x")
        assert await client.recv() == "x"
        (peer,) = server.connections
        assert peer.request is not None
        assert "X-Gateway-Customer" not in peer.request.headers


async def test_a_route_that_observes_says_so_and_only_a_block_ends_anything(tmp_path: Path) -> None:
    async with echoing(tmp_path, routes=MORE) as (one, server), opened(one, "/watched", token_for("bob")) as client:
        (peer,) = server.connections
        assert peer.request is not None
        assert peer.request.headers["X-Gateway-Observed"] == "tier_required"
        streams = one.process.gateway.streams
        await eventually(lambda: any(known.last_known is not None for known in streams._customers.values()))
        await client.send("x")
        assert await client.recv() == "x"
        await one.operate("POST", "/api/block/bob", json={"reason": "a test"})
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(client.recv(), 15)
        assert client.close_code == 4403


async def test_a_prefix_is_cut_and_the_token_stays_here(tmp_path: Path) -> None:
    settings = "    forward_token: false"
    async with (
        echoing(tmp_path, routes=MORE, upstream_settings=settings) as (one, server),
        opened(one, "/cut/ws?a=1", headers={"Cookie": "a=b"}) as client,
    ):
        await client.send("x")
        assert await client.recv() == "x"
        (peer,) = server.connections
        assert peer.request is not None
        assert peer.request.path == "/ws?a=1"
        assert "Authorization" not in peer.request.headers
        assert peer.request.headers["Cookie"] == "a=b"
        assert peer.request.headers["X-Gateway-Customer"] == "alice"


async def test_a_websocket_outlives_its_token_where_its_route_says_so_but_no_block(tmp_path: Path) -> None:
    async with echoing(tmp_path, routes=MORE) as (one, _):
        token = token_for(lifetime=2)
        async with opened(one, "/lasting", token) as lasting, opened(one, token=token) as other:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(other.recv(), 15)  # this is how one knows that the time has come
            assert other.close_code == 4401
            await lasting.send("x")
            assert await lasting.recv() == "x"
            await one.operate("POST", "/api/block/alice", json={"reason": "a test"})
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(lasting.recv(), 15)
            assert lasting.close_code == 4403


async def test_what_nobody_can_decide_for_max_stale_closes_with_4503(tmp_path: Path) -> None:
    settings = "deny\ncache: {max_ttl: 1s, max_stale: 1s}"
    async with echoing(tmp_path, default=settings) as (one, _), opened(one) as client:
        streams = one.process.gateway.streams
        await eventually(lambda: "alice" in streams._customers)
        one.lose_the_ledger()

        def has_ended() -> bool:
            one.process.gateway._resolver._memory.forget("alice")
            streams.changed(None)  # rather than wait for the next look at her
            return client.close_code is not None

        await eventually(has_ended)
        assert (client.close_code, client.close_reason) == (4503, "entitlement_unavailable")


async def test_an_upstream_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    settings = f"    tls: {{ca: {authority.file}}}"
    async with (
        echoing(tmp_path, ssl=authority.server(), upstream_settings=settings) as (one, _),
        opened(one) as client,
    ):
        await client.send("x" * 100_000)
        assert await client.recv() == "x" * 100_000
        await client.send("close")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 4001
        assert authority.asked_names == ["localhost"]


@contextlib.asynccontextmanager
async def door(http1: int, http2: int, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """One port for both: whoever speaks HTTP/2 comes to one server, everybody else to the other."""
    pumps: list[asyncio.Task[None]] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(3)
        if tls is not None:
            agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            assert (agreed == "h2") == (first == b"PRI")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", http2 if first == b"PRI" else http1)
        far_writer.write(first)
        pumps.extend(asyncio.create_task(pump(*pair)) for pair in ((reader, far_writer), (far_reader, writer)))

    server = await asyncio.start_server(enter, "localhost", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@pytest.mark.parametrize("secure", [True, False])
async def test_beside_http2_a_websocket_has_a_connection_of_its_own(tmp_path: Path, secure: bool) -> None:
    async def refuse_some(peer: ServerConnection, request: Request) -> Response | None:
        return peer.respond(HTTPStatus.NOT_FOUND, "no") if request.path == "/pro/no" else None

    tls, settings = None, "    http2: true"
    if secure:
        authority = Authority(tmp_path)
        tls = authority.server()
        tls.set_alpn_protocols(["h2", "http/1.1"])
        settings += f"\n    tls: {{ca: {authority.file}}}"
    SEEN.clear()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(script, "127.0.0.1", 0, process_request=refuse_some))
        upstream = await stack.enter_async_context(http2_upstream(answering))
        sockets = next(iter(server.sockets)).getsockname()[1]
        port = await stack.enter_async_context(door(sockets, upstream.port, tls))
        url = f"{'https' if secure else 'http'}://localhost:{port}"
        one = await stack.enter_async_context(
            house(tmp_path, stripe=False, upstream_url=url, upstream_settings=settings)
        )
        await one.grant("alice", "pro")
        for number in range(1, 3):
            assert (await one.get("/pro/x", token_for())).text == "ok"
            assert len(upstream.streams) == number
            async with opened(one) as client:
                await client.send("x")
                assert await client.recv() == "x"
                assert (await one.get("/pro/x", token_for())).text == "ok"
                upstream.streams.pop()
            with pytest.raises(InvalidStatus) as refused:
                async with opened(one, "/pro/no"):
                    pass
            assert refused.value.response.status_code == 404
        assert {stream.number for stream in upstream.streams} == {upstream.streams[0].number}
        target = one.process.gateway.plan.upstreams.state("api").targets[0]
        assert (target.pending, target.idle) == (0, 1)


async def test_an_upstream_that_speaks_http2_alone_can_have_no_websocket(tmp_path: Path) -> None:
    async def http2_alone(visit: Visit) -> None:
        assert (await visit.head()).startswith(b"GET /pro/ws HTTP/1.1\r\n")
        await visit.say(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + b"\0" * 7 + b"\1")  # SETTINGS, GOAWAY

    async with (
        house(tmp_path, stripe=False, script=http2_alone, upstream_settings="    http2: true") as one,
        await RawClient.connect(one.address) as client,
    ):
        await one.grant("alice", "pro")
        answer = await client.ask(offer())
        assert (answer.status, answer.one("x-gateway-reason")) == (502, "upstream_protocol_error")


async def test_another_server_is_told_to_refuse_it(tmp_path: Path) -> None:
    async with echoing(tmp_path) as (one, _):
        config = uvicorn.Config(
            one.process.gateway, ws="websockets-sansio", lifespan="off", log_config=None, host="127.0.0.1", port=0
        )
        config.load()
        stranger = uvicorn.Server(config)
        stranger.lifespan = config.lifespan_class(config)
        await stranger.startup()
        try:
            port = stranger.servers[0].sockets[0].getsockname()[1]
            headers = {"Authorization": f"Bearer {token_for()}"}
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"ws://127.0.0.1:{port}/pro/ws", additional_headers=headers, proxy=None):
                    pass
            answer = refused.value.response
            assert (answer.status_code, answer.headers["X-Gateway-Reason"]) == (400, "bad_request")
            assert answer.body is not None
            assert b"must listen by itself" in answer.body
        finally:
            for server in stranger.servers:
                server.close()
        assert SEEN == []


async def test_a_server_that_can_refuse_with_a_code_alone_is_given_that(tmp_path: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with house(tmp_path, stripe=False) as one:
        await one.process.gateway({"type": "websocket", "path": "/pro/ws", "headers": []}, receive, send)
        assert one.visit_count() == 0
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
    assert "must listen by itself" in sent[0]["reason"]
