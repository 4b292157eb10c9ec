"""JSON that can be read in one way only.

It decides what counts as a JSON object in a token, a key or a key set. It must never pick one of two readings: Python's
parser lets the last of two equal names win, so a second `sub` would change whose token it is (RFC 8725, section 2.4;
RFC 7519, section 4), and it accepts NaN and UTF-16, which other readers of the same token don't.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from gateway.credentials.outcomes import Flaw


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
        found = _decoder.decode(data.decode("utf-8"))
    except _AmbiguousError as problem:
        return Flaw(str(problem))
    except RecursionError:
        return Flaw("is nested too deeply")
    except ValueError:  # not UTF-8, not JSON, or an integer of thousands of digits
        return Flaw("is not JSON")
    return found if isinstance(found, dict) else Flaw("is not a JSON object")
