"""What is held open: event streams, WebSockets, and connections that do nothing."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from bench.compare.load import request_bytes
from bench.compare.upstream import EVENT

if TYPE_CHECKING:
    from bench.compare.processes import Server

_AT_ONCE: Final = 100
_PAYLOAD: Final = 64


@dataclass(frozen=True, slots=True)
class Held:
    """`things` are events, messages or connections."""

    things: int
    per_second: float
    cpu_us: float
    kib_each: float


def events(server: Server, token: str, *, streams: int, seconds: float) -> Held:
    """So many streams, each with an event a second."""
    return uvloop.run(_events(server, token, streams, seconds))


def echo(server: Server, token: str, *, connections: int, seconds: float) -> Held | None:
    """Messages there and back on so many WebSockets; None where none is served."""
    return uvloop.run(_echo(server, token, connections, seconds))


def idle(server: Server, token: str, *, connections: int) -> Held:
    """So many connections kept alive after one request each."""
    return uvloop.run(_idle(server, token, connections))


class _Caller(asyncio.Protocol):
    """Sends one request and counts what comes."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = 0
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if not self.answered.done():
            self.answered.set_result(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_result(b"")


async def _open(server: Server, requests: list[bytes]) -> list[_Caller]:
    loop = asyncio.get_running_loop()
    callers: list[_Caller] = []
    for start in range(0, len(requests), _AT_ONCE):
        some = [
            (await loop.create_connection(lambda request=request: _Caller(request), "127.0.0.1", server.port))[1]
            for request in requests[start : start + _AT_ONCE]
        ]
        answers = await asyncio.gather(*(caller.answered for caller in some))
        if not all(answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")) for answer in answers):
            for caller in (*callers, *some):
                caller.transport.abort()
            return []
        callers += some
    return callers


def _request(path: str, token: str, more: str = "") -> bytes:
    return f"GET /v1/r007/{path} HTTP/1.1\r\nHost: x\r\n{more}Authorization: Bearer {token}\r\n\r\n".encode()


async def _events(server: Server, token: str, streams: int, seconds: float) -> Held:
    resident = server.resident_mib()
    callers = await _open(server, [_request("events", token)] * streams)
    if not callers:
        raise RuntimeError(f"{server.name} serves no event streams")
    await asyncio.sleep(2)
    before, cpu, started = sum(one.received for one in callers), server.cpu_seconds(), time.perf_counter()
    await asyncio.sleep(seconds)
    cpu, took = server.cpu_seconds() - cpu, time.perf_counter() - started
    # A chunk's length and line breaks come with each event.
    count = (sum(one.received for one in callers) - before) // (len(EVENT) + 6)
    grown = server.resident_mib() - resident
    for caller in callers:
        caller.transport.abort()
    return Held(count, count / took, cpu * 1e6 / max(1, count), grown * 1024 / streams)


async def _idle(server: Server, token: str, connections: int) -> Held:
    resident = server.resident_mib()
    callers = await _open(server, [request_bytes(token)] * connections)
    if not callers:
        raise RuntimeError(f"{server.name} did not take {connections} connections")
    grown = server.resident_mib() - resident
    cpu, started = server.cpu_seconds(), time.perf_counter()
    await asyncio.sleep(5)
    cpu, took = server.cpu_seconds() - cpu, time.perf_counter() - started
    for caller in callers:
        caller.transport.abort()
    return Held(connections, 0, cpu * 1e6 / took, grown * 1024 / connections)


class _Echo(_Caller):
    """Sends the next message when the last has come back."""

    def begin(self, frame: bytes, expected: int, ends_at: float) -> asyncio.Future[int]:
        self.frame, self.expected, self.ends_at = frame, expected, ends_at
        self.count = self.received = 0
        self.over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.transport.write(frame)
        return self.over

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not hasattr(self, "over") or self.received < self.expected:
            return
        self.received = 0
        self.count += 1
        if time.perf_counter() < self.ends_at:
            self.transport.write(self.frame)
        elif not self.over.done():
            self.over.set_result(self.count)


async def _echo(server: Server, token: str, connections: int, seconds: float) -> Held | None:
    key = base64.b64encode(os.urandom(16)).decode()
    more = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    loop = asyncio.get_running_loop()
    resident = server.resident_mib()
    callers: list[_Echo] = []
    for _ in range(connections):
        _, caller = await loop.create_connection(lambda: _Echo(_request("echo", token, more)), "127.0.0.1", server.port)
        callers.append(caller)
    answers = await asyncio.gather(*(caller.answered for caller in callers))
    if not all(answer.startswith(b"HTTP/1.1 101") for answer in answers):
        for caller in callers:
            caller.transport.abort()
        return None
    grown = server.resident_mib() - resident
    frame = bytes((0x82, 0x80 | _PAYLOAD)) + bytes(4) + b"x" * _PAYLOAD  # a mask of zeros leaves it as it is
    cpu, started = server.cpu_seconds(), time.perf_counter()
    ends_at = started + seconds
    counts = await asyncio.wait_for(
        asyncio.gather(*(one.begin(frame, 2 + _PAYLOAD, ends_at) for one in callers)), seconds + 30
    )
    cpu, took = server.cpu_seconds() - cpu, time.perf_counter() - started
    for caller in callers:
        caller.transport.abort()
    return Held(sum(counts), sum(counts) / took, cpu * 1e6 / sum(counts), grown * 1024 / connections)
