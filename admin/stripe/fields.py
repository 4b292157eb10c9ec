"""Reads one field of Stripe's JSON with the type we rely on.

It decides what counts as an id, a time and an amount. It must never let through what a database, a header or a log line
could choke on: everything here came over a network, signed or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Json: TypeAlias = Mapping[str, object]

LATEST_TIME: Final = 253_402_300_799
"""The end of the year 9999: beyond it `datetime` gives up, and no period of Stripe's lies there."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_.:/\-]{1,255}", re.ASCII)


class UnreadableError(Exception):
    """A field isn't what Stripe documents. Never leaves this package: readers turn it into `Malformed`."""


def mapping(value: object, what: str) -> Json:
    """`value` as an object, or UnreadableError."""
    if isinstance(value, Mapping):
        return value
    raise UnreadableError(f"{what} is not an object")


def child(source: Json, key: str) -> Json:
    """The object under `key`; an empty one when it is absent, null or of another kind."""
    value = source.get(key)
    return value if isinstance(value, Mapping) else {}


def entries(source: Json, key: str) -> Sequence[object]:
    """The array under `key`; empty when it is absent or of another kind."""
    value = source.get(key)
    return value if isinstance(value, list | tuple) else ()


def identifier(value: object) -> str | None:
    """`value` when it can be an id, a type or a version of Stripe's: short, plain ASCII, no blank. Else None."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def required_id(source: Json, key: str, what: str) -> str:
    """The id under `key`, or UnreadableError."""
    found = identifier(source.get(key))
    if found is None:
        raise UnreadableError(f"{what} has no usable {key!r}")
    return found


def reference(value: object) -> str | None:
    """The id in a reference, which Stripe sends as an id or, expanded, as the object itself."""
    return identifier(value.get("id")) if isinstance(value, Mapping) else identifier(value)


def merchant_id(value: object) -> str | None:
    """As `reference`, for the ids that merchants choose: those of plans and products may hold a blank or an umlaut."""
    chosen = value.get("id") if isinstance(value, Mapping) else value
    return text({"id": chosen}, "id", 255)


def text(source: Json, key: str, longest: int = 2048) -> str | None:
    """The printable text under `key`, or None. Lone surrogates and NUL would break both databases."""
    value = source.get(key)
    if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable():
        return value
    return None


def moment(source: Json, key: str, what: str) -> int | None:
    """The UTC second under `key`; None when absent or null, UnreadableError when it is anything but a time."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LATEST_TIME:
        raise UnreadableError(f"{what} has a {key!r} that is not a time")
    return value


def whole(source: Json, key: str) -> int | None:
    """The whole number under `key` within 63 bits, or None."""
    value = source.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return value
    return None
