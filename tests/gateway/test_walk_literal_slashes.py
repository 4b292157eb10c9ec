"""`encoded_slash: literal` and `double_slash: literal` through a whole gateway: the bytes that arrive, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gateway.judging_again import _in_force
from tests.support.house import house, token_for
from tests.support.route_tables import route, table_of

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = """
  - path: /files/{id}
    access: public
    encoded_slash: literal
  - path: /files/secret/**
    tier: pro
  - path: /fetch/**
    access: public
    double_slash: literal
    strip_prefix: /fetch
  - path: /mine/{id}
    tier: free
    encoded_slash: literal
"""


async def test_what_a_route_takes_literally_arrives_byte_for_byte_and_all_else_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=ROUTES) as at:
        bearer = f"Authorization: Bearer {token_for()}"
        for target, arrives in (
            ("/files/org%2Frepo%2fmain?x=%2F//", "/files/org%2Frepo%2fmain?x=%2F//"),
            ("/files/%2Fetc%2F", "/files/%2Fetc%2F"),
            ("/fetch/https://api.test//x/?y", "/https://api.test//x/?y"),
            ("/mine/a%2Fb", "/mine/a%2Fb"),
        ):
            assert (await at.raw_get(target, bearer)).status == 200, target
            assert at.last().received.startswith(f"GET {arrives} HTTP/1.1\r\n".encode())
        reached = at.visit_count()
        for target, status, reason in (
            ("/files/secret%2Fx", 401, "token_missing"),
            ("/files/SECRET%2Fx", 401, "token_missing"),
            ("/files/SECRET;a%2Fx", 400, "bad_path"),
            ("/mine/a%2Fb", 401, "token_missing"),
            ("/files//x", 400, "bad_path"),
            ("/files/a%2F..%2Fb", 400, "bad_path"),
            ("/files/a%252Fb", 400, "bad_path"),
            ("/files/a%5Cb", 400, "bad_path"),
            ("/fetch/a%2Fb", 400, "bad_path"),
            ("/fetch//evil.test/x", 400, "bad_path"),
            ("//files/x", 400, "bad_path"),
            ("/_gateway%2Fme", 400, "bad_path"),
            ("/_gateway//me", 400, "bad_path"),
            ("/nothing%2Fhere", 400, "bad_path"),
        ):
            answer = await at.raw_get(target)
            assert (answer.status, answer.one("x-gateway-reason")) == (status, reason), target
        answer = await at.raw_get("/files/secret%2Fx", bearer)
        assert answer.status == 402
        assert at.visit_count() == reached


async def test_a_preflight_of_such_a_path_reaches_the_api_and_an_options_that_is_none_is_judged(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=ROUTES) as at:
        asks = ("Origin: https://app.test", "Access-Control-Request-Method: GET")
        lines = ("OPTIONS /mine/a%2Fb HTTP/1.1", "Host: gw.test", "Connection: close")
        assert (await at.raw("\r\n".join((*lines, *asks, "", "")).encode())).status == 200
        assert at.last().received.startswith(b"OPTIONS /mine/a%2Fb HTTP/1.1\r\n")
        assert (await at.raw("\r\n".join((*lines, "", "")).encode())).status == 401


def test_after_a_reload_what_is_open_is_judged_by_the_same_reading_under_the_new_table() -> None:
    before = table_of(route("/mine/{id}", tier="free", encoded_slash="literal"))
    after = table_of(route("/mine/{id}", tier="free", encoded_slash="literal"), route("/mine/a/b", tier="pro"))
    without = table_of(route("/mine/{id}", tier="enterprise"))
    scope = {"raw_path": b"/mine/a%2Fb", "query_string": b"x=%2F", "path": "/mine/a/b"}
    walk = SimpleNamespace(method="GET", header=lambda _: "", scope=scope)
    old: Any = SimpleNamespace(routes=before)
    one: Any = SimpleNamespace(plan=old, walk=walk, route=before.routes[0])

    new: Any = SimpleNamespace(routes=after)
    plan, judge = _in_force(new, one)
    assert (plan, judge.label, judge.requirement.tier) == (new, "/mine/{id}", "pro")

    # Where no route takes it any more, the one that let it in still judges it.
    assert _in_force(SimpleNamespace(routes=without), one) == (old, before.routes[0])  # type: ignore[arg-type]
