"""A file as mappings, lists and scalars that know where they stand. What a scalar means is the schema's to say.

The nodes can be changed, because substitution fills them and what is broken is cut out; nothing outside the reading of
one file ever holds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from policies.diagnostics import Mark

START: Final = Mark(1, 1)
_NOTHING: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(slots=True)
class Scalar:
    """One value. `written` is what stands in the file; `value` what it gives, None once that is known to be broken.

    `is_plain`: without quotes, so that a number or true/false may be meant. `is_substituted`: `value` holds something
    that isn't in the file and must not be shown.
    """

    mark: Mark
    written: str
    value: str | None
    is_plain: bool
    is_substituted: bool = False


@dataclass(slots=True)
class Sequence:
    """A list."""

    mark: Mark
    items: list[Node] = field(default_factory=list)
    lost_items: bool = False


@dataclass(slots=True)
class Mapping:
    """Keys with their values. `lost_keys` were there and are broken."""

    mark: Mark
    values: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)
    lost_keys: set[str] = field(default_factory=set)


Node = Scalar | Sequence | Mapping


def says_nothing(scalar: Scalar) -> bool:
    """Whether nothing, or a null, stands where a value belongs."""
    return scalar.is_plain and not scalar.is_substituted and scalar.written in _NOTHING
