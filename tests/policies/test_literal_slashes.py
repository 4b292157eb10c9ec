"""`encoded_slash: literal` and `double_slash: literal`: ids that hold slashes, and no way round a stricter route (P1)."""

from __future__ import annotations

from typing import Any

import pytest

from policies.compiled_route import CompiledRoute
from policies.diagnostics import Severity
from policies.explain import Rules, explain
from policies.explain_table import effective_table
from policies.literal_slashes import LiteralTarget, read_literally
from policies.load import load
from policies.paths import BadTarget, Target, read_target
from policies.reasons import Reason
from policies.requirement import Access
from policies.rewriting import read_prefix, rewrite_of
from policies.route_table import Matched, MethodNotAllowed
from policies.routes import RouteTable
from policies.tiers import build_ladder
from policies.verdict import Question
from tests.support.route_tables import config_of, route, table_of

BOTH: dict[str, Any] = {"encoded_slash": "literal", "double_slash": "literal"}
FILES = table_of(
    route("/files/{id}", encoded_slash="literal"), route("/fetch/**", double_slash="literal"), route("/x/**")
)


def judge(table: RouteTable, raw: str, method: str = "GET", host: str = "") -> CompiledRoute | None:
    """The route that judges; None is 400 `bad_path`. Nothing here is 404 or 405."""
    found = table.find(method, host, raw.encode())
    assert isinstance(found, Matched | BadTarget), found
    return found.route if isinstance(found, Matched) else None


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("/files/a%2Fb", "/files/{id}"), ("/files/a%2fb%2Fc", "/files/{id}"), ("/files/%2Fa", "/files/{id}"),
        ("/files/a%2F", "/files/{id}"), ("/files/a%2F%2Fb", "/files/{id}"), ("/files/a%2Fb?q=%2F//", "/files/{id}"),
        ("/fetch/https://api.test/x", "/fetch/**"), ("/fetch//", "/fetch/**"), ("/fetch/a//b///c", "/fetch/**"),
        # What the route that would win doesn't declare stays refused, whatever its neighbours say.
        ("/files//a", None), ("/files/a//", None), ("/files/a%2Fb/", None), ("/files/a%2Fb/c", None),
        ("/fetch/a%2Fb", None), ("/fetch//a%2Fb", None), ("/x/a%2Fb", None), ("/x/a//b", None), ("/y/a%2Fb", None),
        ("/Files/a%2Fb", None), ("/files%2Fa", None),
    ],
)  # fmt: skip
def test_only_the_route_that_says_so_takes_such_slashes(raw: str, label: str | None) -> None:
    found = judge(FILES, raw)
    assert (None if found is None else found.label) == label
    read = FILES.read(raw.encode())
    assert isinstance(read, BadTarget) or read.raw == raw.encode()


def test_an_encoded_slash_is_one_character_of_its_segment_and_two_slashes_hold_an_empty_one() -> None:
    table = table_of(route("/**", **BOTH))
    for raw, segments, slash in (
        ("/files/a%2Fb", ("files", "a/b"), False),
        ("/a//b/", ("a", "", "b"), True),
        ("/a//", ("a", ""), True),
        ("/a%2F/%2fb", ("a/", "/b"), False),
    ):
        read = table.read(raw.encode())
        assert isinstance(read, LiteralTarget)
        assert (read.segments, read.has_trailing_slash) == (segments, slash)
    read = table.read(b"/files/a%2Fb//c")
    assert isinstance(read, LiteralTarget)
    assert (read.path, {other.path for other in read.others}) == (
        "/files/a%2Fb//c",
        {"/files/a/b//c", "/files/a%2Fb/c", "/files/a/b/c"},
    )


