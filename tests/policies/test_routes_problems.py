"""What is wrong with a table of routes, as values with the routes' places."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.diagnostics import Severity
from policies.patterns import Pattern, parse_pattern
from policies.routes import compile_routes
from policies.schema import Route
from tests.support.route_tables import compiled, config_of, judged, route, table_of

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def found(*routes: Route, default: str = "deny", upstreams: tuple[str, ...] = ("api",)) -> list[tuple[object, ...]]:
    outcome = compiled(*routes, default=default, upstreams=upstreams)
    is_refused = any(problem.severity is ERROR for problem in outcome.problems)
    assert (outcome.table is None) is is_refused
    return [(each.route_index, each.other_index, each.code, each.severity) for each in outcome.problems]


@pytest.mark.parametrize(
    "routes",
    [
        (route("/a"), route("/a")),
        (route("/a"), route("/a", access="authenticated")),
        (route("/a"), route("/a", tier="pro")),
        (route("/a/{x}"), route("/a/{y}")),
        (route("/a/**"), route("/a/**", tier="pro")),
        (route("/**"), route("/**")),
        (route("/"), route("/")),
        (route("/a", methods=("GET", "PUT")), route("/a", methods=("PUT", "POST"))),
        (route("/a", host="H.test"), route("/a", host="h.test")),
        (route("/a", tier="pro"), route("/A", tier="pro")),
        (route("/a", tier="pro"), route("/a/", tier="enterprise")),
        (route("/a/{x}/B", tier="pro"), route("/A/{y}/b", features=("sso",))),
        (route("/a", tier="pro"), route("/A", spelling="lenient")),
    ],
)
def test_two_routes_that_tie_are_an_error_in_either_order(routes: tuple[Route, Route]) -> None:
    assert found(*routes) == [(1, 0, "ambiguous-route", ERROR)]
    assert found(*reversed(routes)) == [(1, 0, "ambiguous-route", ERROR)]


@pytest.mark.parametrize(
    "routes",
    [
        (route("/a"), route("/a/")),
        (route("/a"), route("/A")),
        (route("/a"), route("/a/**")),
        (route("/a"), route("/{x}")),
        (route("/a"), route("/a", methods=("GET",))),
        (route("/a", methods=("GET",)), route("/a", methods=("HEAD",))),
        (route("/a", methods=("GET",)), route("/a", methods=("PUT",))),
        (route("/a"), route("/a", host="h.test")),
        (route("/a", host="g.test"), route("/a", host="h.test")),
        (route("/a", tier="pro"), route("/A", tier="pro", spelling="exact")),
        (route("/a", tier="pro"), route("/{x}", tier="enterprise")),
        (route("/v1/{x}"), route("/{x}/v1", tier="pro")),
    ],
)
def test_routes_of_which_one_is_more_specific_are_fine(routes: tuple[Route, Route]) -> None:
    assert found(*routes) == []
    assert found(*reversed(routes)) == []


def test_every_pair_of_three_that_tie_is_named() -> None:
    assert found(route("/a"), route("/b"), route("/a"), route("/a")) == [
        (2, 0, "ambiguous-route", ERROR),
        (3, 0, "ambiguous-route", ERROR),
        (3, 2, "ambiguous-route", ERROR),
    ]


def test_an_open_route_that_is_a_tiers_but_for_spelling_is_warned_of_and_has_its_own_spelling() -> None:
    routes = (route("/v1/Models"), route("/v1/models", tier="pro"), route("/b/"), route("/b", features=("sso",)))
    assert found(*routes) == [(0, 1, "respelled-route", WARNING), (2, 3, "respelled-route", WARNING)]
    table = table_of(*routes)
    assert judged(table, "/v1/Models") == "/v1/Models"
    assert judged(table, "/v1/models") == "/v1/models"
    assert judged(table, "/V1/Models") == "/v1/models"
    assert judged(table, "/b/") == "/b/"
    assert judged(table, "/b") == "/b"


def test_whoever_says_exact_is_not_warned_of_spelling() -> None:
    assert found(route("/A", spelling="exact"), route("/a", tier="pro")) == []
    assert found(route("/A"), route("/a", tier="pro", spelling="exact")) == []


@pytest.mark.parametrize(
    ("routes", "witness"),
    [
        ((route("/a/**"), route("/a", tier="pro"), route("/a/{x}/**", tier="pro")), 2),
        ((route("/a/**"), route("/a"), route("/a/"), route("/a/{x}/**")), 3),
        ((route("/**"), route("/"), route("/{x}/**")), 2),
        ((route("/**", methods=("GET",)), route("/", methods=("GET", "PUT")), route("/{x}/**")), 2),
        ((route("/a/**", host="h"), route("/a", tier="pro", host="h"), route("/a/{x}/**", tier="pro", host="h")), 2),
    ],
)
def test_a_route_that_others_leave_nothing_is_warned_of(routes: tuple[Route, ...], witness: int) -> None:
    assert found(*routes) == [(0, witness, "shadowed-route", WARNING)]


@pytest.mark.parametrize(
    "routes",
    [
        (route("/a/**"), route("/a"), route("/a/{x}/**")),
        (route("/a/**"), route("/a/{x}/**")),
        (route("/a/**"), route("/a", tier="pro"), route("/a/{x}")),
        (route("/**"), route("/", methods=("GET",)), route("/{x}/**")),
        (route("/**"), route("/", host="h"), route("/{x}/**", host="h")),
        (route("/**"), route("/a/**"), route("/{x}")),
        (route("/A/**", tier="pro"), route("/a"), route("/a/"), route("/a/{x}/**")),
    ],
)
def test_a_route_that_something_is_left_for_is_not(routes: tuple[Route, ...]) -> None:
    assert found(*routes) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("a", "does not begin with '/'"),
        ("", "does not begin with '/'"),
        ("//a", "empty segment"),
        ("/a//", "empty segment"),
        ("/a/../b", "bad_path"),
        ("/./b", "bad_path"),
        ("/...", "bad_path"),
        ("/a\\b", "bad_path"),
        ("/a\uff0fb", "bad_path"),
        ("/ /b", "bad_path"),
        ("/a%20b", "write the character itself"),
        ("/a?b=1", "query"),
        ("/a#b", "'#'"),
        ("/a;b", "path parameters"),
        ("/*", "'*'"),
        ("/a*", "'*'"),
        ("/**/a", "final"),
        ("/a/**/", "final"),
        ("/:id", "{id}"),
        ("/{a}b", "'{'"),
        ("/{}", "'{'"),
        ("/{a-b}", "'{'"),
        ("/a}", "'}'"),
        ("/{a}/{a}", "twice"),
        ("/a\tb", "printed"),
        ("/_gateway/me", "gateway's own"),
        ("/_GATEWAY", "gateway's own"),
        ("/a" * 65, "64 segments"),
    ],
)
def test_a_pattern_that_no_request_can_match_as_meant_is_an_error(path: str, says: str) -> None:
    outcome = compiled(route("/ok"), route("/x").model_copy(update={"path": path}))
    assert outcome.table is None
    (problem,) = outcome.problems
    assert (problem.route_index, problem.code) == (1, "bad-path")
    assert says in problem.message


@pytest.mark.parametrize(
    "path", ["/" + "a/" * 64, "/.well-known/x", "/a b", "/v1.2", "/@me", "/{a}/{b}", "/~x/é", "/**"]
)
def test_an_unusual_pattern_that_can_match_is_fine(path: str) -> None:
    assert found(route(path)) == []


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12).map(lambda text: "/" + text))
def test_whatever_pattern_is_taken_matches_its_own_spelling(path: str) -> None:
    pattern = parse_pattern(path)
    if isinstance(pattern, Pattern):
        assert judged(table_of(route(path)), pattern.sample().decode()) == path
        assert judged(table_of(route(path, tier="pro")), pattern.sample().decode()) == path


@pytest.mark.parametrize("host", ["h:80", "http://h", "a/b", "*.h", "*", "", "a..b", "é.test", "h.", "a b"])
def test_a_host_with_more_than_a_name_is_an_error(host: str) -> None:
    assert found(route("/a", host=host)) == [(0, None, "bad-host", ERROR)]


@pytest.mark.parametrize("method", ["get", "TRACE", "CONNECT", "", "é"])
def test_a_method_that_no_request_can_be_routed_by_is_an_error(method: str) -> None:
    assert found(route("/a", methods=(method,))) == [(0, None, "bad-method", ERROR)]


def test_a_host_that_a_caller_goes_round_by_naming_another_is_warned_of() -> None:
    strict = route("/v1/{id}/é/**", host="h.test", tier="pro", methods=("PUT",))
    assert found(route("/**"), strict) == [(1, 0, "laxer-without-host", WARNING)]
    assert found(route("/", host="h.test", tier="pro"), route("/")) == [(0, 1, "laxer-without-host", WARNING)]
    assert found(strict, default="public") == [(0, None, "laxer-without-host", WARNING)]
    assert found(strict) == []
    assert found(route("/**", tier="enterprise"), strict) == []
    assert found(route("/**", methods=("GET",)), strict) == []
    assert found(route("/**", host="g.test"), strict) == []
    assert (
        found(route("/**", upstream="two"), strict.model_copy(update={"upstream": "one"}), upstreams=("one", "two"))
        == []
    )


def test_an_upstream_that_sees_the_callers_host_can_tell_hosts_apart() -> None:
    config = config_of(route("/**"), route("/a", host="h.test", tier="pro"))
    upstream = config.upstreams["api"].model_copy(update={"host": "caller"})
    assert compile_routes(config.model_copy(update={"upstreams": {"api": upstream}})).problems == ()


def test_every_problem_is_found_at_once_in_the_order_of_the_file() -> None:
    assert found(
        Route(path="/who"),
        route("bad", tier="gold", upstream="nowhere"),
        route("/c", features=("teleport",)),
        Route(path="/d", access="public", tier="pro"),
        route("/e"),
        route("/e"),
        default="platinum",
    ) == [
        (0, None, "who-may", ERROR),
        (1, None, "bad-path", ERROR),
        (1, None, "unknown-tier", ERROR),
        (1, None, "unknown-upstream", ERROR),
        (2, None, "unknown-feature", ERROR),
        (3, None, "access-and-tier", ERROR),
        (5, 4, "ambiguous-route", ERROR),
        (None, None, "unknown-tier", ERROR),
    ]


def test_with_several_upstreams_each_route_names_one() -> None:
    assert found(route("/a", upstream="two"), route("/b"), upstreams=("one", "two")) == [
        (1, None, "which-upstream", ERROR)
    ]
    table = table_of(route("/a", upstream="two"), route("/b", upstream="one"), upstreams=("one", "two"))
    assert [each.upstream for each in table.routes] == ["two", "one"]
