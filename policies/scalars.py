"""What an unquoted word of gateway.yaml stands for where the schema wants a number or true/false.

Only ``true``, ``false`` and plain decimal numbers are read as such, and only there. ``no``, ``on``, ``0o17`` and
``1_000`` are refused with what was read. A ValueError raised here is a predicate ("is not a whole number"): it must not
repeat the value, which may be a secret that landed in the wrong place.
"""

from __future__ import annotations

import re
from typing import Final

_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLAGS: Final = {"true": True, "false": False}
_LIKE_FLAGS: Final = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


class Plain(str):
    """A scalar that stands in the file without quotes."""

    __slots__ = ()


def read_whole(value: object) -> object:
    """A whole number from its plain spelling; anything that isn't text is left to the schema."""
    if not isinstance(value, str):
        return value
    if not isinstance(value, Plain):
        raise ValueError("is text, because it stands in quotes; write the number without them")  # noqa: TRY004 - pydantic reads ValueError
    if not _WHOLE.fullmatch(value):
        raise ValueError("is not a whole number")
    return int(value)


def read_flag(value: object) -> object:
    """True or false from their plain spelling; anything that isn't text is left to the schema."""
    if not isinstance(value, str):
        return value
    if not isinstance(value, Plain):
        raise ValueError("is text, because it stands in quotes; write true or false without them")  # noqa: TRY004
    if value not in _FLAGS:
        like = "is read as text" if value.lower() in _LIKE_FLAGS else "is neither true nor false"
        raise ValueError(f"{like}; write true or false")
    return _FLAGS[value]
