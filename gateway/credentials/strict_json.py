"""JSON that can be read in one way only.

It decides what counts as a JSON object in a token, a key or a key set. It must never pick one of two readings: Python's
parser lets the last of two equal names win, so a second `sub` would change whose token it is (RFC 8725, section 2.4;
RFC 7519, section 4), and it accepts NaN and UTF-16, which other readers of the same token don't.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from gateway.credentials.outcomes import Flaw

_MOST_NESTED: Final = 100
"""Levels. A bound of our own: what the parser itself bears is another number in every version of Python."""
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|([\[{])|([\]}])', re.DOTALL)


class _AmbiguousError(ValueError):
    """Raised inside the parser's hooks, and never leaves this module."""


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _AmbiguousError("names a member twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _AmbiguousError(f"holds {name}, which is no JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_object_of, parse_constant=_refuse_constant)


def parse_object(data: bytes) -> dict[str, Any] | Flaw:
    """The object in `data`: UTF-8 without a byte order mark, no name twice at any depth, nothing around it but blanks."""
    try:
        text = data.decode("utf-8")
        if _is_too_deep(text):
            return Flaw("is nested too deeply")
        found = _decoder.decode(text)
    except _AmbiguousError as problem:
        return Flaw(str(problem))
    except RecursionError:
        return Flaw("is nested too deeply")
    except ValueError:  # not UTF-8, not JSON, or an integer of thousands of digits
        return Flaw("is not JSON")
    return found if isinstance(found, dict) else Flaw("is not a JSON object")


def _is_too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= _MOST_NESTED:
        return False
    depth = 0
    for mark in _BRACKETS.finditer(text):
        depth += (mark[1] is not None) - (mark[2] is not None)
        if depth > _MOST_NESTED:
            return True
    return False
