"""The routes that a request might have met and didn't, each with the reason (`policies.route_table` has the rules).

It decides nothing: a route alone in a table shows whether it would have judged the request, by the very code that
judged it. What is said of two routes is read from their specificity, the number that the winner was found by.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.diagnostics import listed, quoted
from policies.literal_slashes import LiteralTarget
from policies.paths import BadTarget, Target
from policies.patterns import host_of
from policies.route_table import CompiledRoute, Matched, MethodNotAllowed, NoRoute, Outcome, RouteTable, is_spelled
from policies.routes import compile_routes
from policies.schema import Config
from policies.verdict import Question, Verdict

_KINDS = ("a literal", "a parameter", "'/**'")


@dataclass(frozen=True, slots=True)
class Loser:
    """A route that fits the path in some reading and doesn't judge the request. `why` is a clause."""

    route: CompiledRoute
    why: str


def losers_of(config: Config, table: RouteTable, question: Question, verdict: Verdict) -> tuple[Loser, ...]:
    """Every such route, in the order of the file; the default last."""
    if isinstance(verdict.reading, BadTarget) or verdict.is_own:
        return ()
    target, winner = verdict.reading, verdict.route
    found = [
        Loser(route, _why(config, route, winner, question, target))
        for route in table.near(target)
        if winner is None or route.place != winner.place
    ]
    if table.default is not None and (winner is None or winner.index != table.default.index):
        more = "a route matches the path" if winner is None else f"{winner.label!r} matches"
        found.append(Loser(table.default, f"{more}, and 'default' is for what no route matches"))
    return tuple(found)


def _why(config: Config, route: CompiledRoute, winner: CompiledRoute | None, question: Question, target: Target) -> str:
    if route.host is not None and host_of(question.host) != route.host:
        asked = f", not for {quoted(question.host)}" if question.host else ", and the request names no host"
        return f"it is for the host {route.host}{asked}"
    alone = _alone(config, route, question, target)
    if isinstance(target, LiteralTarget) and isinstance(alone, BadTarget):
        alone = _alone(config, route, question, target.as_sent)
        if isinstance(alone, Matched):
            return "it refuses such slashes (encoded_slash, double_slash)"
    if isinstance(alone, NoRoute) and (why := _of_another_reading(config, route, question, target)):
        return why
    if isinstance(alone, MethodNotAllowed):
        return f"it takes {listed(alone.allow)}, not {question.method}"
    if isinstance(alone, NoRoute | BadTarget):
        return "it compares the path exactly, and this spelling of it is another (case, ';', a final '/' or an escape)"
    if winner is None:
        raise TypeError(f"{route.label!r} judges {question} alone, and among others nothing does")
    return _compared(config, route, winner, question, target)


def _of_another_reading(config: Config, route: CompiledRoute, question: Question, target: Target) -> str | None:
    """Where an upstream that decodes or merges slashes, or ends the path at a decoded `?`, would have come to this route."""
    for reading in target.others if isinstance(target, LiteralTarget) else target.ends_early:
        if isinstance(_alone(config, route, question, reading), Matched):
            return f"it is for {reading.path}, which an upstream may read; what it asks for is asked as well"
    return None


def _compared(config: Config, route: CompiledRoute, winner: CompiledRoute, question: Question, target: Target) -> str:
    """Both would have judged it."""
    if winner.index >= 0 and isinstance(_alone(config, winner, question, target), NoRoute):
        return (
            f"the path is a respelling of {winner.label!r}, which is more specific and asks for more: "
            "an upstream may read it so"
        )
    if winner.specificity < route.specificity:
        return f"{winner.label!r} is more specific: {_first_difference(winner, route)}"
    if is_spelled(winner, target) and not is_spelled(route, target):
        return f"{winner.label!r} is written in exactly this spelling"
    return f"{winner.label!r} names {question.method}"


def _first_difference(winner: CompiledRoute, route: CompiledRoute) -> str:
    (winner_host, *winner_kinds), (route_host, *route_kinds) = winner.specificity, route.specificity
    if winner_host != route_host:
        return "it names the host"
    for position, (one, other) in enumerate(zip(winner_kinds, route_kinds, strict=False)):
        if one != other:
            return f"it has {_KINDS[one]} where this has {_KINDS[other]}, in segment {position + 1}"
    return "it ends where this goes on with '/**'"


def _alone(config: Config, route: CompiledRoute, question: Question, target: Target) -> Outcome:
    """What the request would meet if this were the only route."""
    alone = config.routes[route.index].model_copy(update={"path": route.pattern, "paths": ()})
    only = config.model_copy(update={"routes": (alone,), "default": "deny"})
    table = compile_routes(only).table
    if table is None:
        raise TypeError(f"{route.label!r} compiles among others and not alone")
    return table.match(question.preflight_for or question.method, question.host, target)
