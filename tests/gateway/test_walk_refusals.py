"""Every refusal of the walk, over real sockets: its status, reason, headers and shape (docs/design.md, section 4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from policies.reasons import ANSWERS, Reason
from tests.support.house import house, token_for
from tests.support.rawclient import RawAnswer, RawClient
from tests.support.tokens import rsa_key, sign

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.support.house import House


def problem(answer: httpx.Response | RawAnswer, reason: Reason) -> dict[str, Any]:
    """The body of a refusal that carries everything that all of them carry."""
    if isinstance(answer, RawAnswer):
        headers = {name.lower(): value for name, value in answer.headers}
        status, body = answer.status, answer.body
    else:
        headers, status, body = dict(answer.headers), answer.status_code, answer.content
    assert (status, headers.get("x-gateway-reason")) == (ANSWERS[reason].status, reason.value), body
    assert headers["cache-control"] == "no-store"
    assert [name.strip() for name in headers["vary"].split(",")][:2] == ["Authorization", "Accept"]
    assert headers["content-type"] == "application/problem+json"
    shown: dict[str, Any] = json.loads(body)
    assert shown["reason"] == reason.value
    assert shown["status"] == status
    assert shown["title"] == ANSWERS[reason].title
    assert shown["type"].endswith(f"/_gateway/problems/{reason}")
    assert shown["request_id"] == headers["x-request-id"]
    assert shown["detail"]
    assert ("retry-after" in headers) == (ANSWERS[reason].retry_after_seconds is not None)
    return shown


@pytest.fixture
async def at(tmp_path: Path) -> Any:
    async with house(tmp_path, stripe=False) as one:
        yield one


async def test_a_path_that_nobody_serves_is_404_no_route(at: House) -> None:
    shown = problem(await at.get("/nothing/here?secret=1", token_for()), Reason.NO_ROUTE)
    assert shown["detail"] == "Nothing is served at /nothing/here."
    assert at.visit_count() == 0


async def test_a_path_with_another_method_is_405_and_names_those_it_takes(at: House) -> None:
    answer = await at.ask("DELETE", "/write", token_for())
    problem(answer, Reason.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == "POST, PUT"
    answer = await at.post("/read", token_for())
    assert answer.headers["allow"] == "GET, HEAD"
    assert at.visit_count() == 0


@pytest.mark.parametrize(
    "target",
    [
        "//mine", "/a//b", "/open/../mine", "/open/./x", "/open/%2e%2e/mine", "/open/%2E/x", "/a%2fb", "/a%5cb", "/a%00b",
        "/a%zz", "/a\\b", "/open/x#y", "/%c0%ae%c0%ae/x", "/open/..;x/mine",
    ],
)  # fmt: skip
async def test_a_target_with_two_readings_is_400_bad_path(at: House, target: str) -> None:
    problem(await at.raw_get(target), Reason.BAD_PATH)
    assert at.visit_count() == 0


async def test_no_token_is_401_with_a_challenge_that_names_no_error(at: House) -> None:
    answer = await at.get("/mine")
    problem(answer, Reason.TOKEN_MISSING)
    assert answer.headers["www-authenticate"] == 'Bearer realm="gateway"'


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "token"])
async def test_another_scheme_or_an_empty_token_counts_as_no_token(at: House, header: str) -> None:
    answer = await at.raw_get("/mine", f"Authorization: {header}")
    problem(answer, Reason.TOKEN_MISSING)
    assert answer.one("www-authenticate") == 'Bearer realm="gateway"'


@pytest.mark.parametrize(
    "token",
    ["garbage", "a.b.c", token_for(iss="https://else.test/"), token_for(aud="another"), token_for(sub=""), "é"],
)
async def test_a_bad_token_is_401_with_an_invalid_token_challenge(at: House, token: str) -> None:
    answer = await at.raw_get("/mine", f"Authorization: Bearer {token}")
    problem(answer, Reason.TOKEN_INVALID)
    challenge = answer.one("www-authenticate")
    assert challenge is not None
    assert challenge.startswith('Bearer realm="gateway", error="invalid_token", error_description="')
    assert challenge.count('"') == 6


async def test_an_expired_token_is_401_token_expired(at: House) -> None:
    answer = await at.get("/mine", token_for(lifetime=-3600))
    problem(answer, Reason.TOKEN_EXPIRED)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_two_credentials_are_400_bad_request(at: House) -> None:
    answer = await at.raw_get("/mine", "Authorization: Bearer x", "Authorization: Bearer x")
    problem(answer, Reason.BAD_REQUEST)
    assert answer.all("www-authenticate") == []


async def test_somebody_unknown_is_never_asked_for_money(at: House) -> None:
    for token in (None, "garbage", token_for(lifetime=-3600)):
        assert (await at.get("/pro/x", token)).status_code == 401


async def test_a_tier_that_nobody_sells_is_403_forbidden(at: House) -> None:
    answer = await at.get("/gold", token_for())
    shown = problem(answer, Reason.FORBIDDEN)
    assert "pay_url" not in shown
    assert "link" not in answer.headers


async def test_a_blocked_customer_is_403_whatever_they_have(at: House) -> None:
    await at.grant("alice", "enterprise")
    assert (await at.get("/pro/x", token_for())).status_code == 200
    blocked = await at.operate("POST", "/api/block/alice", json={"reason": "abuse of the service"})
    assert blocked.status_code == 200
    await at.until(403, "/pro/x", token_for())
    reached = at.visit_count()
    for path in ("/pro/x", "/mine", "/free", "/ent"):
        shown = problem(await at.get(path, token_for()), Reason.BLOCKED)
        assert "abuse" not in json.dumps(shown), "the operator's note is the operator's"
    assert at.visit_count() == reached
    assert (await at.get("/open/x", token_for())).status_code == 200


async def test_an_upstream_that_is_not_there_is_502(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, upstream_url="http://127.0.0.1:9") as one:
        answer = await one.get("/open/x")
        shown = problem(answer, Reason.UPSTREAM_UNREACHABLE)
        assert "127.0.0.1" not in json.dumps({**shown, "type": ""}), "nothing is said of what lies behind"
        assert (await one.logged(answer.headers["x-request-id"]))["note"]


async def test_an_upstream_that_speaks_no_http_is_502(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False) as one:
        one.answers[0] = b"SSH-2.0-OpenSSH_9.2\r\n"
        problem(await one.get("/open/x"), Reason.UPSTREAM_PROTOCOL_ERROR)


async def test_an_upstream_that_keeps_silent_is_504(tmp_path: Path) -> None:
    async def silent(visit: Any) -> None:
        await visit.request()

    settings = "    timeouts: {response: 200ms}"
    async with house(tmp_path, stripe=False, script=silent, upstream_settings=settings) as one:
        problem(await one.get("/open/x"), Reason.UPSTREAM_TIMEOUT)


async def test_keys_out_of_reach_are_503_and_not_401(tmp_path: Path) -> None:
    issuer = """
    - issuer: https://far.test/
      audience: api
      algorithms: [RS256]
      jwks_url: http://127.0.0.1:9/jwks
      shared_customers: true
