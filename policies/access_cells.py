"""Every pair of routes, one of an old table and one of a new, that can judge the same request; with such a request.

It decides where two tables have to be compared so that no difference is missed. It must never stop at the patterns
themselves: `/a/{x}/c` and `/{y}/b/c` meet in `/a/b/c`, which neither's own sample shows.

Why it is enough. Let the old table judge a request by O and the new one by N, and let M be the most general path that
O and N both match, with the request's own length. Whatever else matches M matches the request, too, and lost there to
O or N; so O and N also win at M. Hence one request for each meeting of an old route with a new one shows everything,
and where both are unchanged, O is as specific as N and the answer is the same. A `/**` is taken once per length. Each
meeting is asked with and without a final slash, and whole in another case, because routes compare spellings differently;
a request of which only a part is respelled is judged no more kindly than these (P1), and is not tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import ascii_letters
from typing import Final
from urllib.parse import quote

from policies.literal_cells import Taker, literal_requests
from policies.paths import BadTarget, Target, read_target
from policies.patterns import parse_pattern
from policies.route_table import COMMON_METHODS, CompiledRoute, Matched, MethodNotAllowed, Outcome, RouteTable
from policies.schema import Config, Route
from policies.spelling import lenient

Found = Outcome
Shape = tuple[str | None, ...]
"""A path of one length; None is any segment."""

_PLACES: Final = frozenset({"path", "paths"})

_Judge = tuple[object, ...] | str

OTHER_METHODS: Final = "*"

_OTHER_CASE: Final = str.maketrans(ascii_letters, ascii_letters.swapcase())
_UNNAMED: Final = "UNNAMED"
"""A method that no route names, where every common one is named."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One request and who judges it; `OTHER_METHODS` among the methods is every one that no route names."""

    target: Target
    host: str
    methods: tuple[str, ...]
    before: Found
    after: Found
    is_literal: bool = False
    """Whether its slashes are taken literally: what else a route settles is told where they are none."""

    @property
    def path(self) -> str:
        """For people: `~` stands for any segment that no route names."""
        return self.target.raw.decode() if self.is_literal else self.target.path


@dataclass(frozen=True, slots=True)
class _Placed:
    shape: Shape
    host: str | None
    is_changed: bool


def cells(old: tuple[Config, RouteTable], new: tuple[Config, RouteTable]) -> Iterator[Cell]:
    """Each pair of judges once, with the shortest request found for it and all methods for which it holds."""
    old_table, new_table = old[1], new[1]
    named, other = _methods(old_table, new_table)
    merged: dict[tuple[_Judge, _Judge], tuple[Target, str, Found, Found, dict[str, None]]] = {}
    for host, target in _requests(old, new):
        for method in (*named, other):
            before, after = old_table.match(method, host, target), new_table.match(method, host, target)
            key = (_judge(before), _judge(after))
            if key in merged:
                merged[key][-1][method] = None
            else:
                merged[key] = (target, host, before, after, {method: None})
    literal: dict[tuple[_Judge, _Judge], tuple[Target, str, Found, Found, dict[str, None]]] = {}
    for host, raw in _literal_requests(old, new):
        was_read, is_read = old_table.read(raw), new_table.read(raw)
        if isinstance(was_read, BadTarget) or isinstance(is_read, BadTarget):
            continue  # one of the two takes no such slashes at all: that is told of the route
        for method in (*named, other):
            before, after = old_table.match(method, host, was_read), new_table.match(method, host, is_read)
            key = (_judge(before), _judge(after))
            if key in merged or not (isinstance(before, Matched) and isinstance(after, Matched)):
                continue
            literal.setdefault(key, (was_read, host, before, after, {}))[-1][method] = None
    for each, is_literal in ((merged, False), (literal, True)):
        for target, host, before, after, methods in each.values():
            shown = tuple(OTHER_METHODS if method == other else method for method in methods)
            yield Cell(target, host, shown, before, after, is_literal)


def _literal_requests(old: tuple[Config, RouteTable], new: tuple[Config, RouteTable]) -> Iterator[tuple[str, bytes]]:
    """Host and raw target of what a route of either table takes literally and another might be meant by."""
    old_keys, new_keys = _keys(*old), _keys(*new)
    kept: list[Taker] = []
    changed: list[Taker] = []
    for (config, table), keys, others in ((old, old_keys, new_keys), (new, new_keys, old_keys)):
        del config
        for route in table.routes:
            (kept if keys[route.place] in set(others.values()) else changed).append(_taker(route))
    longest = 2 + max((len(one.shape) for one in (*kept, *changed)), default=0)
    anywhere = [Taker((None,) * length, None, False, False, False) for length in range(1, longest)]
    fresh = _fresh(segment for one in (*kept, *changed) for segment in one.shape if segment is not None)
    met = (
        *literal_requests(filter(_takes, changed), (*kept, *changed, *anywhere)),
        *literal_requests(filter(_takes, kept), (*changed, *anywhere)),
    )
    for request in dict.fromkeys(met):
        yield request.host or "", request.path(fresh).encode()


def _taker(route: CompiledRoute) -> Taker:
    shape = tuple(None if segment is None else quote(segment) for segment in _segments(route))
    below = route.pattern.endswith("/**")
    return Taker(shape, route.host, below, route.keeps_encoded_slash, route.keeps_double_slash)


