"""Targets with `%2F` or `//` that some route takes literally, as a part of an id (P1; `encoded_slash`, `double_slash`).

It decides in which ways the API behind may read such a target, each of which is judged by its own route: as it was sent,
where a `%2F` is one character of its segment and `//` holds an empty one; with each `%2F` decoded; with empty segments
merged away (nginx, `merge_slashes`); with both; without the last of several trailing slashes, or with one more; and each of these once `;parameters` are gone. It must never let through what one of these readings would have
refused: dot segments, doubled escapes, backslashes and NUL stay refused, also between the slashes that were decoded. So
do a path that begins with two slashes in any of them, which clients and servers take for a host, and one that begins
with the gateway's own prefix.

Which route judges, and what it asks, is in `policies.route_table`. Without a route that says `literal`, nothing here runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from policies.paths import BadTarget, Target, early_ends, further_readings, unfit
from policies.patterns import RESERVED
from policies.spelling import Ambiguous, Reading, decode_once, furthest_reading, lenient

_LEADING: Final = BadTarget("The path begins with two slashes, as some servers read it.")
_OWN: Final = BadTarget("The path begins with the gateway's own prefix, as some servers read it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteralTarget(Target):
    """A target that a route must declare to take literally; else it is a 400 with `otherwise`.

    `as_sent` is the same reading as an ordinary target; `others` are the other ways to read it.
    """

    has_encoded_slash: bool
    has_double_slash: bool
    as_sent: Target
    others: tuple[Target, ...]
    otherwise: BadTarget


def read_literally(raw: bytes, otherwise: BadTarget) -> LiteralTarget | BadTarget:
    """Read what `read_target` refused as `otherwise`, which stays the answer where the slashes were not the reason."""
    if unfit(raw) is not None:
        return otherwise
    pieces = raw.partition(b"?")[0][1:].split(b"/")
    sent: list[str] = []
    for piece in pieces:
        segment = decode_once(piece)
        if segment is None:
            return otherwise
        sent.append(segment)
    if not sent[0] or sent[0].startswith("/"):
        return _LEADING
    ways = [sent]
    if any(";" in segment for segment in sent):
        # Tomcat cuts parameters off, with any slash in them, before it decodes; others after.
        ways += [
            [decode_once(piece.partition(b";")[0]) or "" for piece in pieces],
            [name.partition(";")[0] for name in sent],
        ]
    readings: list[Target] = []
    for segments in [reading for way in ways for reading in _readings(way)]:
        reading = _target(raw, segments)
        if isinstance(reading, BadTarget):
            return reading
        if any(each[:1] == (RESERVED,) for each in (reading.folded, *reading.further)):
            return _OWN
        if reading not in readings:
            readings.append(reading)
    as_sent, *others = readings
    has_encoded_slash = any("/" in segment for segment in sent)
    has_double_slash = "" in as_sent.segments
    if not (has_encoded_slash or has_double_slash):
        return otherwise
    return LiteralTarget(
        raw=raw,
        segments=as_sent.segments,
        has_trailing_slash=as_sent.has_trailing_slash,
        folded=as_sent.folded,
        further=as_sent.further,
        has_encoded_slash=has_encoded_slash,
        has_double_slash=has_double_slash,
        as_sent=as_sent,
        others=tuple(others),
        otherwise=otherwise,
    )


def _readings(way: list[str]) -> list[list[str]]:
    decoded = _decoded(way)
    # Where one trailing slash makes no difference (Express, Rails), it is one of several that goes.
    shorter = [segments[:-1] for segments in (way, decoded) if segments[-2:] == ["", ""] and len(segments) > 2]
    # Where one is added (Django), it comes behind what was encoded.
    longer = [[*decoded, ""]] if way[-1] and not decoded[-1] else []
    return [way, decoded, _merged(way), _merged(decoded), *shorter, *longer]


def _decoded(segments: list[str]) -> list[str]:
    return [part for segment in segments for part in segment.split("/")]


def _merged(segments: list[str]) -> list[str]:
    """Without the empty ones; the last is empty where the path ends in a slash, and stays."""
    return [segment for segment in segments[:-1] if segment] + segments[-1:]


def _target(raw: bytes, segments: list[str]) -> Target | BadTarget:
    has_trailing_slash = not segments[-1]
    read = tuple(segments[:-1] if has_trailing_slash else segments)
    readings: list[Reading] = []
    for segment in read:
        reading = _reading(segment)
        if isinstance(reading, Ambiguous):
            return BadTarget(f"The path {reading.detail}.")
        readings.append(reading)
    folded = tuple(map(lenient, read))
    further = further_readings(folded, readings)
    ends_early = early_ends(raw, read, readings, _reading)
    if isinstance(ends_early, BadTarget):
        return ends_early
    return Target(raw, read, has_trailing_slash, folded, further, ends_early)


def _reading(segment: str) -> Reading | Ambiguous:
    """The furthest reading of a segment that may be empty, or hold slashes as characters of its own.

    What stands between them is read like a segment. `;` ends a segment before its escapes are decoded as much as after.
    """
    parts: list[Reading] = []
    for part in segment.split("/"):
        reading = furthest_reading(part) if part else Reading("", None)
        if isinstance(reading, Ambiguous):
            return reading
        parts.append(reading)
    return _joined(parts)


def _joined(parts: Iterable[Reading]) -> Reading:
    names: list[str] = []
    cut_short: str | None = None
    for part in parts:
        if cut_short is None and part.cut_short is not None:
            cut_short = "/".join((*names, part.cut_short))
        names.append(part.name)
        if part.has_parameters:
            break
    return Reading("/".join(names), cut_short)
