"""Which route judges a request (P1, P2; DESIGN.md, sections 3 and 9).

It decides the one route for a method, a host and a target, in time that doesn't depend on how many routes there are.
It must never let a respelling reach a laxer route than the plain spelling does, and never repair a spelling.

**Who matches.** A route with a tier, feature, scope or claim compares its literals leniently: without ASCII case, up to the first
`;`, ignoring one trailing `/`. All others, and those with `spelling: exact`, compare exactly.

**Who wins** among those that match and admit the method: the most specific. A route with `host` before one without;
then literal before `{name}` before `/**`, position by position; then the route that was written in exactly this
spelling; then one that names the method, then one that admits HEAD because it names GET, then one without `methods`.
So an open `/v1/Models` beside a lenient `/v1/models` has its own spelling and no other (the compiler warns of it),
while `/V1/Reports/7` finds the tier of `/v1/reports/{id}` and not an open `/**`.

**The guard.** Before a lax winner is believed, the path is read as the most forgiving server would read it
(`policies.spelling`), by *every* route that doesn't say `spelling: exact`. If a route so found is more specific than
the winner (or as specific, where the winner is not written in this spelling) and stricter, the strictest of these takes its place (where scopes or claims leave open which is the stricter,
what both ask for is asked); and where only the default was left, a route that so
matches with another method makes it a 405, unless one that compares as leniently admits this one. The guard only ever makes an answer stricter. It is why `/V1/Models` is not
public under an open `/**` when `/v1/models` needs a token, and why `/pro%20` is judged as `/pro`.

Hence, for requests P and Q where some server reads Q as P: what P needs, Q needs at least, or Q's winner was written
for exactly the spelling of Q and is at least as specific as P's.

**Early ends.** A server that decodes before it looks for `?` and `#` reads `/a%3F/b` as `/a`, with fewer segments: specificity
says nothing there. Each such target is matched, too, with its own guard, and the winner asks for all that its route asks for.

**Enforcement.** Routes match, and win, as if all were enforced: what `observe` counts is what `on` would refuse. For the
guard a route that isn't enforced for everybody is as lax as if it asked for nothing, and one that refuses nobody
guards nothing.

**Slashes.** A target with `%2F` or `//` is a 400 unless the route that wins says it takes them literally. Then whatever an
upstream may read that decodes or merges them is matched as a target of its own (`policies.literal_slashes`), and the
winner asks for all that any of these routes ask for, how specific it may be: the readings differ in their number of segments.

A path that matches only with other methods is a 405, also where `default` would let it through. A route without
`methods` admits every method but CONNECT and TRACE; methods are compared exactly, so `get` is not one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.compiled_route import (
    ASKS_FOR_NOTHING,
    MOST_STRICT,
    CompiledRoute,
    asking_also,
    asking_for_both,
    strictness_of,
)
from policies.literal_slashes import LiteralTarget, read_literally
from policies.paths import BadTarget, Target, read_target
from policies.patterns import host_of, parse_pattern

__all__ = [
    "COMMON_METHODS",
    "MOST_STRICT",
    "NO_ROUTE",
    "REFUSED_METHODS",
    "CompiledRoute",
    "HostTree",
    "Leaf",
    "Matched",
    "MethodNotAllowed",
    "Methods",
    "NoRoute",
    "Node",
    "Outcome",
    "RouteTable",
    "Spelling",
    "admits_any",
    "is_spelled",
    "strictness_of",
]

COMMON_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
"""Never admitted: a gateway is no tunnel, and TRACE shows the caller what the gateway added (RFC 9110, 9.3.6, 9.3.8)."""


@dataclass(frozen=True, slots=True)
class Matched:
    """This route judges the request."""

    route: CompiledRoute


@dataclass(frozen=True, slots=True)
class NoRoute:
    """404 `no_route`."""


@dataclass(frozen=True, slots=True)
class MethodNotAllowed:
    """405 `method_not_allowed`; `allow` is for the `Allow` field, sorted."""

    allow: tuple[str, ...]


NO_ROUTE: Final = NoRoute()

Outcome = Matched | NoRoute | MethodNotAllowed | BadTarget
"""`BadTarget` is for slashes that the route found doesn't take literally."""