@pytest.mark.parametrize(
    "raw",
    [
        "//files/a", "//evil.test/files", "/%2Ffiles", "/%2F/files", "/files/..%2Fa", "/files/a%2F..", "/files/a%2F.%2Fb",
        "/files/a%2F%2E%2e%2Fb", "/files/a%2F..;x%2Fb", "/files/a%252Fb", "/files/a%25252fb", "/files/a%2F%252e", "/files/a%5Cb",
        "/files/a\\b", "/files/a%2F%00", "/files/a%2Fb%00", "/files/a%2F%0a", "/files/a%2F%c0%af", "/files/a%2F%ff",
        "/files/a%2F%ef%bc%8fb", "/files/a%2F%ef%bc%8e%ef%bc%8e", "/files/a%2F%20", "/files/a%2F;x", "/files/a%2Fb#c",
        "/files/a%2Fb?c d", "/files/a%2Gb//", "/files/a//../b", "/files//./a", "/files/a%2F ", "files/a%2Fb",
        "/_gateway%2Fme", "/_gateway//me", "/_GATEWAY%2fme", "/_gateway;x%2Fme", "/%5fgateway//me", "/_gateway%3Bx%2Fme",
        "/_gateway%20%2Fme", "/_gateway%3f%2Fme", "/%ef%bc%bfgateway%2Fme", "http://gw.test/files/a%2Fb", "*", "",
    ],
)  # fmt: skip
def test_whatever_else_could_be_read_in_two_ways_stays_refused_however_lax_the_routes(raw: str) -> None:
    for table in (table_of(route("/**", **BOTH)), table_of(route("/**", **BOTH), default="public")):
        assert isinstance(table.read(raw.encode("latin-1")), BadTarget)


@pytest.mark.parametrize("default", ["deny", "authenticated", "public"])
@pytest.mark.parametrize(
    "raw",
    [
        "/pro%2Fx", "/pro//x", "/PRO%2Fx", "/pro%2F", "/pro;a%2Fx", "/pro%20%2Fx", "/pro%3F%2Fx", "/p%2572o%2Fx",
        "/v1%2Freports%2F7", "/v1//reports//7", "/v1%2F%2Freports/7", "/v1/reports%2F7", "/v1%2freports//7", "/V1//Report%c5%bf/7",
        "/v1//reports/7/",
    ],
)  # fmt: skip
def test_no_laxer_route_is_reached_by_an_api_that_decodes_or_merges(raw: str, default: str) -> None:
    paid = (route("/pro/**", tier="pro"), route("/v1/reports/{id}", tier="pro"))
    lax = (route("/**", **BOTH), route("/{a}/**", **BOTH), route("/{a}", **BOTH), route("/{a}/{b}", **BOTH))
    found = judge(table_of(*paid, *lax, default=default), raw)
    assert found is None or found.requirement.tier == "pro"


def test_the_strictest_of_all_readings_is_asked_and_forwarding_stays_with_the_winner() -> None:
    table = table_of(
        route("/files/{id}", encoded_slash="literal", upstream="one", add_prefix="/in", max_body=7),
        route("/files/{id}/{part}", access="authenticated", upstream="two"),
        route("/files/secret/**", tier="enterprise", upstream="two"),
        route("/files/hidden/x", access="authenticated", scopes=("read",), upstream="two"),
        route("/files/seen/**", tier="pro", enforce="observe", upstream="two"),
        upstreams=("one", "two"),
    )
    for raw, access, tier, scopes in (
        ("/files/a", Access.PUBLIC, None, ()),
        ("/files/a%2Fb", Access.AUTHENTICATED, None, ()),
        ("/files/a%2Fb%2Fc", Access.PUBLIC, None, ()),
        ("/files/secret%2Fb%2Fc", Access.TIER, "enterprise", ()),
        ("/files/hidden%2Fx", Access.AUTHENTICATED, None, ("read",)),
        ("/files/seen%2Fa%2Fb", Access.PUBLIC, None, ()),
    ):
        found = judge(table, raw)
        assert found is not None, raw
        assert (found.requirement.access, found.requirement.tier, found.requirement.scopes) == (access, tier, scopes), (
            raw
        )
        assert (found.label, found.upstream, found.max_body) == ("/files/{id}", "one", 7)
        assert found.rewrite is not None


