"""Servers under measurement: started on a core of their own, asked what they have used, and ended by their own id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server and whatever processes it has started."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        core: int,
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.port, self.operator = name, port, 0
        self._said = folder / f"{name}.err"
        with (folder / f"{name}.out").open("wb") as out, self._said.open("wb") as err:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self._await_port()

    def _await_port(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self.name} did not start:\n{self._said.read_text(errors='replace')[-2000:]}")

    @property
    def pids(self) -> list[int]:
        """Its process and all below it."""
        found = [self._process.pid]
        for pid in found:
            with suppress(OSError):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    found += map(int, children.read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all of them so far."""
        total = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICK

    def resident_mib(self, *, peak: bool = False) -> float:
        """Memory now, or the most since `forget_peak`."""
        wanted = "VmHWM:" if peak else "VmRSS:"
        kib = 0
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(wanted):
                    kib += int(line.split()[1])
        return kib / 1024

    def forget_peak(self) -> None:
        """Begin anew to remember the most memory."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        """SIGTERM; SIGKILL where it doesn't end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
