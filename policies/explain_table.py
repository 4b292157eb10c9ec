"""The routes in the order in which they win, with what each comes to: what `gateway routes` shows.

It decides the order of lines and nothing about a request: specificity is what the table matches by, and routes that it
doesn't part are in the order of what they say, never of the file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from policies.requirement import Access
from policies.route_table import CompiledRoute, RouteTable
from policies.routes import is_lenient
from policies.schema import Config
from policies.verdict import asks


@dataclass(frozen=True, slots=True)
class RouteLine:
    """One line. `methods` and `host` None are any; `path` None is the default; `spelling` is how literals compare.

    `literal` are the settings by which slashes are taken literally: `encoded_slash`, `double_slash`.
    """

    order: int
    methods: tuple[str, ...] | None
    host: str | None
    path: str | None
    access: str
    asks: str
    tier: str | None
    features: tuple[str, ...]
    upstream: str | None
    spelling: str | None
    enforce: str | None
    literal: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For ``--format json``."""
        return asdict(self)


def effective_table(config: Config, table: RouteTable) -> tuple[RouteLine, ...]:
    """Every route, the most specific first, then what happens to everything else."""
    routes = sorted(
        table.routes, key=lambda one: (one.specificity, one.pattern, one.methods is None, sorted(one.methods or ()))
    )
    lines = [_line(order, route, _spelling(config, route)) for order, route in enumerate(routes, 1)]
    if table.default is not None:
        return (*lines, _line(len(lines) + 1, table.default, None))
    return (
        *lines,
        RouteLine(len(lines) + 1, None, None, None, "deny", "refused with 404 no_route", None, (), None, None, None),
    )


def _line(order: int, route: CompiledRoute, spelling: str | None) -> RouteLine:
    needs = route.requirement
    return RouteLine(
        order=order,
        methods=None if route.methods is None else tuple(sorted(route.methods)),
        host=route.host,
        path=None if route.index < 0 else route.pattern,
        access=needs.access.value,
        asks=asks(needs),
        tier=needs.tier,
        features=needs.features,
        upstream=route.upstream,
        spelling=spelling,
        enforce=None if route.index < 0 or needs.access is Access.PUBLIC else str(route.enforcement),
        literal=tuple(
            name
            for name, is_kept in (
                ("encoded_slash", route.keeps_encoded_slash),
                ("double_slash", route.keeps_double_slash),
            )
            if is_kept
        ),
    )


def _spelling(config: Config, route: CompiledRoute) -> str:
    return "lenient" if is_lenient(config.routes[route.index], route.requirement) else "exact"
