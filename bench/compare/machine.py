"""On what it was measured: enough to read the numbers by, and nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.compare.load import has_wrk
from bench.compare.peers import caddy_binary, envoy_binary, nginx_binary


def description() -> str:
    """The machine in a sentence."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    gib = int(memory[1]) / 1048576 if memory else 0
    kernel = ".".join(re.findall(r"\d+", platform.release())[:2])
    return f"{os.cpu_count()} cores ({cpu[1] if cpu else 'not told'}), {gib:.0f} GiB of memory, Linux {kernel}"


def load() -> str:
    """How busy it is."""
    return f"{os.getloadavg()[0]:.1f}"


def versions(gateway_python: str) -> str:
    """Of everybody who took part."""
    ask = "import sys; from importlib.metadata import version as v; print(sys.version.split()[0], v('uvloop'), v('httptools'), v('uvicorn'))"
    python, uvloop, httptools, uvicorn = _said(gateway_python, "-c", ask).split()
    found = [f"this gateway on Python {python}, uvloop {uvloop}, httptools {httptools}, uvicorn {uvicorn}"]
    found.append("Envoy " + _numbers(_said(envoy_binary(), "--version")))
    found.append("Caddy " + _numbers(_said(caddy_binary(), "version")))
    found.append(f"FastAPI {version('fastapi')} with httpx {version('httpx')} on uvicorn {version('uvicorn')}")
    if (nginx := nginx_binary()) is not None:
        found.append("nginx " + _numbers(_said(nginx, "-v")))
    if has_wrk():
        found.append("wrk " + _numbers(_said("wrk", "-v")))
    return ", ".join(found)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _numbers(text: str) -> str:
    found = re.search(r"(?<![0-9a-f])\d+\.\d+\.\d+", text)
    return found[0] if found else "unknown"
