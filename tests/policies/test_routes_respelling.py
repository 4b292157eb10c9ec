"""P1: whatever a server behind the gateway makes of a path, the gateway asked for at least as much.

Each model of `tests.support.normalisers` is what one kind of server does to a path before it looks for the handler. For
every path that is let through, what the model makes of it must not be a path that needs more than was asked for. Two of
them run for real in `tests/e2e/test_servers_behind.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.routes import RouteTable
from tests.support.normalisers import MODELS
from tests.support.respelling import (
    CASES,
    ENDS,
    PIECES,
    REFUSED,
    SLASHES,
    SUFFIXES,
    TABLES,
    WORDS,
    asked,
    asks_too_little,
    disguised,
)
from tests.support.route_tables import route, table_of

words = st.builds(
    disguised,
    st.sampled_from(WORDS),
    st.sampled_from(CASES),
)
suffixes = st.sampled_from(SUFFIXES)
respelled = st.builds(
    lambda segments, end: "/" + "/".join(word + suffix for word, suffix in segments) + end,
    st.lists(st.tuples(words, suffixes), min_size=1, max_size=4),
    st.sampled_from(ENDS),
)
slashed = st.builds(
    lambda pairs, end: "/" + "".join(word + suffix + slash for word, suffix, slash in pairs) + end,
    st.lists(st.tuples(words, suffixes, st.sampled_from(SLASHES)), min_size=1, max_size=4),
    st.sampled_from(("", "x", "all", "sign")),
)
wild = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "/" + "".join(pieces))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@settings(max_examples=100, deadline=None)
@given(st.one_of(respelled, slashed, wild), st.sampled_from(("GET", "POST")))
@example("/V1/Reports/7", "GET")
@example("/v1;x=1/reports/7", "GET")
@example("/v1/reports/7/", "GET")
@example("/v1/reports/ALL", "GET")
@example("/v1/reports/al%256c", "GET")
@example("/%2570ro/x", "GET")
@example("/pro%20/x", "GET")
@example("/pro./x", "GET")
@example("/pro%3Fx/y", "GET")
@example("/V1/Models", "GET")
@example("/Admin/x", "GET")
@example("/v1/report%c5%bf/7", "GET")
@example("/v1/EXPORT", "POST")
@example("/pro", "GET")
@example("/V1%20./Export;/", "POST")
@example("/v1%20/Export/", "POST")
@example("/pro%2Fx", "GET")
@example("/pro//x", "GET")
@example("/v1%2freports//7", "GET")
@example("/v1/reports%2Fal%256c", "GET")
@example("/v1/report%c5%bf%2F7", "GET")
@example("/pro;%2Fx", "GET")
@example("/x%2F/7", "GET")
@example("/7%3Fx/free", "GET")
@example("/7%253Fx/free%23", "GET")
@example("/models%2f%253fsign%23", "GET")
@example("/admin%c2%a0;x=1%253fsign/models", "GET")
@example("/admin%3fmodels/x%2520%2E%3B7reportspro%2f", "GET")
@example("/reports///", "GET")
@example("/reports/%2F/", "GET")
@example("/v1;%2F%2f7%23/Export%3fx%2fsign", "GET")
def test_no_server_reads_what_was_let_through_as_a_path_that_needs_more(
    table: RouteTable, raw: str, method: str
) -> None:
    for model in MODELS:
        assert asks_too_little(table, raw, model(raw), method) is None, model.__name__


@pytest.mark.parametrize(
    "raw",
    [
        "/free/../pro/x", "/free/%2e%2e/pro/x", "/free/.%2e/pro", "/free/%252e%252e/pro", "/free/..;/pro",
        "/free/..%2fpro", "/free/%2e%2e%2fpro", "/free\\..\\pro", "/free%5c..%5cpro", "//pro/x", "/./pro/x",
        "/free//../pro", "/%2fpro", "/pro%00", "/pro%2f", "/PRO/x", "/pro;a=b", "/pro/", "/pro%20", "/%70ro/x",
        "/free/%c0%ae%c0%ae/pro", "/PRO", "/pRo/X", "/pro;", "/pro;/x", "/%50RO/x", "/p%2572o/x", "/pro.", "/pro%20.",
        "/pro%c2%a0/x", "/%ef%bd%90ro/x", "/pr%c3%b3/x", "/pro%e2%80%8b/x", "/pro%3f", "/pro%23/x", "/pro%253b/x",
        "http://gw.test/pro/x", "/pro/x#/free",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "beside",
    [{"default": "public"}, {"default": "authenticated"}, {"default": "free"}, {}],
    ids=["default public", "default authenticated", "default free", "open routes"],
)
def test_every_spelling_of_a_paid_path_is_refused_or_judged_as_paid(raw: str, beside: dict[str, Any]) -> None:
    open_routes = (route("/free/**"), route("/{x}"), route("/{x}/**")) if not beside else (route("/free/**"),)
    table = table_of(*open_routes, route("/pro/**", tier="pro"), **beside)
    given_for, judge = asked(table, raw, "GET")
    assert given_for == REFUSED or (judge is not None and judge.pattern == "/pro/**")


@pytest.mark.parametrize("raw", ["/Free/x", "/free;x/y", "/free%20/x", "/x/pro", "/products", "/pro-x", "/free/pro"])
def test_what_is_no_spelling_of_a_paid_path_stays_open(raw: str) -> None:
    table = table_of(route("/free/**"), route("/pro/**", tier="pro"), default="public")
    assert asked(table, raw, "GET")[0] == 0


def test_a_respelling_of_a_path_that_needs_a_token_is_not_public_and_opens_nothing() -> None:
    routes = (route("/v1/models", access="authenticated"), route("/v1/status"))
    for open_table in (table_of(*routes, default="public"), table_of(*routes, route("/**"))):
        for raw in ("/V1/Models", "/v1/models/", "/v1/models;x", "/v1/models%20", "/v1/model%2573"):
            assert asked(open_table, raw, "GET")[0] == 1
        assert asked(open_table, "/V1/Status", "GET")[0] == 0
    closed = table_of(*routes)
    for raw in ("/V1/Models", "/v1/models/", "/v1/models%20"):
        assert asked(closed, raw, "GET")[0] == REFUSED, "an open route compares exactly"


def test_spelling_exact_is_the_operators_word_for_it() -> None:
    routes = (route("/v1/Reports", tier="pro", spelling="exact"), route("/**"))
    assert asked(table_of(*routes), "/v1/Reports", "GET")[0] == 3
    for raw in ("/v1/reports", "/v1/Reports/", "/v1/Reports;x", "/v1/Reports%20"):
        assert asked(table_of(*routes), raw, "GET")[0] == 0


def test_a_stricter_literal_is_found_past_a_laxer_parameter_in_any_spelling() -> None:
    table = table_of(
        route("/v1/reports/{id}", tier="pro"), route("/v1/reports/all", tier="enterprise"), route("/v1/{x}/{y}")
    )
    for raw in ("/v1/reports/all", "/v1/reports/ALL/", "/V1/reports/all;x", "/v1/reports/all.", "/v1/reports/al%256C"):
        assert asked(table, raw, "GET")[0] == 4
    assert asked(table, "/v1/REPORTS/8", "GET")[0] == 3
    assert asked(table, "/v1/other/all", "GET")[0] == 0


def test_the_guard_never_takes_a_path_from_an_open_route_written_for_it() -> None:
    table = table_of(
        route("/v1/reports/sample"),
        route("/v1/reports/{id}", tier="pro"),
    )
    assert asked(table, "/v1/reports/sample", "GET")[0] == 0
    assert asked(table, "/v1/reports/Sample", "GET")[0] == 3
    assert asked(table, "/v1/reports/sample/", "GET")[0] == 3


@pytest.mark.parametrize("raw", ["/paid%3Fx/y", "/paid%253Fx/y", "/paid%23/y", "/paid;%3f/y", "/paid%EF%BC%9Fx/y"])
def test_a_path_whose_end_an_escape_hides_asks_for_what_the_shorter_path_asks_for(raw: str) -> None:
    for table in (
        table_of(route("/**", tier="pro"), route("/{x}/{y}")),
        table_of(route("/{x}/{y}"), default="pro"),
        table_of(route("/{x}", tier="pro", scopes=("paid",)), route("/{x}/{y}", access="authenticated")),
    ):
        assert asked(table, raw, "GET")[0] == 3
        assert asked(table, "/open/y", "GET")[0] < 3


def test_a_hidden_end_behind_nothing_that_can_be_seen_is_refused() -> None:
    assert asked(table_of(route("/**")), "/%E2%80%8B%3Fx", "GET")[0] == REFUSED
    assert asked(table_of(route("/**")), "/x/%3Fx", "GET")[0] == 0
