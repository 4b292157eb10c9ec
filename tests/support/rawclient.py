"""A caller that says exactly the bytes it is told to, and shows exactly the bytes it gets."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer as it came. `whole` is False where the connection ended before the body did."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool
    head: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else None


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: tuple[str, int], *, receive_buffer: int | None = None) -> RawClient:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, address)
        return cls(
            *await asyncio.open_connection(sock=sock, limit=1 << 16 if receive_buffer is None else receive_buffer)
        )

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, data: bytes, *, to_head: bool = False) -> RawAnswer:
        await self.send(data)
        return await self.answer(to_head=to_head)

    async def head(self) -> tuple[int, list[tuple[str, str]], bytes]:
        head = await self._within(self.reader.readuntil(b"\r\n\r\n"))
        lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return int(lines[0].split()[1]), headers, head

    async def answer(self, *, to_head: bool = False) -> RawAnswer:
        """The next answer, read as RFC 9112, section 6.3 says."""
        status, headers, head = await self.head()
        named = {name.lower(): value for name, value in headers}
        body, whole = b"", True
        if to_head or status in (204, 304) or 100 <= status < 200:
            pass
        elif named.get("transfer-encoding") == "chunked":
            body, whole = await self._chunks()
        elif "content-length" in named:
            try:
                body = await self._within(self.reader.readexactly(int(named["content-length"])))
            except asyncio.IncompleteReadError as error:
                body, whole = error.partial, False
        else:
            try:
                body = await self._within(self.reader.read())
            except ConnectionResetError:
                whole = False
        return RawAnswer(status, headers, body, whole, head)

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while True:
                size = int((await self._within(self.reader.readuntil(b"\r\n"))).strip(), 16)
                data = await self._within(self.reader.readexactly(size + 2))
                assert data.endswith(b"\r\n")
                if size == 0:
                    return body, True
                body += data[:-2]
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return body, False

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        try:
            return await self._within(self.reader.read())
        except ConnectionResetError:
            return b""

    def reset(self) -> None:
        """Leave at once, with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionResetError, BrokenPipeError):
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @staticmethod
    async def _within(awaitable: Awaitable[T]) -> T:
        return await asyncio.wait_for(awaitable, 30)
