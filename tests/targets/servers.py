"""nginx and Starlette as they are released, each telling what it makes of the path in a request line."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from tests.differential.run import running_nginx
from tests.support.normalisers import encoded

NGINX: Final = """\
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log crit;
events {{ worker_connections 64; }}
http {{
  access_log off;
  merge_slashes on;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  server {{
    listen 127.0.0.1:{port};
    # {upstream}
    location / {{ return 200 "$uri"; }}
  }}
}}
"""
Readings = Callable[[Sequence[str]], list[list[str]]]
"""What a server makes of each path, as it would stand in a request line; nothing where it answers with an error."""


@contextmanager
def nginx_reads(directory: Path) -> Iterator[Readings]:
    """nginx's normalised `$uri`, which is what its locations are matched against."""
    with running_nginx(directory, "no upstream", template=NGINX) as address:
        yield lambda paths: [[encoded(body)] for body in _answers(address, paths)]


@contextmanager
def starlette_reads() -> Iterator[Readings]:
    """What Starlette's routes are matched against, and what an app finds in `request.url.path`, on uvicorn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        uvicorn = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--fd", str(listener.fileno()), "--no-access-log", "--lifespan", "off",
             "--no-proxy-headers", "--log-level", "error", "tests.targets.starlette_app:app"],
            pass_fds=(listener.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield lambda paths: [_both(body) for body in _answers(address, paths)]
        finally:
            uvicorn.terminate()
            uvicorn.wait(10)


def _both(body: bytes) -> list[str]:
    scope_path, _, url_path = body.partition(b"\n")
    # url.path has escapes of its own for what would end a path, and no others: it is read both ways.
    return [encoded(scope_path), encoded(url_path), encoded(unquote(url_path))]


def _answers(address: tuple[str, int], paths: Sequence[str]) -> list[bytes]:
    """The bodies of the answers to GETs of these paths, sent at once. Each must be a 200."""
    requests = [f"GET {path} HTTP/1.1\r\nHost: gw.test\r\n\r\n".encode("ascii") for path in paths]
    bodies = []
    with socket.create_connection(address, timeout=30) as connection, connection.makefile("rb") as received:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(requests), 50):
            batch = requests[start : start + 50]
            connection.sendall(b"".join(batch))
            for request in batch:
                status = received.readline()
                assert b" 200 " in status, (status, request)
                length = 0
                while (line := received.readline()) not in {b"\r\n", b""}:
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                bodies.append(received.read(length))
    return bodies