def _takes(one: Taker) -> bool:
    return one.keeps_encoded_slash or one.keeps_double_slash


def _judge(found: Found) -> _Judge:
    if isinstance(found, Matched):
        route = found.route  # which may ask for more than it says, for the sake of another one (P1)
        return (*route.place, route.requirement, route.enforcement, route.fails_open)
    return "405" if isinstance(found, MethodNotAllowed) else "404"


def _methods(old: RouteTable, new: RouteTable) -> tuple[list[str], str]:
    """Every method that a route names, and one that stands for all others."""
    named = {method for table in (old, new) for route in table.routes for method in route.methods or ()}
    other = next((method for method in ("GET", *sorted(COMMON_METHODS)) if method not in named), _UNNAMED)
    return sorted(named), other


def _requests(old: tuple[Config, RouteTable], new: tuple[Config, RouteTable]) -> Iterator[tuple[str, Target]]:
    """Host and target of every meeting, and of every route by itself, the shortest first."""
    old_keys, new_keys = _keys(*old), _keys(*new)
    longest = 1 + max((len(_segments(route)) for route in (*old[1].routes, *new[1].routes)), default=0)
    before = list(_placed(old[1], old_keys, set(new_keys.values()), longest))
    after = list(_placed(new[1], new_keys, set(old_keys.values()), longest))
    found: dict[tuple[Shape, str | None], None] = {((None,) * length, None): None for length in range(longest + 1)}
    found |= {(placed.shape, placed.host): None for placed in (*before, *after)}
    found |= dict.fromkeys(_meetings(before, after))
    fresh = _fresh(segment for shape, _ in found for segment in shape if segment is not None)
    for shape, host in sorted(
        found, key=lambda each: (len(each[0]), [segment or "" for segment in each[0]], each[1] or "")
    ):
        for spelled in dict.fromkeys((shape, _respelled(shape))):
            path = "".join(f"/{quote(fresh if segment is None else segment)}" for segment in spelled)
            for slash in ("", "/") if shape else ("/",):
                target = read_target((path + slash).encode())
                if not isinstance(target, Target):
                    raise TypeError(f"{path + slash!r} is made of patterns, and patterns hold only what can be read")
                yield host or "", target


def _respelled(shape: Shape) -> Shape:
    """In another case, as a lenient route takes it and an exact one doesn't."""
    return tuple(segment if segment is None else segment.translate(_OTHER_CASE) for segment in shape)


def _keys(config: Config, table: RouteTable) -> dict[tuple[int, str], tuple[object, ...]]:
    """What each route says, whatever its place; two of the same key judge alike."""
    return {
        route.place: (
            route.pattern,
            *(repr(getattr(config.routes[route.index], name)) for name in Route.model_fields if name not in _PLACES),
        )
        for route in table.routes
    }


def _placed(
    table: RouteTable, keys: dict[tuple[int, str], tuple[object, ...]], others: set[tuple[object, ...]], longest: int
) -> Iterator[_Placed]:
    for route in table.routes:
        segments, is_changed = _segments(route), keys[route.place] not in others
        last = longest if route.pattern.endswith("/**") else len(segments)
        for length in range(len(segments), last + 1):
            yield _Placed(segments + (None,) * (length - len(segments)), route.host, is_changed)


def _segments(route: CompiledRoute) -> Shape:
    pattern = parse_pattern(route.pattern)
    if isinstance(pattern, str):
        raise TypeError(f"{route.pattern!r} is a compiled route's and can't be read: {pattern}")
    return pattern.segments


def _meetings(before: list[_Placed], after: list[_Placed]) -> Iterator[tuple[Shape, str | None]]:
    """Where a changed route of one table meets any of the other."""
    for changed, others in ((before, after), (after, before)):
        by_first: defaultdict[tuple[int, str | None], list[_Placed]] = defaultdict(list)
        by_length: defaultdict[int, list[_Placed]] = defaultdict(list)
        for other in others:
            by_length[len(other.shape)].append(other)
            by_first[len(other.shape), _first(other.shape)].append(other)
        for one in changed:
            if not one.is_changed:
                continue
            length, first = len(one.shape), _first(one.shape)
            near = by_length[length] if first is None else by_first[length, first] + by_first[length, None]
            for other in near:
                if one.host is None or other.host is None or one.host == other.host:
                    # Each spelling of what both call the same, so that an exact route is met in its own.
                    for left, right in ((one.shape, other.shape), (other.shape, one.shape)):
                        if (met := _meet(left, right)) is not None:
                            yield met, one.host or other.host


def _first(shape: Shape) -> str | None:
    return lenient(shape[0]) if shape and shape[0] is not None else None


def _meet(one: Shape, other: Shape) -> Shape | None:
    met: list[str | None] = []
    for left, right in zip(one, other, strict=True):
        if left is not None and right is not None and lenient(left) != lenient(right):
            return None
        met.append(right if left is None else left)
    return tuple(met)


def _fresh(literals: Iterable[str]) -> str:
    """A segment that no route names."""
    taken = {lenient(literal) for literal in literals}
    segment = "~"
    while segment in taken:
        segment += "~"
    return segment
