r"""From the request target as it stands in the request line to what routes are matched against (P1).

It decides which targets have one reading, and what that reading is. It must never change a byte of what is forwarded,
look into the query, or repair: a target that two servers could read differently is refused, because a gateway that
decides on one reading while the upstream acts on another is no gateway (Oathkeeper GHSA-p224-6x5r-fjpm, Envoy
CVE-2019-9901 and CVE-2021-29492, APISIX CVE-2021-43557, Traefik CVE-2026-40912).

Refused: anything but origin-form; raw bytes that are no visible ASCII; `#`; a backslash; a `%` without two hex
digits; escapes that are not UTF-8 (overlong forms too); encoded `/`, `\`, NUL or control characters, also when they
are encoded twice or written as a compatibility character (U+FF0F); an empty segment, or one of nothing but dots and
spaces, also encoded, in compatibility characters (U+FF0E) or followed by `;parameters`; any dot that is encoded twice.
Compatibility characters that make no dot segment and no separator have one reading, and pass.
One trailing slash is fine. In the query only control characters, spaces and `#` are refused.

Where a route takes encoded or doubled slashes literally, `policies.literal_slashes` reads what is refused here for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from policies.spelling import DEEPEST_ESCAPE, ENDS_THE_PATH, Ambiguous, Reading, decode_once, furthest_reading, lenient

# What nearly every request looks like: no escape, no parameters, no segment that ends in a dot or has only dots.
# Possessive throughout, so the time is linear whatever is sent.
_PLAIN: Final = re.compile(
    rb"(?=/)((?:/\.*+[A-Za-z0-9_~!$&'()*+,=:@-]++(?:\.++[A-Za-z0-9_~!$&'()*+,=:@-]++)*+)*+/?+)(?:\?[^\x00-\x20\x7f#]*+)?+"
)
_UNFIT_IN_QUERY: Final = re.compile(rb"[\x00-\x20\x7f#]")
_UNFIT_IN_PATH: Final = re.compile(rb"[^\x21-\x7e]")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Target:
    """A target with one reading.

    `raw` is what is forwarded, byte for byte. `segments` have each escape decoded once; `has_trailing_slash` says
    whether one `/` follows them (the path `/` has no segments and a trailing slash). `folded` is what routes with a
    tier compare. `further` are readings of more forgiving servers, where they differ from `folded`: they can only make
    the answer stricter (see `policies.route_table`). `ends_early` are the targets of servers that decode before they
    look for `?` and `#`: these may have fewer segments, so each is judged by a route of its own.
    """

    raw: bytes
    segments: tuple[str, ...]
    has_trailing_slash: bool
    folded: tuple[str, ...]
    further: tuple[tuple[str, ...], ...] = ()
    ends_early: tuple[Target, ...] = ()

    @property
    def path(self) -> str:
        """The path as people read it, for messages; a slash within a segment (`policies.literal_slashes`) stays encoded."""
        return (
            "/"
            + "/".join(segment.replace("/", "%2F") for segment in self.segments)
            + ("/" if self.has_trailing_slash and self.segments else "")
        )


@dataclass(frozen=True, slots=True)
class BadTarget:
    """A target that could be read in two ways: 400 `bad_path`. `detail` repeats nothing of what was sent."""

    detail: str


def read_target(raw: bytes) -> Target | BadTarget:
    """Read what stands between the method and the version in the request line."""
    plain = _PLAIN.fullmatch(raw)
    if plain is None:
        return _read_carefully(raw)
    path = plain[1].decode("ascii")
    has_trailing_slash = path[-1] == "/"
    inner = path[1:-1] if has_trailing_slash else path[1:]
    if not inner:
        return Target(raw, (), True, ())
    segments = tuple(inner.split("/"))
    lower = inner.lower()
    return Target(raw, segments, has_trailing_slash, segments if lower == inner else tuple(lower.split("/")))


def _read_carefully(raw: bytes) -> Target | BadTarget:
    problem = unfit(raw)
    if problem is not None:
        return problem
    return _read_segments(raw, raw.partition(b"?")[0][1:].split(b"/"))


def unfit(raw: bytes) -> BadTarget | None:
    """What is wrong with the target before its path is taken apart."""
    path, _, query = raw.partition(b"?")
    if not path.startswith(b"/"):
        return BadTarget("The request target does not begin with '/'.")
    if b"#" in raw:
        return BadTarget("The request target holds '#'.")
    if _UNFIT_IN_QUERY.search(query):
        return BadTarget("The query holds a space or control character.")
    if b"\\" in path:
        return BadTarget("The path holds a backslash.")
    if _UNFIT_IN_PATH.search(path):
        return BadTarget("The path holds a space, a control character or a byte that is not ASCII.")
    if _BAD_ESCAPE.search(path):
        return BadTarget("The path holds a '%' that two hexadecimal digits do not follow.")
    return None


def _read_segments(raw: bytes, pieces: list[bytes]) -> Target | BadTarget:
    has_trailing_slash = not pieces[-1]
    if has_trailing_slash:
        pieces = pieces[:-1]
    segments: list[str] = []
    readings: list[Reading] = []
    for piece in pieces:
        if not piece:
            return BadTarget("The path has an empty segment ('//').")
        segment = decode_once(piece)
        if segment is None:
            return BadTarget("The path holds escapes that are not UTF-8.")
        reading = furthest_reading(segment)
        if isinstance(reading, Ambiguous):
            return BadTarget(f"The path {reading.detail}.")
        segments.append(segment)
        readings.append(reading)
    folded = tuple(map(lenient, segments))
    further = further_readings(folded, readings)
    ends_early = early_ends(raw, segments, readings, furthest_reading)
    if isinstance(ends_early, BadTarget):
        return ends_early
    return Target(raw, tuple(segments), has_trailing_slash, folded, further, ends_early)


def early_ends(
    raw: bytes, segments: Sequence[str], readings: Sequence[Reading], read: Callable[[str], Reading | Ambiguous]
) -> tuple[Target, ...] | BadTarget:
    """The target up to the first `?` or `#`, for servers that decode once, twice, or as often as they can."""
    found: list[Target] = []
    decoded = [list(segments)]
    while len(decoded) < DEEPEST_ESCAPE and any("%" in name for name in decoded[-1]):
        decoded.append([decode_once(name) or name for name in decoded[-1]])
    ways = [(names, list(map(_before_end, names))) for names in decoded]
    for names, ends in (*ways, (segments, [reading.cut_short for reading in readings])):
        position = next((position for position, name in enumerate(ends) if name is not None), None)
        if position is None:
            continue
        name = ends[position]
        last = read(name) if name else None
        if isinstance(last, Ambiguous):
            return BadTarget(f"The path {last.detail}.")
        shorter = (*names[:position], name) if name else tuple(names[:position])
        folded = tuple(map(lenient, shorter))
        target = Target(
            raw,
            shorter,
            last is None,
            folded,
            further_readings(folded, [*readings[:position], *((last,) if last else ())]),
        )
        if target not in found:
            found.append(target)
    return tuple(found)


def _before_end(name: str) -> str | None:
    """What stands before the first `?` or `#`, None where there is none."""
    before, *behind = ENDS_THE_PATH.split(name, maxsplit=1)
    return before if behind else None


def further_readings(folded: tuple[str, ...], readings: Sequence[Reading]) -> tuple[tuple[str, ...], ...]:
    """The whole path read furthest, and the path that ends at the first decoded `?` or `#`, where they differ."""
    whole = tuple(reading.name for reading in readings)
    # A route's literal may be written in capitals beyond ASCII, which `folded` keeps.
    found = [whole] if whole != folded or not all(map(str.isascii, folded)) else []
    for position, reading in enumerate(readings):
        if reading.cut_short is not None:
            found.append((*whole[:position], reading.cut_short) if reading.cut_short else whole[:position])
            break
    return tuple(found)
