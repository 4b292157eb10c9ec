"""Moments as people write them: ``2026-12-01``, its first second in UTC, or ``2026-12-01T18:00Z``.

A time without a zone is UTC, like every time here. The ValueError is a predicate without the text itself, which may be
a secret in the wrong place.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

MOMENT_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""How what `parse_moment` reads begins, in the words of JSON Schema."""

_LONGEST: Final = 40


def parse_moment(text: str) -> int:
    """UTC seconds. Raises ValueError with what is allowed."""
    try:
        if len(text) > _LONGEST:
            raise ValueError
        moment = datetime.fromisoformat(text.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise ValueError("is not a time; write a date or a UTC time, such as 2026-12-01 or 2026-12-01T18:00Z") from None


def format_moment(at: float) -> str:
    """``2026-12-01 18:00:00 UTC``, which `parse_moment` need not read; for people."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "beyond the year 9999"
