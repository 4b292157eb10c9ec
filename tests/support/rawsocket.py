"""One request as bytes over a socket, without an event loop: for attacks that no HTTP library would send."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Raw:
    """What came back, to the last byte; the parsed parts are those of the final answer."""

    all_bytes: bytes

    @property
    def final(self) -> bytes:
        rest = self.all_bytes
        while rest.startswith(b"HTTP/1.1 1"):
            rest = rest.partition(b"\r\n\r\n")[2]
        return rest

    @property
    def status(self) -> int:
        return int(self.final.split(b" ", 2)[1]) if self.final else 0

    @property
    def fields(self) -> list[tuple[str, str]]:
        head = self.final.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head)]

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    @property
    def body(self) -> bytes:
        return self.final.partition(b"\r\n\r\n")[2]


def lines(*request: str) -> bytes:
    """These lines, and the blank one that ends a head."""
    return "\r\n".join([*request, "", ""]).encode("latin-1")


def ask(address: tuple[str, int], request: bytes, leave_after: float | None = None) -> Raw:
    """Send it and read one answer, or leave without one after so many seconds."""
    bodiless = request.startswith(b"HEAD ")
    received = b""
    with socket.create_connection(address, timeout=leave_after or PATIENCE_SECONDS) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        while not _whole(received, bodiless=bodiless):
            try:
                data = connection.recv(65536)
            except TimeoutError:
                if leave_after is None:
                    raise
                break
            except ConnectionError:
                break
            if not data:
                break
            received += data
    return Raw(received)


def _whole(received: bytes, *, bodiless: bool) -> bool:
    final = Raw(received).final
    head, end, body = final.partition(b"\r\n\r\n")
    if not end:
        return False
    if bodiless or head[9:12] in {b"204", b"304"}:
        return True
    length = _LENGTH.search(head)
    return length is not None and len(body) >= int(length[1])
