"""What a supervisor and its workers say to each other, over a pair of sockets that no other process holds.

A frame is its length in four bytes and a JSON object. That a channel ends is a message as well, and the only one that
can't be lost: to a worker, that its supervisor is gone; to the supervisor, that the worker is.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.loading import Source

Frame = dict[str, Any]


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """The end that this socket is."""
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock))

    async def receive(self) -> Frame | None:
        """The next frame; None when the other end is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4))
            frame: Frame = json.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return frame

    def send(self, frame: Frame) -> None:
        """Say it. To nobody, where the other end is gone: `receive` tells."""
        text = json.dumps(frame).encode()
        self._writer.write(len(text).to_bytes(4) + text)

    async def aclose(self) -> None:
        """Say what is still to be said, and no more."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


def source_as_frame(source: Source) -> Frame:
    """A configuration for a worker to load as it was read here."""
    text = base64.b64encode(source.text).decode()
    return {"path": str(source.path), "text": text, "files": dict(source.files)}


def source_of(frame: Frame) -> Source:
    """The inverse."""
    return Source(Path(frame["path"]), base64.b64decode(frame["text"]), frame["files"])


class Turn:
    """A lock between processes that hold the same file; the system takes it from one that dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
