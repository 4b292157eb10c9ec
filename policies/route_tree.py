"""The tree of one host's routes while it is drawn: who stands where, who ties, who can never be reached.

It decides nothing about a request. A sketch is thrown away once it is grown into the frozen nodes of
`policies.route_table`; routes are put in order by what they say, never by where the file says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from types import MappingProxyType

from policies.diagnostics import Severity
from policies.patterns import Pattern
from policies.route_table import CompiledRoute, HostTree, Leaf, Matched, Methods, Node, Spelling
from policies.spelling import Ambiguous, furthest_reading, lenient


@dataclass(frozen=True, slots=True)
class PlacedRoute:
    """A compiled route with its pattern. `guards` is false with `spelling: exact`; `named_methods` are as written."""

    route: CompiledRoute
    pattern: Pattern
    is_lenient: bool
    guards: bool
    named_methods: frozenset[str]

    @property
    def literals(self) -> tuple[tuple[int, str], ...]:
        """The literal segments with their positions."""
        return tuple((at, text) for at, text in enumerate(self.pattern.segments) if text is not None)

    @property
    def trailing_slash(self) -> bool | None:
        """Whether a path of exactly this spelling ends in a slash; None where both do."""
        return None if self.pattern.has_below else self.pattern.has_trailing_slash

    @property
    def is_root(self) -> bool:
        """Whether it matches from the top, where a path always ends in a slash."""
        return not self.pattern.segments


@dataclass(slots=True)
class Sketch:
    """One position of the tree being drawn."""

    literals: dict[str, Sketch] = field(default_factory=dict)
    parameter: Sketch | None = None
    here: list[PlacedRoute] = field(default_factory=list)
    below: list[PlacedRoute] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two routes that can't both have what they ask for."""

    route: CompiledRoute
    other: CompiledRoute
    code: str
    message: str
    severity: Severity


def sketch(routes: Iterable[PlacedRoute], fold: Callable[[str], str] = lenient) -> Sketch:
    """The tree of these routes, their literals folded."""
    root = Sketch()
    for placed in routes:
        at = root
        for segment in placed.pattern.segments:
            if segment is None:
                at.parameter = at.parameter or Sketch()
                at = at.parameter
            else:
                at = at.literals.setdefault(fold(segment), Sketch())
        (at.below if placed.pattern.has_below else at.here).append(placed)
    return root


def grow(routes: Iterable[PlacedRoute]) -> HostTree:
    """The frozen trees that requests are matched against."""
    routes = tuple(routes)
    furthest = sketch((placed for placed in routes if placed.guards), _furthest)
    return HostTree(_node(sketch(routes), _leaf), _node(furthest, _guards_only))


def conflicts_of(root: Sketch) -> Iterator[Conflict]:
    """Ties, spellings that an upstream may not tell apart, and routes that others hide."""
    pending = [root]
    while pending:
        at = pending.pop()
        for leaf in (at.here, at.below):
            for one, other in combinations(leaf, 2):
                yield from _between(one, other)
        for hidden in at.below:
            by = _hidden_by(hidden, at)
            if by is not None:
                yield Conflict(
                    hidden.route,
                    by.route,
                    "shadowed-route",
                    f"{hidden.route.pattern!r} never judges a request: {by.route.pattern!r} and the routes beside it are "
                    "more specific and leave nothing over",
                    Severity.WARNING,
                )
        pending += at.literals.values()
        if at.parameter is not None:
            pending.append(at.parameter)


def _between(one: PlacedRoute, other: PlacedRoute) -> Iterator[Conflict]:
    first, second = sorted((one, other), key=lambda placed: placed.route.place)
    has_same_methods = bool(one.named_methods & other.named_methods) or not (one.named_methods or other.named_methods)
    is_same_spelling = one.literals == other.literals and one.trailing_slash == other.trailing_slash
    if has_same_methods and (is_same_spelling or (one.is_lenient and other.is_lenient)):
        common = ", ".join(sorted(one.named_methods & other.named_methods))
        yield Conflict(
            second.route,
            first.route,
            "ambiguous-route",
            f"{second.route.pattern!r} and {first.route.pattern!r} are equally specific"
            + (f" for {common}" if common else "")
            + (
                ", so neither wins; leave one out"
                if is_same_spelling
                else " and differ only in a spelling that both ignore; leave one out, or give one 'spelling: exact'"
            ),
            Severity.ERROR,
        )
        return
    if is_same_spelling or one.is_lenient is other.is_lenient:
        return
    exact, forgiving = (one, other) if other.is_lenient else (other, one)
    if (
        exact.guards
        and not exact.route.asks_as_much_as(forgiving.route)
        and (has_same_methods or not (one.named_methods and other.named_methods))
    ):
        yield Conflict(
            exact.route,
            forgiving.route,
            "respelled-route",
            f"{exact.route.pattern!r} asks for less than {forgiving.route.pattern!r}, from which it differs only in its "
            "spelling; on an upstream that ignores the difference it gives that route away",
            Severity.WARNING,
        )


