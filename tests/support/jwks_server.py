"""An issuer on 127.0.0.1 that serves discovery and keys, counts visits, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Page:
    """What is answered at one path. `delay` comes before the head, `drip` between the bytes of the body."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    drip: float = 0


class JwksServer:
    """Pages by path; an unknown path is 404. `gate`, while cleared, holds every answer back."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.visits: Counter[str] = Counter()
        self.request_heads: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.origin}/jwks"

    def serve_keys(self, *jwks: dict[str, Any], **page: Any) -> None:
        """Offer exactly these keys from now on."""
        self.pages["/jwks"] = Page(json.dumps({"keys": list(jwks)}).encode(), **page)

    def serve_discovery(self, issuer: str, jwks_uri: str | None = None) -> None:
        document = {"issuer": issuer, "jwks_uri": jwks_uri or self.jwks_url}
        self.pages["/.well-known/openid-configuration"] = Page(json.dumps(document).encode())

    async def open(self) -> None:
        """Listen; at the same port when it was open before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Be gone: connections are refused."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split(b" ", 2)[1].decode()
        self.visits[path] += 1
        self.request_heads.append(head)
        await self.gate.wait()
        page = self.pages.get(path, Page(status=404))
        await asyncio.sleep(page.delay)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(page.body)), **page.headers}
        lines = [f"HTTP/1.1 {page.status} Any", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        if page.drip:
            for byte in page.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(page.drip)
        else:
            writer.write(page.body)
        await writer.drain()


@contextlib.asynccontextmanager
async def jwks_server() -> AsyncIterator[JwksServer]:
    """A server that is open for the length of the block."""
    server = JwksServer()
    await server.open()
    try:
        yield server
    finally:
        await server.close()
