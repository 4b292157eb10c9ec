"""Entries of `routes` that stand for several paths: each is a route of its own, with the same rule."""

from __future__ import annotations

import pytest

from policies.access_diff import compare
from policies.explain import Rules
from policies.explain_losers import losers_of
from policies.explain_table import effective_table
from policies.load import load
from policies.reasons import Reason
from policies.routes import compile_routes
from policies.schema import Route
from policies.tiers import build_ladder
from policies.verdict import Question, judge
from tests.support.route_tables import compiled, config_of, judged, route, table_of


def several(*paths: str, **rest: str) -> Route:
    return Route(paths=paths, **(rest or {"access": "public"}))  # type: ignore[arg-type]


def rules_of(*routes: Route) -> Rules:
    config = config_of(*routes)
    outcome = compile_routes(config)
    assert outcome.table is not None, outcome.problems
    return Rules(config, outcome.table, build_ladder(config.tiers))


def problems(*lines: str) -> list[tuple[str, int, int]]:
    head = "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000']}}\nroutes:\n  - access: public\n"
    text = head + "".join(f"    {line}\n" for line in lines)
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    return [(found.code, found.line, found.column) for found in loaded.diagnostics]


def test_each_path_is_judged_and_named_as_if_it_stood_alone() -> None:
    table = table_of(several("/a", "/b/{x}", "/c/**", tier="pro"), route("/**"))

    assert [judged(table, path) for path in ("/a", "/A/", "/b/1", "/b", "/c", "/c/d/e", "/d")] == [
        "/a", "/a", "/b/{x}", "/**", "/c/**", "/c/**", "/**",
    ]  # fmt: skip


def test_several_paths_and_the_same_one_by_one_are_one_table() -> None:
    together = rules_of(several("/a", "/b/{x}", tier="pro"), several("/c", "/a/**", access="authenticated"))
    apart = rules_of(
        route("/c", access="authenticated"), route("/b/{x}", tier="pro"),
        route("/a/**", access="authenticated"), route("/a", tier="pro"),
    )  # fmt: skip

    assert not compare(together, apart).differences
    assert [line.as_dict() for line in effective_table(together.config, together.table)] == [
        line.as_dict() for line in effective_table(apart.config, apart.table)
    ]


def test_a_path_that_is_moved_into_an_entry_that_asks_for_more_is_seen_by_diff() -> None:
    old, new = (
        rules_of(several("/a", "/b"), route("/c", tier="pro")),
        rules_of(route("/a"), several("/b", "/c", tier="pro")),
    )

    found = compare(old, new)

    assert {one.path.rstrip("/").lower() for one in found.differences} == {"/b"}
    assert found.somebody_loses


def test_two_paths_of_one_entry_that_tie_are_an_error_and_those_that_overlap_are_not() -> None:
    assert [problem.code for problem in compiled(several("/a/{x}", "/a/{y}")).problems] == ["ambiguous-route"]
    assert not compiled(several("/a/{x}", "/a/b", "/a/**")).problems


def test_the_losing_paths_of_the_winners_own_entry_are_explained_too() -> None:
    rules = rules_of(several("/a/{x}", "/a/b", "/a/**"))
    question = Question("GET", b"/a/b")

    verdict = judge(rules.table, rules.ladder, question, Reason.TOKEN_MISSING, 0)

    assert verdict.route is not None
    assert verdict.route.label == "/a/b"
    assert {one.route.label for one in losers_of(rules.config, rules.table, question, verdict)} == {"/a/{x}", "/a/**"}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (("path: /a", "paths: [/b]"), [("path-and-paths", 6, 5)]),
        (("paths: []",), [("empty", 5, 12)]),
        ((), [("missing-key", 4, 5)]),
        (("paths: /a",), [("wrong-type", 5, 12)]),
        (("paths: [/a, b, /c/**/d]",), [("bad-path", 5, 17), ("bad-path", 5, 20)]),
        (("paths: [/a, /a]",), [("duplicate-entry", 5, 17)]),
        (("paths: [/a, '']",), [("bad-path", 5, 17)]),
        (("paths: [/a, /b]",), []),
    ],
)
def test_a_slip_in_paths_is_told_where_it_stands(lines: tuple[str, ...], found: list[tuple[str, int, int]]) -> None:
    assert problems(*lines) == found