def admits_any(method: str) -> bool:
    """Whether a route without `methods` admits this one."""
    return method in COMMON_METHODS or (method.isascii() and method.isupper() and method not in REFUSED_METHODS)


@dataclass(frozen=True, slots=True)
class Methods:
    """What routes of one pattern answer, by method. HEAD stands in `named` wherever GET does."""

    named: Mapping[str, Matched]
    others: Matched | None

    def pick(self, method: str) -> Matched | None:
        """The route for `method`."""
        found = self.named.get(method)
        if found is None and self.others is not None and admits_any(method):
            return self.others
        return found

    @property
    def allow(self) -> frozenset[str]:
        """What `Allow` can say of these."""
        return frozenset(self.named) | (COMMON_METHODS if self.others is not None else frozenset())


@dataclass(slots=True)
class _Admission:
    """What routes that could be meant admit: every method, and whether the one that was sent."""

    allow: set[str] = field(default_factory=set)
    admits: bool = False

    def note(self, methods: Methods, method: str) -> None:
        self.allow |= methods.allow
        self.admits = self.admits or methods.pick(method) is not None


@dataclass(frozen=True, slots=True)
class Spelling:
    """The routes of one pattern that were written in one spelling, found by exactly that one.

    `has_trailing_slash` is None below a `/**`, where the slash makes no difference.
    """

    literals: tuple[tuple[int, str], ...]
    has_trailing_slash: bool | None
    methods: Methods

    def is_of(self, target: Target) -> bool:
        """Whether the target is spelled so. Its length and shape are known to fit."""
        if self.has_trailing_slash is not None and self.has_trailing_slash is not target.has_trailing_slash:
            return False
        segments = target.segments
        return all(segments[position] == literal for position, literal in self.literals)


@dataclass(frozen=True, slots=True)
class Leaf:
    """All routes of one pattern but for spelling: by exact spelling, by lenient spelling, and as the guard sees them."""

    spellings: tuple[Spelling, ...]
    lenient: Methods | None
    guards: tuple[Methods, ...]

    def pick(self, method: str, target: Target) -> Matched | None:
        """The route for the method and the spelling of the target."""
        for spelling in self.spellings:
            if spelling.is_of(target) and (found := spelling.methods.pick(method)) is not None:
                return found
        return None if self.lenient is None else self.lenient.pick(method)

    def allow(self, target: Target) -> frozenset[str]:
        """The methods with which `pick` finds something."""
        allowed = frozenset[str]() if self.lenient is None else self.lenient.allow
        return allowed.union(*(spelling.methods.allow for spelling in self.spellings if spelling.is_of(target)))


@dataclass(frozen=True, slots=True)
class Node:
    """One position of the tree. `literals` is keyed by the folded segment; `here` ends a pattern, `below` is its `/**`."""

    literals: Mapping[str, Node]
    parameter: Node | None
    here: Leaf | None
    below: Leaf | None


