"""Any table judges as a slow and obvious reading of the rules does, in whatever order its routes were written."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.paths import Target, read_target
from policies.routes import Compilation, Matched, MethodNotAllowed
from policies.schema import Config, Route
from tests.support.route_tables import compiled, config_of

SEGMENTS = ("a", "A", "b", "B", "ab", "é", "É")
SENT = (*SEGMENTS, "a;x", "A;", "b ", "%61", "%2561", "b.", "a?b", "\uff21", "z")
METHODS = ("GET", "HEAD", "POST", "PUT")
HOSTS = ("h.test", "g.test")
DEFAULTS = {"public": 0, "authenticated": 1, "pro": 3}
EVERY_COMMON = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


@st.composite
def routes(draw: st.DrawFn) -> Route:
    pieces = draw(st.lists(st.sampled_from((*SEGMENTS, "{}")), max_size=3))
    path = "".join(f"/{{p{at}}}" if piece == "{}" else f"/{piece}" for at, piece in enumerate(pieces))
    path += draw(st.sampled_from(("", "", "/", "/**")))
    asks: dict[str, Any] = draw(
        st.sampled_from([{"access": "public"}, {"access": "authenticated"}, {"tier": "pro"}, {"tier": "enterprise"}])
    )
    methods = draw(st.sampled_from(((), (), ("GET",), ("HEAD",), ("GET", "POST"), ("PUT",))))
    return Route(
        path=path or "/",
        methods=methods,
        host=draw(st.sampled_from((None, None, None, "h.test"))),
        spelling=draw(st.sampled_from((None, None, None, "exact", "lenient"))),
        enforce=draw(st.sampled_from(("on", "on", "on", "observe"))),
        **asks,
    )


def without_ties(drawn: list[Route], default: str) -> Config:
    """The drawn routes less those that tie with an earlier one."""
    problems = compiled(*drawn).problems
    tied = {problem.route_index for problem in problems if problem.code == "ambiguous-route"}
    return config_of(*(route for at, route in enumerate(drawn) if at not in tied), default=default)


configs = st.builds(
    without_ties,
    st.lists(routes(), max_size=9),
    st.sampled_from(("deny", "public", "authenticated", "pro")),
)

targets = st.builds(
    lambda pieces, slash: "".join("/" + quoted(piece) for piece in pieces) + ("/" if slash or not pieces else ""),
    st.lists(st.sampled_from(SENT), max_size=4),
    st.booleans(),
)


def quoted(piece: str) -> str:
    return "".join(
        character
        if character.isascii() and character not in " ?"
        else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in piece
    )


@dataclass(frozen=True)
class Verdict:
    """The index of the route (-1: the default), or None with what `Allow` says (empty: 404)."""

    index: int | None
    allow: tuple[str, ...] = ()


LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def is_tiered(route: Route) -> bool:
    return route.tier is not None


def is_lenient(route: Route) -> bool:
    return route.spelling == "lenient" or (route.spelling is None and is_tiered(route))


def strictness(route: Route) -> int:
    """What everybody has met who is let through: nothing where the route only observes."""
    if route.enforce != "on":
        return 0
    return {"public": 0, "authenticated": 1, "pro": 3, "enterprise": 4}[route.access or route.tier or ""]


def fits(pattern: list[str], path: list[str]) -> bool:
    """Whether a pattern matches, read from the left."""
    if pattern == ["**"]:
        return True
    if not pattern or not path:
        return not pattern and not path
    is_parameter = pattern[0].startswith("{") and path[0] != ""
    return (is_parameter or pattern[0] == path[0]) and fits(pattern[1:], path[1:])


def pieces_of(path: str | None) -> list[str]:
    assert path is not None  # these tables have one path a route
    return path.split("/")[1:]


def without_slash(pieces: list[str]) -> list[str]:
    return pieces[:-1] if pieces[-1] == "" else pieces


def matches(route: Route, target: Target) -> str | None:
    """How the route matches: 'exact', 'lenient' or not at all."""
    sent = [*target.segments, ""] if target.has_trailing_slash else list(target.segments)
    pattern = pieces_of(route.path)
    if fits(pattern, sent):
        return "exact"
    folded = [piece.translate(LOWER).split(";")[0] for piece in target.segments]
    lowered = [piece.translate(LOWER) if not piece.startswith("{") else piece for piece in without_slash(pattern)]
    return "lenient" if is_lenient(route) and fits(lowered, folded) else None


def shape(route: Route) -> tuple[int, ...]:
    kinds = [
        2 if piece == "**" else 1 if piece.startswith("{") else 0 for piece in without_slash(pieces_of(route.path))
    ]
    return (0 if route.host else 1, *kinds)


def admits(route: Route, method: str) -> int | None:
    """0: names it, 1: HEAD by GET, 2: names none; None: doesn't."""
    if not route.methods:
        return 2
    return 0 if method in route.methods else 1 if method == "HEAD" and "GET" in route.methods else None


def allow_of(some: list[Route]) -> tuple[str, ...]:
    named = {method for route in some for method in route.methods or EVERY_COMMON}
    return tuple(sorted(named | ({"HEAD"} if "GET" in named else set())))


def guards(route: Route, target: Target) -> bool:
    """Whether some forgiving server reads the target as a path of this route."""
    if route.spelling == "exact":
        return False
    pattern = without_slash(pieces_of(route.path))
    lowered = [piece.translate(LOWER) if not piece.startswith("{") else piece for piece in pattern]
    if fits(lowered, list(target.folded)):
        return True
    furthest = [{"é": "e"}.get(piece, piece) for piece in (each.replace("É", "é") for each in lowered)]
    return any(fits(furthest, list(reading)) for reading in target.further)


