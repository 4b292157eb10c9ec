"""`encoded_slash: literal` and `double_slash: literal` through a whole gateway: the bytes that arrive, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.house import house, token_for

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
