"""Routes for gateway.yaml from an API's operations, and which operations a gateway.yaml leaves out.

It decides how a path of OpenAPI is written as a path of ours. It must never draft a route that lets more through than the
operation it is for: a path that ours can't express is named and left out, and where two operations meet in one pattern
and method the stricter one decides. What is drafted always loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from policies.openapi import Operation
from policies.paths import BadTarget
from policies.patterns import Pattern, parse_pattern
from policies.rewriting import read_prefix
from policies.route_table import Matched, MethodNotAllowed, RouteTable
from policies.schema import Config
from policies.spelling import lenient

_WHOLE: Final = re.compile(r"\{([^{}]*)\}")
_ANY: Final = re.compile(r"\{[^{}]*\}")
# AWS {proxy+}, ASP.NET {*path} and {**path}, Starlette {path:path}, RFC 6570 {+path}: one parameter, several segments.
_SEVERAL: Final = re.compile(r"\*{1,2}\w+|\+\w+|\w+[+*]|\w+:path", re.ASCII)
_STAND_IN: Final = "~"


@dataclass(frozen=True, slots=True)
class DraftedRoute:
    """One route to be. `tier` None is `access: public` where `is_open`, else `access: authenticated`."""

    path: str
    methods: tuple[str, ...]
    tag: str
    is_open: bool
    tier: str | None


@dataclass(frozen=True, slots=True)
class Drafted:
    """The routes, and what none could be drafted for: an operation and why."""

    routes: tuple[DraftedRoute, ...]
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """`uncovered`: an operation and why. `unmatched`: routes that no operation of the document reaches."""

    uncovered: tuple[tuple[str, str], ...]
    unmatched: tuple[str, ...]


def path_of(template: str, catch_all: frozenset[str] = frozenset()) -> str | tuple[str]:
    """Our path for one of OpenAPI, or in a tuple why there is none. `catch_all` are names that span segments."""
    pieces: list[str] = []
    names: set[str] = set()
    segments = template.split("/")[1:]
    if not template.startswith("/"):
        return ("does not begin with '/'",)
    for position, segment in enumerate(segments):
        whole = _WHOLE.fullmatch(segment)
        if whole is None:
            if _ANY.search(segment):
                return ("has a parameter inside a segment, and ours is a whole one such as {id}",)
            literal = unquote(segment)
            if literal == "**" or any(sign in literal for sign in "/{}"):
                return (
                    "has a segment that holds '/' or a brace once it is decoded, or is '**', and no literal of ours does",
                )
            pieces.append(literal)
            continue
        if _SEVERAL.fullmatch(whole[1]) or whole[1] in catch_all:
            if position != len(segments) - 1:
                return ("has a parameter of several segments before its end; only a final '/**' is possible",)
            pieces.append("**")
            continue
        name = re.sub(r"[^A-Za-z0-9_]|^(?=[0-9]|$)", "_", whole[1], flags=re.ASCII)[:40]
        while name in names:
            name += "_"
        names.add(name)
        pieces.append(f"{{{name}}}")
    path = "/" + "/".join(pieces)
    pattern = parse_pattern(path)
    return (pattern,) if isinstance(pattern, str) else path


def draft(operations: Iterable[Operation], tier: str | None, catch_all: frozenset[str] = frozenset()) -> Drafted:
    """A route for each path and access, in the document's order, one tag after another."""
    left_out: list[tuple[str, str]] = []
    found: dict[tuple[object, str], tuple[str, bool, str]] = {}
    for operation in operations:
        path = path_of(operation.template, catch_all)
        if operation.method == "TRACE":
            left_out.append((operation.shown, "a gateway never lets TRACE through"))
        elif isinstance(path, tuple):
            left_out.append((operation.shown, path[0]))
        else:
            key = (_exact(path), operation.method)
            first, is_open, tag = found.get(key, (path, True, operation.tag))
            found[key] = (first, is_open and operation.is_open, tag)
    grouped: dict[tuple[object, bool], DraftedRoute] = {}
    for (exact, method), (path, is_open, tag) in found.items():
        # Routes with a tier ignore case and one final slash, so that two spellings of one path would tie.
        same = exact if is_open or tier is None else _forgiving(path)
        route = grouped.get((same, is_open))
        methods = (method,) if route is None else (*route.methods, method)
        shown, under = (path, tag) if route is None else (route.path, route.tag)
        grouped[same, is_open] = DraftedRoute(shown, tuple(dict.fromkeys(methods)), under, is_open, tier)
    tags = {tag: order for order, tag in enumerate(dict.fromkeys(route.tag for route in grouped.values()))}
    return Drafted(tuple(sorted(grouped.values(), key=lambda route: tags[route.tag])), tuple(left_out))


