"""A gibibyte either way, by one caller with a plain socket: how fast, and how much memory the server takes for it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bench.compare.processes import Server

GIBIBYTE: Final = 1 << 30
_PIECE: Final = bytes(256 * 1024)


@dataclass(frozen=True, slots=True)
class Transfer:
    mib_per_second: float
    cpu_seconds: float
    grown_mib: float


def transfer(server: Server, token: str, *, up: bool) -> Transfer:
    """One gibibyte up as a body with a length, or down as an answer with one."""
    server.forget_peak()
    resident, cpu, started = server.resident_mib(), server.cpu_seconds(), time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port), 60) as caller:
        if up:
            _up(caller, token)
        else:
            _down(caller, token)
    took = time.perf_counter() - started
    return Transfer(1024 / took, server.cpu_seconds() - cpu, server.resident_mib(peak=True) - resident)


def _head(method: str, path: str, token: str, length: int = 0) -> bytes:
    fields = f"Content-Length: {length}\r\n" if length else ""
    return f"{method} /v1/r007/{path} HTTP/1.1\r\nHost: x\r\n{fields}Authorization: Bearer {token}\r\n\r\n".encode()


def _up(caller: socket.socket, token: str) -> None:
    caller.sendall(_head("POST", "take", token, GIBIBYTE))
    for _ in range(GIBIBYTE // len(_PIECE)):
        caller.sendall(_PIECE)
    answer = caller.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the answer was {answer[:100]!r}")


def _down(caller: socket.socket, token: str) -> None:
    caller.sendall(_head("GET", "big", token))
    buffer = bytearray(1 << 20)
    head = b""
    while b"\r\n\r\n" not in head:
        head += caller.recv(4096)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the answer was {head[:100]!r}")
    left = GIBIBYTE - len(head.partition(b"\r\n\r\n")[2])
    while left:
        count = caller.recv_into(buffer)
        if not count:
            raise RuntimeError(f"the answer ended {left} bytes early")
        left -= count
