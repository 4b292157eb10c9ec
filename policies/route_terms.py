"""What a route settles beside who gets in: how long, how much, how it is spelled upstream, and what happens in an outage.

It decides which of these two routes that judge the same request differ in, and whether that may take something from
somebody. Who gets in is `policies.access_diff`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policies.compiled_route import CompiledRoute
from policies.schema import Config, Timeouts
from policies.setting_changes import Effect
from policies.units import format_duration, format_size

JUDGED_BY_REQUESTS: Final = frozenset(
    {
        "path",
        "paths",
        "methods",
        "host",
        "access",
        "tier",
        "features",
        "scopes",
        "claims",
        "upstream",
        "enforce",
        "spelling",
    }
)
"""The keys of a route that `policies.access_diff` compares request by request."""

_Placed = tuple[CompiledRoute, Config]


@dataclass(frozen=True, slots=True)
class TermChange:
    """One thing that differs, in words."""

    before: str
    after: str
    effect: Effect


def term_changes(old: _Placed, new: _Placed) -> Iterator[TermChange]:
    """All that differ."""
    before, after = old[0], new[0]
    yield from _flag(
        "goes on in an outage",
        "503 entitlement_unavailable in an outage",
        before.fails_open,
        after.fails_open,
    )
    yield from _flag(
        "%2F taken literally", "400 bad_path for %2F", before.keeps_encoded_slash, after.keeps_encoded_slash
    )
    yield from _flag("// taken literally", "400 bad_path for //", before.keeps_double_slash, after.keeps_double_slash)
    yield from _flag("streams outlive the token", "streams end with the token", _outlives(old), _outlives(new))
    if before.max_body != after.max_body:
        is_less = after.max_body is not None and (before.max_body is None or after.max_body < before.max_body)
        yield TermChange(_body(before.max_body), _body(after.max_body), Effect.LOSES if is_less else Effect.GAINS)
    if before.rewrite != after.rewrite:
        yield TermChange(_rewritten(before), _rewritten(after), Effect.DIFFERS)
    yield from _timeouts(old, new)


def _flag(kind: str, unkind: str, before: bool, after: bool) -> Iterator[TermChange]:
    if before != after:
        words = (kind, unkind) if before else (unkind, kind)
        yield TermChange(*words, Effect.LOSES if before else Effect.GAINS)


def _outlives(placed: _Placed) -> bool:
    route, config = placed
    return route.index >= 0 and config.routes[route.index].outlive_token


def _body(most: int | None) -> str:
    return "bodies of any size" if most is None else f"bodies up to {format_size(most)}"


def _rewritten(route: CompiledRoute) -> str:
    if route.rewrite is None:
        return "path as sent"
    cut = f"less /{'/'.join(route.rewrite.cut)}" if route.rewrite.cut else ""
    put = f"below {route.rewrite.put.decode('ascii')}" if route.rewrite.put else ""
    return f"path {' '.join(part for part in (cut, put) if part)}"


def _timeouts(old: _Placed, new: _Placed) -> Iterator[TermChange]:
    """Those in force, where either route has its own; an upstream's own are a setting."""
    if old[0].timeouts is None and new[0].timeouts is None:
        return
    before, after = _in_force(old), _in_force(new)
    for name in Timeouts.model_fields:
        was, is_now = getattr(before, name), getattr(after, name)
        if was != is_now:
            yield TermChange(
                f"{name} timeout {format_duration(was)}", f"{name} timeout {format_duration(is_now)}", Effect.DIFFERS
            )


def _in_force(placed: _Placed) -> Timeouts:
    route, config = placed
    return route.timeouts or config.upstreams[route.upstream].timeouts
