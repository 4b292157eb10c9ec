"""Configurations and route tables in a line, for tests that route."""

from __future__ import annotations

from typing import Any

from policies.paths import Target, read_target
from policies.routes import Compilation, Matched, MethodNotAllowed, NoRoute, RouteTable, compile_routes
from policies.schema import Config, Route, Tier, Upstream

TIERS = (
    Tier(name="free"),
    Tier(name="pro", prices=("price_pro",), features=("export",)),
    Tier(name="enterprise", prices=("price_ent",), features=("sso",)),
)


def route(path: str, **rest: Any) -> Route:
    """A route; public unless it says something else."""
    if not {"access", "tier", "features"} & rest.keys():
        rest["access"] = "public"
    return Route(path=path, **rest)


def config_of(*routes: Route, default: str = "deny", upstreams: tuple[str, ...] = ("api",)) -> Config:
    """A configuration with the tiers free, pro and enterprise."""
    return Config(
        version=1,
        upstreams={name: Upstream(targets=("http://127.0.0.1:9000",)) for name in upstreams},
        tiers=TIERS,
        routes=routes,
        default=default,
    )


def compiled(*routes: Route, **rest: Any) -> Compilation:
    """What the compiler makes of these routes."""
    return compile_routes(config_of(*routes, **rest))


def table_of(*routes: Route, **rest: Any) -> RouteTable:
    """The table of these routes, which must have no error."""
    outcome = compiled(*routes, **rest)
    assert outcome.table is not None, outcome.problems
    return outcome.table


def target_of(raw: bytes | str) -> Target:
    """A target that must be readable."""
    target = read_target(raw.encode() if isinstance(raw, str) else raw)
    assert isinstance(target, Target), (raw, target)
    return target


def judged(table: RouteTable, raw: str, method: str = "GET", host: str = "gw.test") -> str:
    """The label of the route that judges, or `404`, or `405 ALLOW`."""
    outcome = table.match(method, host, target_of(raw))
    if isinstance(outcome, Matched):
        return outcome.route.label
    if isinstance(outcome, MethodNotAllowed):
        return "405 " + ",".join(outcome.allow)
    assert isinstance(outcome, NoRoute)
    return "404"