@dataclass(frozen=True, slots=True)
class HostTree:
    """The patterns of one host, or of any: keyed by `lenient` literals, and by the furthest reading of them."""

    lenient: Node
    furthest: Node


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Every route of one configuration. Made by `policies.routes.compile_routes`; nothing in it changes afterwards.

    `strictest` is the greatest strictness among the routes that guard; `reads_literally` says that some route takes
    `%2F` or `//` literally.
    """

    routes: tuple[CompiledRoute, ...]
    default: CompiledRoute | None
    hosts: Mapping[str, HostTree]
    any_host: HostTree
    strictest: int
    reads_literally: bool = False

    def read(self, raw: bytes) -> Target | BadTarget:
        """What stands between the method and the version in the request line, as far as any route here could take it."""
        target = read_target(raw)
        return read_literally(raw, target) if self.reads_literally and isinstance(target, BadTarget) else target

    def find(self, method: str, host: str, raw: bytes) -> Outcome:
        """`match` for a target that isn't read yet."""
        target = self.read(raw)
        return target if isinstance(target, BadTarget) else self.match(method, host, target)

    def match(self, method: str, host: str, target: Target) -> Outcome:
        """The route that judges this request; `host` is the Host field as it was sent, `target` what `read` made of it.

        For a CORS preflight pass its `Access-Control-Request-Method`: the route so found names the upstream.
        """
        if isinstance(target, LiteralTarget):
            return self._match_literally(method, host, target)
        found = self._match(method, host, target)
        return self._not_less(found, method, host, target.ends_early) if target.ends_early else found

    def _match(self, method: str, host: str, target: Target) -> Outcome:
        trees = self._trees_for(host) if self.hosts else (self.any_host,)
        for tree in trees:
            found = _first(tree.lenient, target.folded, 0, method, target)
            if found is not None:
                # Routes with a tier took part leniently: without further readings only a token can still be missed.
                reach = self.strictest if target.further else min(self.strictest, 1)
                return found if found.route.assured >= reach else self._guarded(found, trees, method, target)
        allow = frozenset[str]().union(
            *(leaf.allow(target) for tree in trees for leaf in _leaves(tree.lenient, target.folded, 0))
        )
        if allow:
            return MethodNotAllowed(tuple(sorted(allow)))
        if self.default is None:
            return NO_ROUTE
        return self._guarded(Matched(self.default), trees, method, target)

    def _match_literally(self, method: str, host: str, target: LiteralTarget) -> Outcome:
        """The route of the target as it was sent, asking for no less than that of any other reading."""
        found = self.match(method, host, target.as_sent)
        if not isinstance(found, Matched) or not _keeps(found.route, target):
            return target.otherwise
        return self._not_less(found, method, host, target.others)

    def _not_less(self, found: Outcome, method: str, host: str, others: Iterable[Target]) -> Outcome:
        """What was found, asking for no less than the routes of other readings do."""
        if not isinstance(found, Matched):
            return found
        route = found.route
        for reading in others:
            other = self.match(method, host, reading)
            if isinstance(other, NoRoute | MethodNotAllowed) and reading.further:
                # No route is written so, but one may be read so: what is read in two ways at once is still guarded.
                trees = self._trees_for(host) if self.hosts else (self.any_host,)
                other = self._guarded(Matched(ASKS_FOR_NOTHING), trees, method, reading)
            if isinstance(other, Matched):
                route = asking_also(route, other.route)
        return Matched(route)

    def near(self, target: Target) -> tuple[CompiledRoute, ...]:
        """Every route, whatever its host and methods, whose pattern fits some reading of the target; for explanations."""
        found: dict[tuple[int, str], CompiledRoute] = {}
        others = target.others if isinstance(target, LiteralTarget) else target.ends_early
        readings = (target, *others)
        trees = (*self.hosts.values(), self.any_host)
        for leaf in (leaf for reading in readings for tree in trees for leaf in _near(tree, reading)):
            own = (leaf.lenient,) if leaf.lenient is not None else ()
            for methods in (*own, *leaf.guards, *(spelling.methods for spelling in leaf.spellings)):
                unnamed = (methods.others,) if methods.others is not None else ()
                found |= {matched.route.place: matched.route for matched in (*methods.named.values(), *unnamed)}
        return tuple(found[place] for place in sorted(found))

    def _guarded(
        self, winner: Matched, trees: tuple[HostTree, ...], method: str, target: Target
    ) -> Matched | MethodNotAllowed:
        best = winner
        every, lenient = _Admission(), _Admission()
        for leaf in _guards(trees, target):
            if leaf.lenient is not None:
                lenient.note(leaf.lenient, method)
            for methods in leaf.guards:
                every.note(methods, method)
                found = methods.pick(method)
                if found is None:
                    continue
                if not best.route.asks_as_much_as(found.route) and _outranks(found.route, winner.route, target):
                    best = found if found.route.asks_as_much_as(best.route) else Matched(_both(best.route, found.route))
        if best.route is self.default:
            # A route that compares exactly admits the method for one of the readings, and not for the others.
            for admission in (every, lenient):
                if admission.allow and not admission.admits:
                    return MethodNotAllowed(tuple(sorted(admission.allow)))
        return best

    def _trees_for(self, header: str) -> tuple[HostTree, ...]:
        host = host_of(header)
        named = None if host is None else self.hosts.get(host)
        return (self.any_host,) if named is None else (named, self.any_host)


