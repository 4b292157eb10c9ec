"""Gateways in front of a WebSocket server that nobody here wrote, its clients, and frames as raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.upstream.opening import accept_of
from tests.support.house import house, token_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.upstream.relay import Relay
    from tests.support.house import House

KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="


async def script(peer: ServerConnection) -> None:
    """Echoes; a few words make it do something else."""
    try:
        async for message in peer:
            if message == "close":
                await peer.close(4001, "bye")
            elif message == "abort":
                peer.transport.abort()
            elif message == "fragments":
                await peer.send(["a", "b", "", "c"])
            else:
                await peer.send(message)
    except ConnectionClosed:
        return
    finally:
        SEEN.append((peer.close_code, peer.close_reason))


async def eventually(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110 -- of other parties' state, which sets no event
            await asyncio.sleep(0.02)


SEEN: list[tuple[int | None, str | None]] = []


@contextlib.asynccontextmanager
async def echoing(directory: Path, **options: Any) -> AsyncIterator[tuple[House, Server]]:
    SEEN.clear()
    sections = {
        name: options.pop(name)
        for name in ("upstream_settings", "server", "auth", "routes", "default")
        if name in options
    }
    scheme = "https" if "ssl" in options else "http"
    async with (
        serve(
            script, "127.0.0.1", 0, subprotocols=options.pop("subprotocols", None), max_size=4 << 20, **options
        ) as server,
        house(
            directory,
            stripe=False,
            upstream_url=f"{scheme}://localhost:{next(iter(server.sockets)).getsockname()[1]}",
            **sections,
        ) as one,
    ):
        await one.grant("alice", "pro")
        yield one, server


def opened(one: House, path: str = "/pro/ws", token: str | None = "", **options: Any) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token or token_for()}"}
    headers |= options.pop("headers", {})
    return connect(
        one.api.replace("http", "ws") + path, additional_headers=headers, proxy=None, max_size=4 << 20, **options
    )


def offer(path: str = "/pro/ws", *, version: str = "13", token: str | None = None, more: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {KEY.decode()}\r\nSec-WebSocket-Version: {version}\r\n"
        f"Authorization: Bearer {token or token_for()}\r\n{more}\r\n"
    ).encode()


def frame(first: int, payload: bytes, *, masked: bool = True) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2)
    mask = b"\1\2\3\4"
    if not masked:
        return bytes((first,)) + length + payload
    covered = bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))
    return bytes((first, length[0] | 0x80)) + length[1:] + mask + covered


AGREED: Final = b"Sec-WebSocket-Accept: " + accept_of(KEY) + b"\r\n"
SWITCH: Final = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"


async def relay_of(one: House) -> Relay:
    """What joins the two, once the registry has it in its hands."""
    streams = one.process.gateway.streams
    await eventually(lambda: any(known.open for known in streams._customers.values()))
    (under_way,) = (one for known in streams._customers.values() for one in known.open)
    close: Any = under_way._close  # type: ignore[attr-defined]
    found: Relay = close.__self__
    return found