def _hidden_by(hidden: PlacedRoute, at: Sketch) -> PlacedRoute | None:
    """A route that, with others, takes all that a `/**` could match: the path itself, and every path below."""
    deeper = [] if at.parameter is None else at.parameter.below
    slashes = (True,) if hidden.is_root else (True, False)
    witness: PlacedRoute | None = None
    for method in hidden.named_methods or {None}:
        for slash in slashes:
            if not any(
                _covers(placed, hidden, method) and (placed.is_lenient or placed.trailing_slash is slash)
                for placed in at.here
            ):
                return None
        witness = next((placed for placed in deeper if _covers(placed, hidden, method)), None)
        if witness is None:
            return None
    return witness


def _covers(placed: PlacedRoute, hidden: PlacedRoute, method: str | None) -> bool:
    if placed.named_methods and (method is None or method not in placed.named_methods):
        return False
    return placed.is_lenient or (not hidden.is_lenient and placed.literals == hidden.literals)


def _node(at: Sketch, leaf_of: Callable[[list[PlacedRoute]], Leaf]) -> Node:
    return Node(
        literals=MappingProxyType({literal: _node(below, leaf_of) for literal, below in at.literals.items()}),
        parameter=None if at.parameter is None else _node(at.parameter, leaf_of),
        here=leaf_of(at.here) if at.here else None,
        below=leaf_of(at.below) if at.below else None,
    )


def _leaf(routes: list[PlacedRoute]) -> Leaf:
    """Exact spellings come first. Where every route is lenient in one spelling, all of it is in `lenient`."""
    by_spelling = _by_spelling(routes)
    forgiving = [placed for placed in routes if placed.is_lenient]
    is_one_lenient_pattern = len(by_spelling) == 1 and len(forgiving) == len(routes)
    return Leaf(
        spellings=()
        if is_one_lenient_pattern
        else tuple(Spelling(literals, slash, _methods(spelled)) for (literals, slash), spelled in by_spelling),
        lenient=_methods(forgiving) if forgiving else None,
        guards=_guards_only(routes).guards,
    )


def _guards_only(routes: list[PlacedRoute]) -> Leaf:
    guarding = [placed for placed in routes if placed.guards]
    forgiving = [placed for placed in guarding if placed.is_lenient]
    by_spelling = _by_spelling(guarding)
    return Leaf((), _methods(forgiving) if forgiving else None, tuple(_methods(spelled) for _, spelled in by_spelling))


def _by_spelling(
    routes: list[PlacedRoute],
) -> list[tuple[tuple[tuple[tuple[int, str], ...], bool | None], list[PlacedRoute]]]:
    """Sorted, so that the order of the file decides nothing. All of one leaf have a trailing slash of one type."""
    by_spelling: dict[tuple[tuple[tuple[int, str], ...], bool | None], list[PlacedRoute]] = {}
    for placed in routes:
        by_spelling.setdefault((placed.literals, placed.trailing_slash), []).append(placed)
    return sorted(by_spelling.items(), key=lambda each: each[0])


def _methods(routes: list[PlacedRoute]) -> Methods:
    named = {method: Matched(placed.route) for placed in routes for method in placed.named_methods}
    if "GET" in named:
        named.setdefault("HEAD", named["GET"])
    others = next((Matched(placed.route) for placed in routes if not placed.named_methods), None)
    return Methods(MappingProxyType(named), others)


def _furthest(literal: str) -> str:
    reading = furthest_reading(literal)
    if isinstance(reading, Ambiguous):
        raise TypeError(f"a pattern holds {literal!r}, which parse_pattern refuses")
    return reading.name