@pytest.mark.parametrize("default", ["deny", "public", "authenticated"])
@pytest.mark.parametrize(
    "raw",
    [
        "/files/secret%20%2Fx",
        "/files/secret%2Fx%20",
        "/files/SECRET;a%2Fx%20",
        "/files/secret%20//x",
        "/files/secret%20%3Fy%2Fx",
    ],
)
def test_a_reading_that_no_route_was_written_for_is_guarded_as_well(raw: str, default: str) -> None:
    """Decoded or merged it is a respelling of a paid path, and what is open is what takes it as sent."""
    table = table_of(
        route("/files/{id}", **BOTH), route("/files/{a}/{b}/", **BOTH), route("/files/secret/x", tier="enterprise"),
        route("/files/secret", tier="enterprise"), route("/files/{a}/x/y", methods=("PUT",)), default=default,
    )  # fmt: skip
    found = judge(table, raw)
    assert found is None or found.requirement.tier == "enterprise"
    assert judge(table, "/files/open%20%2Fx") is not None


def test_where_two_readings_ask_for_things_that_do_not_compare_both_are_asked_for() -> None:
    table = table_of(
        route("/files/{id}", encoded_slash="literal", access="authenticated", scopes=("read",), on_unavailable="allow"),
        route("/files/{id}/{part}", tier="pro"),
    )
    found = judge(table, "/files/a%2Fb")
    assert found is not None
    assert (found.requirement.tier, found.requirement.scopes, found.fails_open) == ("pro", ("read",), False)


def test_what_is_stricter_as_sent_loses_nothing_to_a_laxer_reading() -> None:
    table = table_of(route("/files/{id}", encoded_slash="literal", tier="pro"), route("/**", access="authenticated"))
    found = judge(table, "/files/a%2Fb")
    assert found is not None
    assert found.requirement.tier == "pro"
    watched = table_of(route("/files/{id}", tier="pro", enforce="observe", **BOTH), route("/**"))
    found = judge(watched, "/files/a%2Fb")
    assert found is not None
    assert (found.requirement.tier, str(found.enforcement)) == ("pro", "observe")


def test_a_lenient_route_takes_them_in_another_case_and_only_under_its_host() -> None:
    table = table_of(
        route("/files/{id}", encoded_slash="literal", tier="pro", host="one.test"), route("/files/{id}", tier="pro")
    )
    for raw in ("/files/a%2Fb", "/FILES/a%2Fb", "/files;x/a%2Fb"):
        assert judge(table, raw, host="one.test:80") is not None
        assert judge(table, raw, host="two.test") is None


def test_methods_and_preflights_are_judged_by_the_route_that_names_them() -> None:
    table = table_of(route("/files/{id}", methods=("GET",), **BOTH), route("/files/{id}", methods=("POST",)))
    for method, is_taken in (("GET", True), ("HEAD", True), ("POST", False), ("PUT", False), ("TRACE", False)):
        assert (judge(table, "/files/a%2Fb", method) is not None) is is_taken
    assert isinstance(table.find("PUT", "", b"/files/a"), MethodNotAllowed)


def test_without_a_route_that_says_so_nothing_is_read_differently() -> None:
    table = table_of(route("/**"), route("/files/{id}", encoded_slash="refuse"))
    assert not table.reads_literally
    for raw in (b"/files/a%2Fb", b"/a//b", b"/files/a", b"/a%41"):
        assert table.read(raw) == read_target(raw)


def test_an_ordinary_target_is_read_as_ever_beside_such_a_route() -> None:
    table = table_of(route("/**", **BOTH))
    for raw in (b"/", b"/a/b/", b"/%C3%A4?x=//%2F", b"/a;b", b"/a/..", b"/a%00"):
        mine, ordinary = table.read(raw), read_target(raw)
        assert type(mine) is type(ordinary)
        assert mine == ordinary or isinstance(mine, BadTarget)
    refusal = BadTarget("as it was")
    assert read_literally(b"/a/b", refusal) is refusal, "no slash is the reason"


def test_long_targets_take_linear_time() -> None:
    refusal = BadTarget("")
    for part in (b"%2F", b"/", b"a%2F", b"a//", b"a;%2Fa", b"%C3%A4%2F"):
        assert isinstance(read_literally(b"/a" + part * 20_000 + b"a", refusal), LiteralTarget | BadTarget)


