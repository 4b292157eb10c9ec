"""Load, bounded in count or time: wrk where it is installed, else a generator of our own.

The own one serves wherever requests differ from each other. It sends the next request when the answer to the last one
is whole, on each of its connections.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httptools
import uvloop

if TYPE_CHECKING:
    from bench.compare.processes import Server

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
PATH: Final = "/v1/r007/items/42?page=3"
"""Below one of the routes that every peer has."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run against one server."""

    requests: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """User and system time of the server per request."""
        return self.cpu_seconds * 1e6 / self.requests


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def run(server: Server, token: str, *, connections: int, seconds: float, body: int = 0, vary: bool = False) -> Measured:
    """The same request again and again; with `vary`, each has a field that no other one has."""
    if has_wrk():
        return _wrk(server, token, connections, seconds, body, vary=vary)
    request = request_bytes(token, body)

    def endless() -> Iterator[bytes]:
        for number in count():
            yield request.replace(b"\r\n\r\n", b"\r\nX-Trace: %d\r\n\r\n" % number, 1) if vary else request

    return generate(server, endless(), connections=connections, seconds=seconds)


def request_bytes(token: str, body: int = 0) -> bytes:
    method = "POST" if body else "GET"
    length = f"Content-Length: {body}\r\n" if body else ""
    head = f"{method} {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}Authorization: Bearer {token}\r\n\r\n"
    return head.encode() + b"x" * body


def _wrk(server: Server, token: str, connections: int, seconds: float, body: int, *, vary: bool) -> Measured:
    url = f"http://127.0.0.1:{server.port}{PATH}"
    settings = {"BENCH_METHOD": "POST" if body else "GET", "BENCH_TOKEN": token, "BENCH_BODY": str(body)}
    if vary:
        settings["BENCH_VARY"] = "yes"
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}",
        "--timeout",
        "10",
        "-s",
        str(_SCRIPT),
        url,
    ]
    before, started = server.cpu_seconds(), time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    took, after = time.perf_counter() - started, server.cpu_seconds()
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if result is None:
        raise RuntimeError(f"wrk said nothing of its result:\n{done.stdout}\n{done.stderr}")
    requests, broken, refused, p50, p99 = map(int, result.split()[1:])
    if refused or broken > connections or not requests:
        raise RuntimeError(f"{server.name}: {refused} of {requests} answers were errors, {broken} connections broke")
    return Measured(requests, took, after - before, p50 / 1000, p99 / 1000)


def generate(server: Server, requests: Iterator[bytes], *, connections: int, seconds: float = 120) -> Measured:
    """Each of these requests once; until they end, or time does."""
    return uvloop.run(_generate(server, requests, connections, seconds))


async def _generate(server: Server, requests: Iterator[bytes], connections: int, seconds: float) -> Measured:
    loop = asyncio.get_running_loop()
    shared = _Shared(requests, time.perf_counter() + seconds)
    opened = [
        (await loop.create_connection(lambda: _Caller(shared), "127.0.0.1", server.port))[1] for _ in range(connections)
    ]
    before, started = server.cpu_seconds(), time.perf_counter()
    for caller in opened:
        caller.next()
    await asyncio.gather(*(caller.over for caller in opened))
    took, after = time.perf_counter() - started, server.cpu_seconds()
    times = sorted(shared.times)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return Measured(len(times), took, after - before, p50 * 1000, p99 * 1000)


class _Shared:
    def __init__(self, requests: Iterator[bytes], ends_at: float) -> None:
        self.requests, self.ends_at = requests, ends_at
        self.times: list[float] = []


class _Caller(asyncio.Protocol):
    def __init__(self, shared: _Shared) -> None:
        self.shared = shared
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.began_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or ConnectionError("the connection ended"))

    def next(self) -> None:
        now = time.perf_counter()
        request = next(self.shared.requests, None) if now < self.shared.ends_at else None
        if request is None:
            self.over.set_result(None)
            self.transport.close()
            return
        self.began_at = now
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status != 200:
            self.over.set_exception(RuntimeError(f"an answer was {status}"))
            self.transport.close()
            return
        self.shared.times.append(time.perf_counter() - self.began_at)
        # Not from within the parser, which a next request replaces.
        asyncio.get_running_loop().call_soon(self.next)