def as_yaml(drafted: Drafted) -> str:
    """A snippet for gateway.yaml. What isn't drafted stands in comments."""
    lines = ["routes:"] if drafted.routes else ["routes: []"]
    tag = ""
    for route in drafted.routes:
        if route.tag != tag:
            lines.append(f"  # {route.tag}" if route.tag else "  # without a tag")
            tag = route.tag
        # In gateway.yaml a '$' begins a variable, which no document of a stranger's may name.
        lines.append(f"  - path: {json.dumps(route.path, ensure_ascii=False).replace('$', '$$')}")
        # GET admits HEAD by itself; both are written where the document has both.
        lines.append(f"    methods: [{', '.join(route.methods)}]")
        if route.is_open:
            lines.append("    access: public")
        elif route.tier is None:
            lines.append("    access: authenticated")
        else:
            lines.append(f"    tier: {json.dumps(route.tier, ensure_ascii=False).replace('$', '$$')}")
    if drafted.left_out:
        lines.append("  # No route is drafted for:")
        lines += [f"  #   {operation}: {why}" for operation, why in drafted.left_out]
    return "\n".join(lines) + "\n"


def coverage(
    config: Config, table: RouteTable, operations: Iterable[Operation], catch_all: frozenset[str] = frozenset()
) -> Coverage:
    """What of the operations this configuration leaves out. Routes that change the path count by what your API is sent."""
    prefixes = dict.fromkeys([("", ""), *((one.strip_prefix or "", one.add_prefix or "") for one in config.routes)])
    hosts = ["", *table.hosts]
    matched: set[tuple[int, str]] = set()
    uncovered: list[tuple[str, str]] = []
    for operation in operations:
        why = "no route"
        for raw in _samples(operation.template, catch_all):
            why, reached = _judged(config, table, operation.method, raw, prefixes, hosts)
            matched |= reached
            if why:
                break
        if why:
            uncovered.append((operation.shown, why))
    unmatched = tuple(route.label for route in table.routes if route.place not in matched)
    return Coverage(tuple(uncovered), unmatched)


def _judged(
    config: Config,
    table: RouteTable,
    method: str,
    raw: str,
    prefixes: Iterable[tuple[str, str]],
    hosts: Iterable[str],
) -> tuple[str, set[tuple[int, str]]]:
    """Why no route lets it through, empty when one does, and which do."""
    why, reached = "no route", set[tuple[int, str]]()
    for strip, add in prefixes:
        public = _before(raw, strip, add)
        if public is None:
            continue
        target = table.read(public.encode("ascii", "replace"))
        if isinstance(target, BadTarget):
            why = "such a path is refused as bad_path"
            continue
        for host in hosts:
            found = table.match(method, host, target)
            if isinstance(found, BadTarget):
                why = "such a path is refused as bad_path"
            elif isinstance(found, MethodNotAllowed):
                why = f"no route with this method; its path takes {', '.join(found.allow)}"
            elif isinstance(found, Matched) and found.route.index < 0:
                why = "no route; 'default' decides"
            elif isinstance(found, Matched):
                route = config.routes[found.route.index]
                if (route.strip_prefix or "", route.add_prefix or "") == (strip, add):
                    reached.add(found.route.place)
    return ("" if reached else why), reached


def _before(raw: str, strip: str, add: str) -> str | None:
    """The path that a caller sends so that the API is sent `raw`, or None when these prefixes never make it."""
    cut, put = (_spelt(prefix) for prefix in (add, strip))
    if cut is None or put is None or (cut and raw != cut and not raw.startswith(cut + "/")):
        return None
    return put + (raw[len(cut) :] or ("" if put else "/"))


def _spelt(prefix: str) -> str | None:
    if not prefix:
        return ""
    read = read_prefix(prefix)
    return None if isinstance(read, str) else quote(prefix.rstrip("/"), safe="/~!$&'()*+,=:@-._")


def _samples(template: str, catch_all: frozenset[str]) -> tuple[str, ...]:
    """Targets that the operation answers: one, or two where its last parameter spans segments."""
    path = path_of(template, catch_all)
    segments = _ANY.sub(_STAND_IN, template).split("/")
    plain = "/".join(quote(unquote(segment), safe="~!$&'()*+,=:@-._;") for segment in segments)
    return (plain, f"{plain}/{_STAND_IN}") if isinstance(path, str) and path.endswith("/**") else (plain,)


def _parsed(path: str) -> Pattern:
    pattern = parse_pattern(path)
    if isinstance(pattern, str):
        raise TypeError(f"{path!r} was drafted and {pattern}")
    return pattern


def _exact(path: str) -> tuple[object, ...]:
    pattern = _parsed(path)
    return pattern.segments, pattern.has_below, pattern.has_trailing_slash


def _forgiving(path: str) -> tuple[object, ...]:
    pattern = _parsed(path)
    return tuple(one if one is None else lenient(one) for one in pattern.segments), pattern.has_below