def is_spelled(route: CompiledRoute, target: Target) -> bool:
    """Whether the route was written in exactly this spelling. Its shape is known to fit."""
    pattern = parse_pattern(route.pattern)
    if isinstance(pattern, str):
        raise TypeError(f"{route.pattern!r} is a compiled route's and can't be read: {pattern}")
    same_slash = pattern.has_below or pattern.has_trailing_slash is target.has_trailing_slash
    return same_slash and all(
        literal in {None, segment} for literal, segment in zip(pattern.segments, target.segments, strict=False)
    )


def _keeps(route: CompiledRoute, target: LiteralTarget) -> bool:
    return (route.keeps_encoded_slash or not target.has_encoded_slash) and (
        route.keeps_double_slash or not target.has_double_slash
    )


def _outranks(guard: CompiledRoute, winner: CompiledRoute, target: Target) -> bool:
    """Whether the guard stands before the winner: more specific, or as specific where the winner is spelled otherwise."""
    if guard.specificity == winner.specificity:
        return not is_spelled(winner, target)
    return guard.specificity < winner.specificity


def _both(one: CompiledRoute, other: CompiledRoute) -> CompiledRoute:
    """The more specific of the two, asking for what either asks for."""
    nearer, further = sorted((one, other), key=lambda route: route.specificity)
    return asking_for_both(nearer, further)


def _first(node: Node, segments: tuple[str, ...], depth: int, method: str, target: Target) -> Matched | None:
    """The most specific route below `node`: depth first, literal before parameter before `/**`.

    A node is one prefix of a pattern, so none is visited twice.
    """
    found: Matched | None
    if depth == len(segments):
        if node.here is not None and (found := node.here.pick(method, target)) is not None:
            return found
    else:
        child = node.literals.get(segments[depth])
        if child is not None and (found := _first(child, segments, depth + 1, method, target)) is not None:
            return found
        child = node.parameter
        if child is not None and (found := _first(child, segments, depth + 1, method, target)) is not None:
            return found
    return None if node.below is None else node.below.pick(method, target)


def _leaves(node: Node, segments: tuple[str, ...], depth: int) -> Iterator[Leaf]:
    """Every leaf that fits, the most specific first."""
    if depth < len(segments):
        child = node.literals.get(segments[depth])
        if child is not None:
            yield from _leaves(child, segments, depth + 1)
        if node.parameter is not None:
            yield from _leaves(node.parameter, segments, depth + 1)
    elif node.here is not None:
        yield node.here
    if node.below is not None:
        yield node.below


def _near(tree: HostTree, target: Target) -> Iterator[Leaf]:
    yield from _leaves(tree.lenient, target.folded, 0)
    for reading in target.further:
        yield from _leaves(tree.furthest, reading, 0)


def _guards(trees: tuple[HostTree, ...], target: Target) -> Iterator[Leaf]:
    for tree in trees:
        yield from _leaves(tree.lenient, target.folded, 0)
        for reading in target.further:
            yield from _leaves(tree.furthest, reading, 0)