def reference(config: Config, method: str, host: str, target: Target) -> Verdict:
    """The rules of `policies.route_table`, one after the other."""
    here = [(at, route) for at, route in enumerate(config.routes) if route.host in (None, host)]
    matching = [(at, route, how) for at, route in here if (how := matches(route, target)) is not None]
    admitted = [(at, route, how) for at, route, how in matching if admits(route, method) is not None]
    winner: tuple[int, Route] | None = None
    winner_is_spelled = True
    if admitted:
        at, route, how = min(
            admitted,
            key=lambda each: (shape(each[1]), each[2] != "exact", admits(each[1], method)),
        )
        winner, winner_is_spelled = (at, route), how == "exact"
    elif matching:
        return Verdict(None, allow_of([route for _, route, _ in matching]))
    elif config.default == "deny":
        return Verdict(None)
    least = DEFAULTS[config.default] if winner is None else strictness(winner[1])
    guarding = [(at, route) for at, route in here if guards(route, target)]
    best = -1 if winner is None else winner[0]
    for at, route in sorted(guarding, key=lambda each: shape(each[1])):
        is_more_specific = winner is None or shape(route) < shape(winner[1])
        is_more_specific |= winner is not None and shape(route) == shape(winner[1]) and not winner_is_spelled
        if is_the_choice(route, guarding, method) and is_more_specific and strictness(route) > least:
            best, least = at, strictness(route)
    if best == -1:
        every = [route for _, route in guarding]
        for alike in (every, [route for route in every if is_lenient(route)]):
            if alike and all(admits(route, method) is None for route in alike):
                return Verdict(None, allow_of(alike))
    return Verdict(best)


def is_the_choice(route: Route, guarding: list[tuple[int, Route]], method: str) -> bool:
    """Whether of the routes of one pattern in one spelling this is the one that answers the method."""
    ranks = [admits(each, method) for _, each in guarding if same_pattern(each) == same_pattern(route)]
    rank = admits(route, method)
    return rank is not None and rank == min(each for each in ranks if each is not None)


def same_pattern(route: Route) -> tuple[object, ...]:
    return (route.host, *("{}" if piece.startswith("{") else piece for piece in pieces_of(route.path)))


def verdict_of(outcome: Compilation, method: str, host: str, target: Target) -> Verdict:
    assert outcome.table is not None
    found = outcome.table.match(method, host, target)
    if isinstance(found, Matched):
        return Verdict(found.route.index)
    return Verdict(None, found.allow if isinstance(found, MethodNotAllowed) else ())


def asked_of(outcome: Compilation, method: str, host: str, target: Target) -> int | None:
    """How much is asked, whoever asks it."""
    assert outcome.table is not None
    found = outcome.table.match(method, host, target)
    return found.route.assured if isinstance(found, Matched) else None


def strictness_at(config: Config, verdict: Verdict) -> object:
    """Among guards of one strictness the reference has no favourite: then the verdict is compared by what it asks."""
    if verdict.index is None:
        return verdict
    return config.default if verdict.index == -1 else strictness(config.routes[verdict.index])


def strictness_of(config: Config, verdict: Verdict) -> int | None:
    if verdict.index is None:
        return None
    return DEFAULTS[config.default] if verdict.index == -1 else strictness(config.routes[verdict.index])


@settings(max_examples=250, deadline=None)
@given(configs, st.lists(targets, min_size=1, max_size=8), st.sampled_from(METHODS), st.sampled_from(HOSTS))
def test_the_winner_is_that_of_a_slow_and_obvious_matcher(
    config: Config, sent: list[str], method: str, host: str
) -> None:
    outcome = compiled(*config.routes, default=config.default)
    assert outcome.table is not None, outcome.problems
    for raw in sent:
        target = read_target(raw.encode())
        assert isinstance(target, Target), raw
        ours, expected = verdict_of(outcome, method, host, target), reference(config, method, host, target)
        if ours != expected:
            assert strictness_at(config, ours) == strictness_at(config, expected), (raw, ours, expected)
            assert not matches_at_all(config, ours, target), (raw, ours, expected)
        shorter = (reference(config, method, host, each) for each in target.ends_early)
        asked = [strictness_of(config, verdict) for verdict in (expected, *shorter)]
        known = None if asked[0] is None else max(each for each in asked if each is not None)
        assert asked_of(outcome, method, host, target) == known, raw


def matches_at_all(config: Config, verdict: Verdict, target: Target) -> bool:
    """Only what the guard chose may differ, and only among equals."""
    return verdict.index is None or verdict.index == -1 or matches(config.routes[verdict.index], target) is not None


@settings(max_examples=120, deadline=None)
@given(configs, st.lists(targets, min_size=1, max_size=5), st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_the_order_of_the_file_never_matters(
    config: Config, sent: list[str], method: str, shuffler: random.Random
) -> None:
    order = list(range(len(config.routes)))
    shuffler.shuffle(order)
    first = compiled(*config.routes, default=config.default)
    second = compiled(*(config.routes[at] for at in order), default=config.default)
    assert sorted(problem.code for problem in first.problems) == sorted(problem.code for problem in second.problems)
    for raw in sent:
        target = read_target(raw.encode())
        assert isinstance(target, Target)
        one, other = verdict_of(first, method, "h.test", target), verdict_of(second, method, "h.test", target)
        moved = Verdict(order[other.index], ()) if other.index not in (None, -1) else other
        assert one == moved