"""
    async with house(tmp_path, stripe=False, issuer="      shared_customers: true", auth=issuer) as one:
        token = sign({"iss": "https://far.test/", "aud": "api", "sub": "a", "exp": 4_000_000_000}, rsa_key(), "RS256")
        problem(await one.get("/mine", token), Reason.KEYS_UNAVAILABLE)


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", Reason.URI_TOO_LONG),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70000 + b"\r\n\r\n", Reason.HEADERS_TOO_LARGE),
        (b"GET / HTTP/1.1\r\n\r\n", Reason.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Reason.BAD_REQUEST),
        (b"GET http://a/mine HTTP/1.1\r\nHost: a\r\n\r\n", Reason.BAD_PATH),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Reason.BAD_PATH),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Reason.BAD_REQUEST),
        (b"nonsense\r\n\r\n", Reason.BAD_REQUEST),
    ],
)
async def test_what_is_no_request_is_refused_in_the_same_shape_and_counted(
    at: House, request_bytes: bytes, reason: Reason
) -> None:
    problem(await at.raw(request_bytes), reason)
    assert await at.count(reason=reason.value, status=str(ANSWERS[reason].status)) == 1


async def test_head_is_refused_like_get_and_has_no_body(at: House) -> None:
    got = await at.get("/pro/x", token_for())
    async with await RawClient.connect(at.address) as client:
        answer = await client.ask(_head("/pro/x", token_for()), to_head=True)
        assert answer.status == 402
        assert answer.one("x-gateway-reason") == "tier_required"
        assert answer.one("content-length") == str(len(got.content))
        again = await client.ask(_head("/nothing", None), to_head=True)
        assert again.status == 404, "no stray body stood between the two answers"


def _head(path: str, token: str | None) -> bytes:
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"HEAD {path} HTTP/1.1\r\nHost: a\r\n{credential}\r\n".encode()


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/problem+json", False),
        ("application/json", False),
        ("*/*", False),
        ("text/html;q=0", False),
        ("text/html;q=broken", False),
        ("", False),
    ],
)
async def test_html_is_answered_only_where_it_is_preferred(at: House, accept: str, is_html: bool) -> None:
    answer = await at.get("/pro/x", token_for(), headers={"Accept": accept})
    assert answer.status_code == 402
    assert answer.headers["content-type"].startswith("text/html" if is_html else "application/problem+json")


async def test_the_html_of_a_402_has_the_same_facts_and_no_script(at: House) -> None:
    plain = await at.get("/pro/x", token_for())
    html = await at.get("/pro/x", token_for(), headers={"Accept": "text/html"})
    for name in ("x-gateway-reason", "cache-control", "vary"):
        assert html.headers[name] == plain.headers[name]
    assert html.headers["link"].endswith('rel="payment"; title="Upgrade to pro"')
    text = html.text
    assert "Payment required" in text
    assert "tier_required" in text
    assert "needs tier &#x27;pro&#x27;; you are on &#x27;free&#x27;" in text
    assert html.headers["x-request-id"] in text
    assert text.count("/_gateway/pay/") == 1
    assert "<script" not in text
    policy = html.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


async def test_the_html_of_a_refusal_escapes_what_the_caller_sent(at: House) -> None:
    answer = await at.raw_get("/<script>alert(1)</script>", "Accept: text/html")
    assert answer.status == 404
    assert b"<script" not in answer.body
    answer = await at.raw_get("/%3Cscript%3E", "Accept: text/html")
    assert b"<script" not in answer.body


async def test_the_402_is_the_whole_one_of_the_design(at: House) -> None:
    answer = await at.get("/pro/reports/7?page=2", token_for())
    shown = problem(answer, Reason.TIER_REQUIRED)
    pay_url = shown["pay_url"]
    assert pay_url.startswith(f"{at.api}/_gateway/pay/")
    assert shown == {
        "type": f"{at.api}/_gateway/problems/tier_required",
        "title": "Payment required",
        "status": 402,
        "reason": "tier_required",
        "detail": f"GET /pro/reports/7 needs tier 'pro'; you are on 'free'. Upgrade: {pay_url}",
        "required": {"tier": "pro", "features": []},
        "current": {"tier": "free", "status": "none", "access_until": None},
        "offers": [
            {"tier": "pro", "price": price, "amount": None, "currency": None, "interval": None}
            for price in ("price_pro_monthly", "price_pro_yearly")
        ],
        "pay_url": pay_url,
        "status_url": f"{at.api}/_gateway/me",
        "request_id": answer.headers["x-request-id"],
    }
    assert answer.headers["link"] == f'<{pay_url}>; rel="payment"; title="Upgrade to pro"'
    assert at.visit_count() == 0


async def test_the_402_names_the_features_that_a_route_asks_for(at: House) -> None:
    shown = problem(await at.get("/export", token_for()), Reason.TIER_REQUIRED)
    assert shown["required"] == {"tier": "pro", "features": ["export"]}
    assert "needs tier 'pro' with 'export'" in shown["detail"]


async def test_without_a_tier_for_everybody_the_402_is_subscription_required(tmp_path: Path) -> None:
    tiers = "\n  - name: pro\n    prices: [price_pro_monthly]\n"
    routes = "\n  - path: /pro\n    tier: pro\n"
    async with house(tmp_path, stripe=False, tiers=tiers, routes=routes) as one:
        answer = await one.get("/pro", token_for())
        shown = problem(answer, Reason.SUBSCRIPTION_REQUIRED)
        assert shown["current"] == {"tier": None, "status": "none", "access_until": None}
        assert "you have no subscription. Subscribe: http" in shown["detail"]


async def test_the_short_plain_request_id_of_a_caller_is_kept_and_any_other_replaced(at: House) -> None:
    for name in ("abc-1.2_X", "x" * 64):
        answer = await at.raw_get("/mine", f"X-Request-Id: {name}")
        assert answer.one("x-request-id") == name
    for name in ("x" * 65, "a b", "a/b", "é", '"', ""):
        answer = await at.raw_get("/mine", f"X-Request-Id: {name}")
        made = answer.one("x-request-id")
        assert made is not None
        assert made != name
        assert len(made) == 16


async def test_every_reason_that_an_answer_can_have_stands_in_the_table() -> None:
    assert set(ANSWERS) == set(Reason)
