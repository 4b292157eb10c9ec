"""The one declared exception to "byte for byte": a prefix that a route cuts off the path, and one that it puts before it.

It decides where the cut goes: after as many raw segments as the prefix has, and only where these say the prefix exactly,
each escape decoded once. It must never count decoded characters in raw bytes (Traefik CVE-2026-40912), cut inside a
segment (CVE-2026-48020: `/api../x`), or cut what was only taken for the prefix by a more forgiving reading: what is
spelled otherwise is refused as `bad_path`, because nobody can say what the upstream would make of the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from policies.paths import BadTarget, Target
from policies.patterns import Pattern, parse_pattern

# Clients and servers take what follows for a host (RFC 3986, section 4.2).
_BEGINS_WITH_TWO: Final = re.compile(rb"/(?:/|%2[Ff])")
_AS_THEY_ARE: Final = "!$&'()*+,:=@~"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`cut` are the segments that go, `put` is what comes before the rest: empty, or a path without a final slash."""

    cut: tuple[str, ...]
    put: bytes

    def path(self, target: Target) -> bytes | BadTarget:
        """The path to forward, without the query; every byte after the cut is as it came."""
        count = len(self.cut)
        if target.segments[:count] != self.cut:
            return BadTarget("The path spells the beginning that is cut off in another way.")
        rest = target.raw.partition(b"?")[0]
        if count:
            # The raw slashes are those between the segments: an encoded one is part of its segment, as are two in a row of
            # an empty one, where a route takes them literally.
            pieces = rest.split(b"/", count + 1)
            rest = b"/" + pieces[count + 1] if len(pieces) > count + 1 else b""
            if not self.put and _BEGINS_WITH_TWO.match(rest):
                return BadTarget("What is left of the path begins with two slashes.")
        return self.put + rest or b"/"


def read_prefix(text: str) -> tuple[str, ...] | str:
    """The segments of a prefix, or what is wrong with it, as a predicate."""
    pattern = parse_pattern(text)
    if isinstance(pattern, str):
        return pattern
    if pattern.has_below or None in pattern.segments:
        return "is no prefix; it holds literal segments only, such as /v1"
    if pattern.has_trailing_slash:
        return "ends in '/'; write it without" if pattern.segments else "is no prefix; every path begins with '/'"
    return tuple(segment for segment in pattern.segments if segment is not None)


def rewrite_of(strip: tuple[str, ...], add: tuple[str, ...]) -> Rewrite | None:
    """What both together do to a path."""
    put = "".join(f"/{quote(segment, safe=_AS_THEY_ARE)}" for segment in add).encode("ascii")
    return Rewrite(strip, put) if strip or add else None


def begins_with(pattern: Pattern, prefix: tuple[str, ...]) -> bool:
    """Whether every path of the pattern has this prefix, literally."""
    return pattern.segments[: len(prefix)] == prefix
