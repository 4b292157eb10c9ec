"""Which route judges a request, case by case."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from policies.requirement import AUTHENTICATED, PUBLIC, Access, Requirement
from policies.routes import Matched, RouteTable
from policies.schema import Route
from tests.support.route_tables import judged, route, table_of, target_of

EXAMPLE = (
    route("/status"),
    route("/v1/models", methods=("GET",), access="authenticated"),
    route("/v1/reports/{id}", tier="pro"),
    route("/v1/export/**", methods=("POST",), tier="pro", features=("export",), upstream="api"),
)
"""The routes of docs/design.md, section 3."""


@pytest.mark.parametrize(
    ("method", "raw", "verdict"),
    [
        ("GET", "/status", "/status"),
        ("POST", "/status", "/status"),
        ("GET", "/status/", "404"),
        ("GET", "/Status", "404"),
        ("GET", "/v1/models", "/v1/models"),
        ("HEAD", "/v1/models", "/v1/models"),
        ("POST", "/v1/models", "405 GET,HEAD"),
        ("OPTIONS", "/v1/models", "405 GET,HEAD"),
        ("GET", "/v1/models/", "404"),
        ("GET", "/V1/models", "404"),
        ("GET", "/v1/reports/7", "/v1/reports/{id}"),
        ("DELETE", "/v1/reports/7?x=/status", "/v1/reports/{id}"),
        ("GET", "/v1/reports/7/", "/v1/reports/{id}"),
        ("GET", "/V1/Reports/7", "/v1/reports/{id}"),
        ("GET", "/v1;x=1/reports/7", "/v1/reports/{id}"),
        ("GET", "/%761/reports/7", "/v1/reports/{id}"),
        ("GET", "/v1/reports", "404"),
        ("GET", "/v1/reports/", "404"),
        ("GET", "/v1/reports/7/lines", "404"),
        ("POST", "/v1/export", "/v1/export/**"),
        ("POST", "/v1/export/", "/v1/export/**"),
        ("POST", "/v1/export/a/b/", "/v1/export/**"),
        ("GET", "/v1/export/a", "405 POST"),
        ("HEAD", "/v1/export/a", "405 POST"),
        ("GET", "/v1/exports", "404"),
        ("GET", "/", "404"),
        ("GET", "/v1", "404"),
    ],
)
def test_the_example_of_the_design_does_what_it_says(method: str, raw: str, verdict: str) -> None:
    assert judged(table_of(*EXAMPLE), raw, method) == verdict


def test_a_literal_wins_before_a_parameter_before_everything_below_position_by_position() -> None:
    table = table_of(
        route("/**"),
        route("/{a}"),
        route("/a"),
        route("/a/**"),
        route("/a/{b}"),
        route("/a/b"),
        route("/{a}/b"),
        route("/a/{b}/**"),
        route("/{a}/b/c"),
    )
    assert judged(table, "/") == "/**"
    assert judged(table, "/x") == "/{a}"
    assert judged(table, "/a") == "/a"
    assert judged(table, "/a/") == "/a/**"
    assert judged(table, "/a/x") == "/a/{b}"
    assert judged(table, "/a/b") == "/a/b"
    assert judged(table, "/x/b") == "/{a}/b"
    assert judged(table, "/a/b/c") == "/a/{b}/**", "the first position decides before the second"
    assert judged(table, "/x/b/c") == "/{a}/b/c"
    assert judged(table, "/x/y/z") == "/**"


def test_a_dead_end_is_left_for_a_less_specific_route() -> None:
    table = table_of(route("/a/b/c"), route("/a/{x}/d"), route("/{y}/b/e"), route("/a/**"))
    assert judged(table, "/a/b/c") == "/a/b/c"
    assert judged(table, "/a/b/d") == "/a/{x}/d"
    assert judged(table, "/a/b/e") == "/a/**"
    assert judged(table, "/z/b/e") == "/{y}/b/e"


def test_a_route_that_names_the_method_wins_before_one_that_names_none() -> None:
    table = table_of(route("/a"), route("/a", methods=("GET", "POST"), tier="pro", spelling="exact"))
    assert judged(table, "/a", "GET") == "GET,POST /a"
    assert judged(table, "/a", "HEAD") == "GET,POST /a"
    assert judged(table, "/a", "PUT") == "/a"


def test_a_route_that_names_head_wins_before_one_that_names_get() -> None:
    table = table_of(route("/a", methods=("GET",), tier="pro"), route("/a", methods=("HEAD",), tier="free"))
    assert judged(table, "/a", "HEAD") == "HEAD /a"
    assert judged(table, "/a", "GET") == "GET /a"
    assert judged(table, "/a", "PUT") == "405 GET,HEAD"


def test_a_more_specific_path_with_other_methods_leaves_the_request_to_the_next() -> None:
    table = table_of(route("/v1/models", methods=("GET",)), route("/v1/**", tier="pro"))
    assert judged(table, "/v1/models", "GET") == "/v1/models"
    assert judged(table, "/v1/models", "POST") == "/v1/**"


def test_allow_lists_what_any_route_of_the_path_admits() -> None:
    table = table_of(
        route("/a/b", methods=("GET",)), route("/a/{x}", methods=("PUT",)), route("/**", methods=("POST",))
    )
    assert judged(table, "/a/b", "DELETE") == "405 GET,HEAD,POST,PUT"
    assert judged(table, "/a/c", "DELETE") == "405 POST,PUT"


@pytest.mark.parametrize("default", ["public", "authenticated", "pro"])
def test_a_path_that_has_a_route_never_falls_to_the_default_for_its_method(default: str) -> None:
    table = table_of(*EXAMPLE, default=default)
    assert judged(table, "/v1/models", "DELETE") == "405 GET,HEAD"
    assert judged(table, "/V1/Models", "DELETE") == "405 GET,HEAD"
    assert judged(table, "/v1/export%20", "DELETE") == "405 POST"
    assert judged(table, "/nothing", "DELETE") == "default"


@pytest.mark.parametrize("method", ["get", "Get", "TRACE", "CONNECT", "", "G-e"])
def test_a_method_that_is_none_is_not_admitted_by_a_route_without_methods(method: str) -> None:
    assert judged(table_of(route("/a")), "/a", method).startswith("405 DELETE,GET,HEAD")


def test_a_route_without_methods_admits_those_of_webdav() -> None:
    assert judged(table_of(route("/a")), "/a", "PROPFIND") == "/a"
    assert judged(table_of(route("/a")), "/a", "M-SEARCH") == "/a"


def test_the_default_is_a_route_of_its_own() -> None:
    expected = {
        "public": PUBLIC,
        "authenticated": AUTHENTICATED,
        "enterprise": Requirement(Access.TIER, 2, "enterprise"),
    }
    for default, requirement in expected.items():
        outcome = table_of(default=default, upstreams=("one", "two")).match("GET", "gw", target_of("/x"))
        assert isinstance(outcome, Matched)
        assert (outcome.route.label, outcome.route.requirement) == ("default", requirement)
        assert (outcome.route.upstream, outcome.route.index) == ("one", -1)
    assert judged(table_of(), "/x") == "404"


def requirement_of(asked: Route) -> Requirement:
    (compiled_route,) = table_of(asked).routes
    return compiled_route.requirement


def test_a_tier_and_features_become_the_lowest_rank_that_has_both() -> None:
    assert requirement_of(route("/a", tier="free")) == Requirement(Access.TIER, 0, "free")
    assert requirement_of(route("/a", tier="pro")) == Requirement(Access.TIER, 1, "pro")
    assert requirement_of(route("/a", tier="free", features=("export",))) == Requirement(
        Access.TIER, 1, "pro", ("export",)
    )
    assert requirement_of(route("/a", features=("sso",))) == Requirement(Access.TIER, 2, "enterprise", ("sso",))
    assert requirement_of(route("/a", tier="enterprise", features=("export",))) == Requirement(
        Access.TIER, 2, "enterprise", ("export",)
    )
    assert requirement_of(route("/a", features=("export", "sso"))).min_rank == 2


def test_a_route_with_a_feature_alone_is_compared_leniently() -> None:
    table = table_of(route("/a", features=("export",)), route("/**"))
    assert judged(table, "/A;x/") == "/a"


def test_a_named_host_wins_before_none_and_is_compared_without_case_port_and_final_dot() -> None:
    table = table_of(
        route("/a/b"),
        route("/**", host="API.example.com", tier="pro"),
        route("/x", host="[::1]"),
    )
    for host in ("api.example.com", "API.Example.COM:8080", "api.example.com.", "api.example.com:"):
        assert judged(table, "/a/b", host=host) == "/**", host
    assert judged(table, "/a/b", host="other.example.com") == "/a/b"
    assert judged(table, "/zzz", host="other.example.com") == "404"
    assert judged(table, "/x", host="[::1]:80") == "/x"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "api.example.com/free",
        "api.example.com?",
        "a b",
        "api.example.com:80:80",
        "api..example.com",
        "x" * 300,
        "é",
    ],
)
def test_a_host_that_is_none_finds_no_route_of_a_host(host: str) -> None:
    table = table_of(route("/a", host="api.example.com"), route("/b"))
    assert judged(table, "/a", host=host) == "404"
    assert judged(table, "/b", host=host) == "/b"


def test_what_a_hosts_routes_dont_match_is_left_to_those_without_host() -> None:
    table = table_of(route("/a", host="h.test", methods=("GET",)), route("/a", methods=("PUT",)), route("/{x}"))
    assert judged(table, "/a", "PUT", "h.test") == "PUT /a"
    assert judged(table, "/b", "GET", "h.test") == "/{x}"
    assert judged(table, "/a", "DELETE", "h.test") == "/{x}"


def test_labels_are_unique() -> None:
    table = table_of(
        route("/a"),
        route("/a", methods=("POST", "GET")),
        route("/a", host="h.test"),
        route("/a", host="h.test", methods=("PUT",)),
        route("/b", methods=("PUT",)),
    )
    labels = [each.label for each in table.routes]
    assert labels == ["/a", "GET,POST /a", "h.test/a", "PUT h.test/a", "/b"]


def test_an_open_route_with_a_slash_and_one_without_are_two() -> None:
    table = table_of(route("/a"), route("/a/", access="authenticated"), route("/"))
    assert judged(table, "/a") == "/a"
    assert judged(table, "/a/") == "/a/"
    assert judged(table, "/") == "/"


def test_params_match_exactly_one_segment_that_is_there() -> None:
    table = table_of(route("/f/{x}"), route("/t/{x}/z", tier="pro"))
    assert judged(table, "/f/a%20b") == "/f/{x}"
    assert judged(table, "/f/A;b") == "/f/{x}"
    assert judged(table, "/f/") == "404"
    assert judged(table, "/f") == "404"
    assert judged(table, "/t/z") == "404"


def test_a_literal_beyond_ascii_is_matched_decoded() -> None:
    table = table_of(route("/café"), route("/Ж", tier="pro"), route("/**"))
    assert judged(table, "/caf%C3%A9") == "/café"
    assert judged(table, "/%D0%96") == "/Ж"
    assert judged(table, "/%D0%B6") == "/Ж"


def test_a_preflight_is_judged_by_the_method_that_it_asks_for() -> None:
    table = table_of(route("/a", methods=("PUT",), tier="pro"), route("/b"))
    assert judged(table, "/a", "PUT") == "/a"
    assert judged(table, "/a", "OPTIONS") == "405 PUT"
    assert judged(table, "/b", "OPTIONS") == "/b"


def test_a_table_never_changes() -> None:
    table = table_of(*EXAMPLE, route("/x", host="h.test"))
    with pytest.raises(FrozenInstanceError):
        table.default = None  # type: ignore[misc]
    with pytest.raises(TypeError):
        table.hosts["evil"] = table.any_host  # type: ignore[index]
    with pytest.raises(TypeError):
        del table.any_host.lenient.literals["status"]  # type: ignore[attr-defined]


def test_ten_thousand_routes_are_searched_in_as_many_steps_as_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    def visits(count: int) -> int:
        table = table_of(*(route(f"/v1/things{number}/{{id}}", tier="pro") for number in range(count)), route("/**"))
        return nodes_visited(table, f"/v1/things{count - 1}/7", monkeypatch)

    assert visits(10_000) == visits(10)


def nodes_visited(table: RouteTable, raw: str, monkeypatch: pytest.MonkeyPatch) -> int:
    from policies import route_table

    seen = 0
    original = route_table._first

    def counting(*args: object) -> Matched | None:
        nonlocal seen
        seen += 1
        return original(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(route_table, "_first", counting)
        assert judged(table, raw) != "404"
    return seen
