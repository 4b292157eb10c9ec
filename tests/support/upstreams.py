"""Upstreams that follow a script over raw sockets, and keep every byte they were sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable


class Visit:
    """One request to the upstream, or a connection without any: what came, and how the connection ended.

    `connection` counts the connections, so that visits with the same number came through the same one.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        connection: int,
        closed: asyncio.Event,
        received: bytes = b"",
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = connection
        self.received = received
        self.closed = closed

    async def read(self, count: int = 65536) -> bytes:
        """The next bytes; empty at the end. A reset counts as the end."""
        try:
            data = await self.reader.read(count)
        except ConnectionResetError:
            data = b""
        self.received += data
        if not data:
            self.closed.set()
        return data

    async def head(self) -> bytes:
        """The request's head, with the blank line."""
        while b"\r\n\r\n" not in self.received:
            if not await self.read():
                break
        return self.received.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    async def request(self) -> bytes:
        """The whole request; its body begins after the first blank line."""
        head = (await self.head()).lower()
        while not self._complete(head):
            if not await self.read():
                break
        return self.received

    async def next(self) -> Visit | None:
        """The next request of this connection, once it begins; None where the connection ends."""
        while b"\r\n\r\n" not in self.received or not self._complete((await self.head()).lower()):
            if not await self.read():
                return None
        whole = self.received
        data = await self.read()
        self.received = whole
        if not data:
            return None
        return Visit(self.reader, self.writer, connection=self.connection, closed=self.closed, received=data)

    async def say(self, data: bytes) -> None:
        if self.writer.transport.is_closing():  # where uvloop raises a RuntimeError
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Die at once, with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def _complete(self, head: bytes) -> bool:
        body = self.received[len(head) :]
        if b"\r\ntransfer-encoding: chunked\r\n" in head:
            return body.endswith(b"0\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return len(body) >= int(line.partition(b":")[2])
        return True

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]


class ScriptedUpstream:
    """Runs the script for each request, on the connection it comes on, until either side closes that."""

    def __init__(self, script: Callable[[Visit], Awaitable[None]]) -> None:
        self.script = script
        self.visits: list[Visit] = []
        self.connections = 0
        self.address = ("127.0.0.1", 0)
        self._arrived = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    async def visit(self, number: int = 0) -> Visit:
        """The visit of this number, once it is there."""
        async with self._arrived:
            await asyncio.wait_for(self._arrived.wait_for(lambda: len(self.visits) > number), 10)
        return self.visits[number]

    def arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def end(self) -> None:
        """Drop every connection; what a script raised is raised here."""
        for visit in self.visits:
            visit.writer.transport.abort()
        _, still_running = await asyncio.wait(self._tasks, timeout=2) if self._tasks else (set(), set())
        for task in still_running:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        visit: Visit | None = Visit(reader, writer, connection=self.connections, closed=asyncio.Event())
        assert visit is not None
        closed = visit.closed
        try:
            while visit is not None:
                async with self._arrived:
                    self.visits.append(visit)
                    self._arrived.notify_all()
                await self.script(visit)
                visit = None if writer.is_closing() else await visit.next()
        except (ConnectionResetError, BrokenPipeError):
            return
        finally:
            closed.set()
            writer.close()


@contextlib.asynccontextmanager
async def scripted_upstream(
    script: Callable[[Visit], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedUpstream]:
    """An upstream on a free port for the length of the block."""
    upstream = ScriptedUpstream(script)
    server = await asyncio.start_server(upstream.arrive, "127.0.0.1", 0, ssl=tls, backlog=1024)
    upstream.address = server.sockets[0].getsockname()[:2]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.end()


def saying(answer: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Reads the whole request, then says these bytes."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.say(answer)

    return script