@pytest.mark.parametrize(
    ("raw", "strip", "add", "path"),
    [
        ("/v1/a%2Fb?x=%2F", "/v1", "", b"/a%2Fb"),
        ("/v1/a//b", "/v1", "", b"/a//b"),
        ("/v1/a%2Fb", "/v1", "/v2", b"/v2/a%2Fb"),
        ("/v1/a%2F", "", "/v2", b"/v2/v1/a%2F"),
        ("/v1//a", "/v1", "/v2", b"/v2//a"),
        ("/v1//a", "/v1", "", None),
        ("/v1/%2Fa", "/v1", "", None),
        ("/v1/%2fevil.test", "/v1", "", None),
        ("/v1%2Fa", "/v1", "", None),
        ("/a//b/c", "/a/b", "", None),
    ],
)
def test_prefixes_are_cut_where_they_stand_literally_and_leave_no_two_slashes_in_front(
    raw: str, strip: str, add: str, path: bytes | None
) -> None:
    cut, put = (read_prefix(one) if one else () for one in (strip, add))
    assert not isinstance(cut, str)
    assert not isinstance(put, str)
    rewrite, target = rewrite_of(cut, put), table_of(route("/**", **BOTH)).read(raw.encode())
    assert rewrite is not None
    assert isinstance(target, Target)
    made = rewrite.path(target)
    assert (None if isinstance(made, BadTarget) else made) == path


def test_explain_names_the_other_readings_and_whose_demands_are_added() -> None:
    config = config_of(
        route("/files/{id}", encoded_slash="literal"), route("/files/secret/{x}", tier="pro"), route("/files/{id}/**")
    )
    table = table_of(*config.routes)
    explained = explain(
        Rules(config, table, build_ladder(config.tiers)),
        Question("GET", b"/files/secret%2Fa"),
        Reason.TOKEN_MISSING,
        0.0,
    )
    assert explained.verdict.outcome == "401 token_missing"
    assert explained.verdict.route is not None
    assert explained.verdict.route.label == "/files/{id}"
    assert (
        "path",
        "is taken as it was sent, /files/secret%2Fa; an upstream might read /files/secret/a, and no less is asked than there",
    ) in [(check.what, check.found) for check in explained.checks]
    why = {loser.route.label: loser.why for loser in explained.losers}
    assert (
        why["/files/secret/{x}"]
        == "it is for /files/secret/a, which an upstream may read; what it asks for is asked as well"
    )


def test_explain_says_of_a_route_that_refuses_them_what_a_request_gets() -> None:
    config = config_of(route("/files/{id}"), route("/**", **BOTH))
    table = table_of(*config.routes)
    rules = Rules(config, table, build_ladder(config.tiers))
    assert explain(rules, Question("GET", b"/files/a%2Fb"), Reason.TOKEN_MISSING, 0.0).verdict.outcome == "400 bad_path"
    posted = config_of(route("/files/{id}", methods=("POST",)), route("/{a}/{id}", **BOTH), route("/{a}/X/**"))
    rules = Rules(posted, table_of(*posted.routes), build_ladder(posted.tiers))
    losers = explain(rules, Question("GET", b"/files/a%2Fb"), Reason.TOKEN_MISSING, 0.0).losers
    assert [(one.route.label, one.why) for one in losers] == [("/files/{id}", "it takes POST, not GET")]


def test_the_table_that_people_see_says_which_routes_take_them() -> None:
    config = config_of(route("/a/{id}", **BOTH), route("/b/{id}", double_slash="literal"), route("/c"))
    lines = effective_table(config, table_of(*config.routes))
    assert {line.path: line.literal for line in lines} == {
        "/a/{id}": ("encoded_slash", "double_slash"),
        "/b/{id}": ("double_slash",),
        "/c": (),
        None: (),
    }


def test_on_a_path_where_no_slash_could_stand_it_is_said_to_have_no_effect() -> None:
    text = """
version: 1
upstreams: {api: {targets: ["http://127.0.0.1:9"]}}
routes:
  - {path: /a/b, access: public, encoded_slash: literal, double_slash: refuse}
  - {path: "/c/{id}", access: public, encoded_slash: literal, double_slash: literal}
"""
    found = load(text, file="gateway.yaml", environ={}, read_file=str).diagnostics
    assert [(one.severity, one.code, "'encoded_slash' has no effect" in one.message) for one in found] == [
        (Severity.WARNING, "no-effect", True)
    ]
