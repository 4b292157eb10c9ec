"""Durations, sizes and rates as people write them in gateway.yaml: ``500ms``, ``10MiB``, ``600/min``.

A bare number is refused: whether ``5`` means seconds or milliseconds is nobody's to guess. The ValueErrors are predicates
("is not a duration; …") without the text itself, which may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from decimal import Decimal

_DURATION_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_SIZE_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_RATE_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}

# The digits are bounded: Decimal overflows at a million of them, and int() gives up at 4,300.
_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
DURATION_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)$"
"""What `parse_duration` reads, in the words of JSON Schema."""

SIZE_PATTERN = r"^[0-9]{1,15}(B|KiB|MiB|GiB|KB|MB|GB)$"
"""What `parse_size` reads, in the words of JSON Schema."""

_SIZE = re.compile(r"(\d{1,15})(B|KiB|MiB|GiB|KB|MB|GB)", re.ASCII)
_RATE = re.compile(r"(\d{1,15})/(s|sec|min|h|hour|d|day)", re.ASCII)

LONGEST_DURATION_SECONDS = 10 * 366 * 86400
"""Ten years: beyond it a duration is a slip, and timer arithmetic would overflow."""


def parse_duration(text: str) -> float:
    """Seconds in ``500ms``, ``30s``, ``5m``, ``48h`` or ``3d``. Raises ValueError with what is allowed."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a duration; write a number with ms, s, m, h or d, such as 500ms, 30s, 5m, 48h or 3d")
    seconds = Decimal(match[1]) * _DURATION_SECONDS[match[2]]
    if seconds > LONGEST_DURATION_SECONDS:
        raise ValueError("is longer than ten years")
    return float(seconds)


def parse_size(text: str) -> int:
    """Bytes in ``512B``, ``64KiB``, ``10MiB`` or ``1GiB``. Raises ValueError with what is allowed."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a size; write a whole number with B, KiB, MiB or GiB, such as 64KiB or 10MiB")
    return int(match[1]) * _SIZE_BYTES[match[2]]


def parse_rate(text: str) -> tuple[int, int]:
    """``(count, seconds)`` of ``600/min``. Raises ValueError with what is allowed."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a rate; write a whole number per s, min, h or d, such as 600/min")
    return int(match[1]), _RATE_SECONDS[match[2]]


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads back to the same value."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_BYTES[unit] == 0:
            return f"{size // _SIZE_BYTES[unit]}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back to the same value, to the millisecond."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return "0s" if not milliseconds else f"{milliseconds}ms"
