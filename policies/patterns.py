"""The paths and hosts that routes name: literal segments, `{name}`, a final `/**`; and `api.example.com`.

It decides which patterns mean one thing and how specific each is. It must never guess: what looks like another
router's syntax (`:id`, `*`, a regular expression) is a mistake to report, not a literal to match for ever in vain.
Literals are written as people read them, `/a b` and not `/a%20b`, and hosts without their port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from urllib.parse import quote

from policies.spelling import Ambiguous, furthest_reading

MOST_SEGMENTS: Final = 64
"""Deeper patterns are slips; and matching descends one call per segment of a pattern."""

RESERVED: Final = "_gateway"
"""The first segment of the gateway's own paths, which are never forwarded (docs/design.md, section 4)."""

_PARAMETER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
_IPV6: Final = re.compile(r"\[[0-9a-f:.]{2,45}\]")
_HOST_AND_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]{0,5})?")
_FOREIGN: Final = {
    "*": "holds '*'; write {name} for one segment, or end in '/**' for everything below",
    "{": "holds '{' that is not a whole segment such as {id}",
    "}": "holds '}' that is not a whole segment such as {id}",
    "%": "holds an escape; write the character itself",
    "?": "holds '?'; the query is no part of a path",
    "#": "holds '#', which no path can hold",
    ";": "holds ';'; path parameters can't be matched",
}


class Kind(IntEnum):
    """What stands at one position; the lower is the more specific."""

    LITERAL = 0
    PARAMETER = 1
    BELOW = 2


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parsed path. A parameter is None in `segments`; `has_below` is the final `/**`, which is no segment."""

    segments: tuple[str | None, ...]
    has_below: bool
    has_trailing_slash: bool

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Compared as tuples, position by position: of two patterns that match one path the lesser is the more specific."""
        kinds = tuple(Kind.PARAMETER if segment is None else Kind.LITERAL for segment in self.segments)
        return (*kinds, Kind.BELOW) if self.has_below else kinds

    def sample(self) -> bytes:
        """A target that the pattern matches in its exact spelling."""
        segments = ["~" if segment is None else quote(segment) for segment in self.segments]
        return "/".join(("", *segments, *(("",) if self.has_trailing_slash or not segments else ()))).encode("ascii")


def parse_pattern(text: str) -> Pattern | str:
    """The pattern, or what is wrong with it."""
    if not text.startswith("/"):
        return "does not begin with '/'"
    if text == "/":
        return Pattern((), has_below=False, has_trailing_slash=True)
    pieces = text[1:].split("/")
    has_below = pieces[-1] == "**"
    has_trailing_slash = pieces[-1] == ""
    if has_below or has_trailing_slash:
        pieces = pieces[:-1]
    if len(pieces) > MOST_SEGMENTS:
        return f"has more than {MOST_SEGMENTS} segments"
    if pieces and pieces[0].lower() == RESERVED:
        return f"begins with '/{RESERVED}', which is the gateway's own"
    segments: list[str | None] = []
    names: set[str] = set()
    for piece in pieces:
        if _PARAMETER.fullmatch(piece):
            if piece in names:
                return f"names {piece} twice"
            names.add(piece)
            segments.append(None)
            continue
        problem = _literal_problem(piece)
        if problem is not None:
            return problem
        segments.append(piece)
    return Pattern(tuple(segments), has_below, has_trailing_slash)


def _literal_problem(piece: str) -> str | None:
    if not piece:
        return "has an empty segment ('//')"
    if piece == "**":
        return "has '**' before its end; only a final '/**' is possible"
    if piece.startswith(":"):
        return f"holds {piece!r}; a parameter is written {{{piece[1:] or 'name'}}}"
    for sign, problem in _FOREIGN.items():
        if sign in piece:
            return problem
    if not piece.isprintable():
        return "holds a character that can't be printed"
    if isinstance(furthest_reading(piece), Ambiguous):
        return f"holds {piece!r}, which no request can: such paths are refused as bad_path"
    return None


def host_of(header: str) -> str | None:
    """The host in a `Host` field: lower case, without port and without the root's dot; None when it is no host.

    What follows a host's name (`a/free?`) is never cut away: CVE-2026-48710 took a path out of it.
    """
    parts = _HOST_AND_PORT.fullmatch(header)
    if parts is None:
        return None
    name = parts[1].lower().removesuffix(".")
    return name if _HOST.fullmatch(name) or _IPV6.fullmatch(name) else None
