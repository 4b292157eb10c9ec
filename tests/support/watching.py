"""What a running process costs, as the kernel tells it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def resident_bytes(process: int) -> int:
    """How much memory a process holds; skips where that can't be read."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        pytest.skip("there is no /proc to read the memory of a process from")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
