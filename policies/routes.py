"""From the routes of a configuration to the table that judges requests, or to what is wrong with them.

It decides what each route asks, and that no two routes tie. It must never pick a winner by the order of the file: the
same routes in any order make the same table. How a request finds its route is in `policies.route_table`.

What one route says of itself is checked in `policies.crosschecks`, with its place in the file; the same slips are found
here under the same codes, so that no table comes of them whoever built the configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from policies.compiled_route import LEAST_SPECIFIC
from policies.diagnostics import Severity
from policies.enforcement import parse_enforcement
from policies.paths import BadTarget, read_target
from policies.patterns import Pattern, host_of, parse_pattern
from policies.requirement import AUTHENTICATED, PUBLIC, Access, Requirement
from policies.rewriting import Rewrite, begins_with, read_prefix, rewrite_of
from policies.route_table import (
    COMMON_METHODS,
    MOST_STRICT,
    NO_ROUTE,
    CompiledRoute,
    Matched,
    MethodNotAllowed,
    NoRoute,
    RouteTable,
    admits_any,
    strictness_of,
)
from policies.route_tree import PlacedRoute, conflicts_of, grow, sketch
from policies.schema import Config, Route
from policies.tiers import NO_TIER, Ladder, build_ladder

__all__ = [
    "COMMON_METHODS",
    "NO_ROUTE",
    "Compilation",
    "CompiledRoute",
    "Matched",
    "MethodNotAllowed",
    "NoRoute",
    "RouteProblem",
    "RouteTable",
    "compile_routes",
]

DEFAULT_LABEL: Final = "default"


@dataclass(frozen=True, slots=True)
class RouteProblem:
    """What is wrong with a route, by its place in `Config.routes`; None is `default`. `other_index` is the other party."""

    route_index: int | None
    other_index: int | None
    code: str
    message: str
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class Compilation:
    """The table, None when any problem is an error, and every problem found."""

    table: RouteTable | None
    problems: tuple[RouteProblem, ...]


def compile_routes(config: Config) -> Compilation:
    """Compile every route; all problems at once."""
    ladder = build_ladder(config.tiers)
    problems: list[RouteProblem] = []
    placed: list[PlacedRoute] = []
    sharing = Counter(path for route in config.routes for path in route.each_path)
    for index, route in enumerate(config.routes):
        for path in route.each_path:
            compiled = _compile(index, route, path, _label(route, path, sharing), config, ladder)
            if isinstance(compiled, PlacedRoute):
                placed.append(compiled)
            else:
                problems += compiled
        if not route.each_path:
            problems.append(RouteProblem(index, None, "missing-key", "the route has no path"))
    default = _default(config, ladder)
    if isinstance(default, RouteProblem):
        problems.append(default)
    by_host: dict[str | None, list[PlacedRoute]] = {None: []}
    for one in placed:
        by_host.setdefault(one.route.host, []).append(one)
    problems += [
        RouteProblem(conflict.route.index, conflict.other.index, conflict.code, conflict.message, conflict.severity)
        for routes in by_host.values()
        for conflict in conflicts_of(sketch(routes))
    ]

    def in_order(problem: RouteProblem) -> int:
        return len(config.routes) if problem.route_index is None else problem.route_index

    problems.sort(key=in_order)
    if isinstance(default, RouteProblem) or any(problem.severity is Severity.ERROR for problem in problems):
        return Compilation(None, tuple(problems))
    table = RouteTable(
        routes=tuple(one.route for one in placed),
        default=default,
        hosts=MappingProxyType({host: grow(routes) for host, routes in by_host.items() if host is not None}),
        any_host=grow(by_host[None]),
        strictest=_strictest(placed),
        reads_literally=any(one.route.keeps_encoded_slash or one.route.keeps_double_slash for one in placed),
    )
    problems += _laxer_under_another_host(placed, table, config)
    return Compilation(table, tuple(sorted(problems, key=in_order)))


def _strictest(placed: list[PlacedRoute]) -> int:
    """Above all tiers where routes differ in more than these: whoever wins, one that asks for more may have been missed."""
    guards = [one.route for one in placed if one.guards]
    laxer = (one.route.fails_open or not one.route.enforcement.refuses_everybody for one in placed)
    if any(route.requirement.narrows for route in guards) or any(laxer):
        return MOST_STRICT
    return max((route.demanded for route in guards), default=0)


def _laxer_under_another_host(placed: list[PlacedRoute], table: RouteTable, config: Config) -> Iterator[RouteProblem]:
    """Routes of a host that a caller goes round by naming another: `Host` is whatever the caller writes.

    An upstream that is sent the caller's Host can tell the two apart, and is left alone.
    """
    for one in placed:
        route = one.route
        if route.host is None or config.upstreams[route.upstream].host == "caller":
            continue
        sample = read_target(one.pattern.sample())
        if isinstance(sample, BadTarget):
            raise TypeError(f"{route.pattern!r} matches nothing that is read: parse_pattern refuses such")
        method = min(one.named_methods, default="GET")
        found = table.match(method, "", sample)
        if (
            isinstance(found, Matched)
            and not found.route.asks_as_much_as(route)
            and found.route.upstream == route.upstream
        ):
            yield RouteProblem(
                route.index,
                found.route.index if found.route.index >= 0 else None,
                "laxer-without-host",
                f"{route.pattern!r} asks for more under the host {route.host!r} than {found.route.label!r} does under any "
                "other, and the caller chooses the host; give the stricter route no 'host', or the laxer one a host too",
                Severity.WARNING,
            )


def _compile(
    index: int, route: Route, path: str, label: str, config: Config, ladder: Ladder
) -> PlacedRoute | tuple[RouteProblem, ...]:
    def problem(code: str, message: str) -> RouteProblem:
        return RouteProblem(index, None, code, f"the route {path!r} {message}")

    problems: list[RouteProblem] = []
    pattern = parse_pattern(path)
    if isinstance(pattern, str):
        problems.append(problem("bad-path", pattern))
    host = None if route.host is None else host_of(route.host)
    if route.host is not None and (host is None or host != route.host.lower()):
        problems.append(problem("bad-host", f"has the host {route.host!r}, which is no name without a port"))
    problems += [
        problem("bad-method", f"has the method {method!r}, which no request can be routed by")
        for method in route.methods
        if not admits_any(method)
    ]
    requirement = _requirement(route, ladder, stripe_grants=config.billing.features_from == "stripe")
    if isinstance(requirement, tuple):
        problems.append(problem(*requirement))
    elif (route.scopes or route.claims) and requirement.access is Access.PUBLIC:
        problems.append(problem("public-and-scopes", "is public, so nobody's scopes or claims are known"))
    else:
        claims = tuple((name, tuple(values)) for name, values in route.claims.items())
        requirement = replace(requirement, scopes=route.scopes, claims=claims)
    rewrite = _rewrite(route, pattern)
    if isinstance(rewrite, str):
        problems.append(problem("bad-prefix", rewrite))
    upstream = _upstream(route, config)
    if isinstance(upstream, tuple):
        problems.append(problem(*upstream))
    if isinstance(pattern, str) or isinstance(requirement, tuple) or isinstance(upstream, tuple):
        return tuple(problems)
    if problems or isinstance(rewrite, str):
        return tuple(problems)
    named = frozenset(route.methods)
    admitted = named | {"HEAD"} if "GET" in named else named
    return PlacedRoute(
        CompiledRoute(
            label=label,
            pattern=path,
            methods=admitted or None,
            host=host,
            requirement=requirement,
            upstream=upstream,
            index=index,
            specificity=(1 if host is None else 0, *pattern.kinds),
            strictness=strictness_of(requirement),
            rewrite=rewrite,
            timeouts=route.timeouts.over(config.upstreams[upstream].timeouts),
            max_body=route.max_body,
            fails_open=route.on_unavailable == "allow" and requirement.access is Access.TIER,
            enforcement=parse_enforcement(route.enforce, _share_key(route)),
            keeps_encoded_slash=route.encoded_slash == "literal",
            keeps_double_slash=route.double_slash == "literal",
        ),
        pattern,
        is_lenient=is_lenient(route, requirement),
        guards=route.spelling != "exact",
        named_methods=named,
    )


def _share_key(route: Route) -> str:
    """What parts the customers whom this entry refuses from those of others; all paths of one entry have the same."""
    return "\0".join((*sorted(route.methods), (route.host or "").lower(), *route.each_path[:1]))


def is_lenient(route: Route, requirement: Requirement) -> bool:
    """Whether its literals are compared leniently: what asks for more than a valid token does, unless it says otherwise."""
    asks_more = requirement.access is Access.TIER or requirement.narrows
    return route.spelling == "lenient" or (route.spelling is None and asks_more)


def _requirement(route: Route, ladder: Ladder, *, stripe_grants: bool) -> Requirement | tuple[str, str]:
    """What the route asks, as the lowest tier that has all of it; else a code and a message."""
    asks_tier = route.tier is not None or bool(route.features)
    if route.access is not None:
        if asks_tier:
            return "access-and-tier", "has 'access' and asks for a tier or feature; leave one of the two out"
        return PUBLIC if route.access == "public" else AUTHENTICATED
    if not asks_tier:
        return "who-may", "doesn't say who may use it; add 'tier', 'features' or 'access'"
    lowest = 0 if route.tier is None else ladder.rank(route.tier)
    if lowest == NO_TIER:
        return "unknown-tier", f"asks for the tier {route.tier!r}, which isn't defined"
    wanted = frozenset(route.features)
    granted_rank = ladder.rank(route.tier or "") if stripe_grants and wanted else None
    for rank in range(lowest, len(ladder.names)):
        if wanted <= frozenset(ladder.features[rank]):
            return Requirement(Access.TIER, rank, ladder.names[rank], route.features, granted_rank)
    if granted_rank is not None:  # no tier will do, only what Stripe grants
        return Requirement(Access.TIER, len(ladder.names), route.tier, route.features, granted_rank)
    return "unknown-feature", f"asks for features that no tier has together: {', '.join(sorted(wanted))}"


def _rewrite(route: Route, pattern: Pattern | str) -> Rewrite | str | None:
    """What it does to the path, or what is wrong with that."""
    strip = () if route.strip_prefix is None else read_prefix(route.strip_prefix)
    add = () if route.add_prefix is None else read_prefix(route.add_prefix)
    if isinstance(strip, str):
        return f"has a 'strip_prefix' that {strip}"
    if isinstance(add, str):
        return f"has an 'add_prefix' that {add}"
    if isinstance(pattern, Pattern) and not begins_with(pattern, strip):
        return f"doesn't begin with its 'strip_prefix' {route.strip_prefix!r}, segment by segment and literally"
    return rewrite_of(strip, add)


def _upstream(route: Route, config: Config) -> str | tuple[str, str]:
    if route.upstream is None:
        if len(config.upstreams) > 1:
            return "which-upstream", f"must name its 'upstream', one of {', '.join(config.upstreams)}"
        return next(iter(config.upstreams))
    if route.upstream not in config.upstreams:
        return "unknown-upstream", f"names the upstream {route.upstream!r}, which isn't defined"
    return route.upstream


def _default(config: Config, ladder: Ladder) -> CompiledRoute | RouteProblem | None:
    """The route for what no route matches, None to deny. It goes to the first upstream."""
    if config.default == "deny":
        return None
    if config.default == "public":
        requirement = PUBLIC
    elif config.default == "authenticated":
        requirement = AUTHENTICATED
    elif (rank := ladder.rank(config.default)) != NO_TIER:
        requirement = Requirement(Access.TIER, rank, config.default)
    else:
        message = f"'default' is deny, public, authenticated or the name of a tier, not {config.default!r}"
        return RouteProblem(None, None, "unknown-tier", message)
    return CompiledRoute(
        label=DEFAULT_LABEL,
        pattern="/**",
        methods=None,
        host=None,
        requirement=requirement,
        upstream=next(iter(config.upstreams)),
        index=-1,
        specificity=LEAST_SPECIFIC,
        strictness=strictness_of(requirement),
    )


def _label(route: Route, path: str, sharing: Counter[str]) -> str:
    """The path; with the methods and host before it where several routes share the path."""
    if sharing[path] == 1:
        return path
    return (f"{','.join(sorted(route.methods))} " if route.methods else "") + (route.host or "").lower() + path
