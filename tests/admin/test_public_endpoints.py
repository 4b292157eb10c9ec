"""The gateway's own endpoints: what they answer, to whom, and to what is malformed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from policies.reasons import ANSWERS, Reason
from tests.support.house import house, token_for
from tests.support.rawclient import RawClient
from tests.support.simulator import WEBHOOK_SECRET

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.support.house import House


def refused(answer: httpx.Response, reason: Reason) -> dict[str, Any]:
    assert (answer.status_code, answer.headers.get("x-gateway-reason")) == (ANSWERS[reason].status, reason.value), (
        answer.text
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"].startswith("Authorization, Accept")
    shown: dict[str, Any] = answer.json()
    assert shown["reason"] == reason.value
    assert shown["request_id"] == answer.headers["x-request-id"]
    return shown


async def prices_known(one: House) -> dict[str, Any]:
    """The plans, once Stripe has been asked what they cost."""
    async with asyncio.timeout(10):
        while True:
            shown: dict[str, Any] = (await one.get("/_gateway/plans", "garbage")).json()
            if shown["tiers"][1]["offers"][0]["amount"]:
                return shown
            await asyncio.sleep(0.05)


async def test_me_says_what_they_have_and_what_each_higher_tier_would_unlock(unpaid: House) -> None:
    answer = await unpaid.get("/_gateway/me", token_for())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    offers = [
        {"tier": "pro", "price": price, "amount": None, "currency": None, "interval": None}
        for price in ("price_pro_monthly", "price_pro_yearly")
    ]
    last = {"tier": "enterprise", "price": "price_ent", "amount": None, "currency": None, "interval": None}
    assert answer.json() == {
        "customer": "alice", "tier": "free", "status": "none", "access_until": None, "features": [], "blocked": False,
        "unlocks": [
            {"tier": "pro", "features": ["export"], "routes": ["/pro/**", "/read", "/write", "/export"], "offers": offers},
            {
                "tier": "enterprise", "features": ["export", "sso"],
                "routes": ["/pro/**", "/read", "/write", "/export", "/ent"], "offers": [last],
            },
        ],
    }  # fmt: skip


async def test_me_needs_a_token_and_says_so_like_every_route(unpaid: House) -> None:
    answer = await unpaid.get("/_gateway/me")
    refused(answer, Reason.TOKEN_MISSING)
    assert answer.headers["www-authenticate"] == 'Bearer realm="gateway"'
    refused(await unpaid.get("/_gateway/me", "garbage"), Reason.TOKEN_INVALID)
    refused(await unpaid.post("/_gateway/checkout", json={"tier": "pro"}), Reason.TOKEN_MISSING)
    refused(await unpaid.post("/_gateway/portal"), Reason.TOKEN_MISSING)


async def test_me_follows_grants_and_blocks(unpaid: House) -> None:
    await unpaid.grant("alice", "pro", "30d")
    await unpaid.until(200, "/pro/x", token_for())
    shown = (await unpaid.get("/_gateway/me", token_for())).json()
    assert (shown["tier"], shown["features"], [one["tier"] for one in shown["unlocks"]]) == (
        "pro",
        ["export"],
        ["enterprise"],
    )
    assert shown["access_until"] > 0
    await unpaid.operate("POST", "/api/block/alice", json={"reason": "a test"})
    await unpaid.until(403, "/pro/x", token_for())
    assert (await unpaid.get("/_gateway/me", token_for())).json()["blocked"] is True


async def test_plans_are_for_anyone_and_list_every_tier(at: House) -> None:
    shown = await prices_known(at)
    assert [(tier["tier"], tier["features"]) for tier in shown["tiers"]] == [
        ("free", []), ("pro", ["export"]), ("enterprise", ["export", "sso"]), ("gold", ["export", "sso"]),
    ]  # fmt: skip
    assert shown["tiers"][1]["offers"] == [
        {"tier": "pro", "price": "price_pro_monthly", "amount": 2900, "currency": "usd", "interval": "month"},
        {"tier": "pro", "price": "price_pro_yearly", "amount": 29000, "currency": "usd", "interval": "year"},
    ]
    assert shown["tiers"][0]["offers"] == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/_gateway/plans", {"GET", "HEAD"}),
        ("DELETE", "/_gateway/pay/x.y", {"GET", "HEAD", "POST"}),
        ("GET", "/_gateway/stripe/webhook", {"POST"}),
        ("PUT", "/_gateway/return", {"GET", "HEAD"}),
        ("PROPFIND", "/_gateway/plans", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_405_in_the_same_shape_with_every_method_allowed(
    unpaid: House, method: str, path: str, allow: set[str]
) -> None:
    answer = await unpaid.ask(method, path)
    refused(answer, Reason.METHOD_NOT_ALLOWED)
    assert {one.strip() for one in answer.headers["allow"].split(",")} == allow
    assert "x.y" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/_gateway",
        "/_gateway/",
        "/_gateway/x",
        "/_gateway/plans/",
        "/_gateway/problems/x",
        "/_gateway/pay/",
        "/_GATEWAY/plans",
    ],
)
async def test_an_unknown_path_of_ours_is_404_and_never_a_redirect(unpaid: House, path: str) -> None:
    refused(await unpaid.get(path), Reason.NO_ROUTE)
    html = await unpaid.get(path, headers={"Accept": "text/html"})
    assert html.status_code == 404
    assert html.headers["content-type"].startswith("text/html")


async def test_an_escaped_spelling_is_the_same_endpoint_with_the_same_guard(unpaid: House) -> None:
    refused(await unpaid.get("/%5fgateway/me"), Reason.TOKEN_MISSING)
    assert (await unpaid.get("/_gateway/%6De", token_for())).json()["customer"] == "alice"
    refused(await unpaid.get("/_gateway/%6De"), Reason.TOKEN_MISSING)


async def test_head_of_ours_is_the_head_of_get(unpaid: House) -> None:
    got = await unpaid.get("/_gateway/plans")
    head = await unpaid.ask("HEAD", "/_gateway/plans")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_every_reason_has_a_page_of_its_own(unpaid: House) -> None:
    for reason in Reason:
        answer = await unpaid.get(f"/_gateway/problems/{reason}")
        assert answer.status_code == 200
        assert str(reason) in answer.text
        assert "What to do." in answer.text
        assert "<script" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


class TestCheckoutBodies:
    async def test_a_malformed_one_is_400(self, at: House) -> None:
        await prices_known(at)
        for body in (
            b"", b"   ", b"{}", b"[]", b"null", b'"pro"', b"7", b"{", b"\xff\xfe", b"nonsense", b'{"tier": 7}', b'{"tier": ""}',
            b'{"tier": null}', b'{"tier": ["pro"]}', b'{"tire": "pro"}', b'{"tier": "platinum"}', b'{"tier": "free"}',
            b'{"tier": "pro", "price": "price_ent"}', b'{"tier": "pro", "interval": "fortnight"}', b'{"tier": "\\ud800"}',
            b'{"\\ud800": "pro"}', b'{"tier": "pro\\u0000"}', b"[" * 60000, b'{"tier": NaN}', b'{"a\\r\\nb": 1}',
        ):  # fmt: skip
            refused(await at.post("/_gateway/checkout", token_for(), content=body), Reason.BAD_REQUEST)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body in (b"tier", b"tier=%ff", b"tier=pro&price=", b"=", b"&".join(b"a=b" for _ in range(20))):
            answer = await at.post("/_gateway/checkout", token_for(), content=body, headers=form)
            refused(answer, Reason.BAD_REQUEST)
        assert at.simulator is not None
        assert not at.simulator.world.store.sessions

    async def test_a_choice_that_nobody_can_judge_yet_is_503_and_not_400(self, tmp_path: Path) -> None:
        tiers = "\n  - name: pro\n    products: [prod_x]\n"
        async with house(tmp_path, tiers=tiers, routes="\n  - path: /pro\n    tier: pro\n") as one:
            answer = await one.post("/_gateway/checkout", token_for(), json={"tier": "pro", "interval": "year"})
            refused(answer, Reason.BILLING_UNAVAILABLE)

    async def test_one_that_is_too_large_is_413_however_it_is_framed(self, unpaid: House) -> None:
        body = b'{"tier": "' + b"x" * 70_000 + b'"}'
        refused(await unpaid.post("/_gateway/checkout", token_for(), content=body), Reason.BODY_TOO_LARGE)

        async def pieces() -> Any:
            for _ in range(80):
                yield b"x" * 1000

        refused(await unpaid.post("/_gateway/checkout", token_for(), content=pieces()), Reason.BODY_TOO_LARGE)

    async def test_a_caller_who_leaves_in_the_middle_is_logged_as_499(self, unpaid: House) -> None:
        client = await RawClient.connect(unpaid.address)
        head = f"POST /_gateway/checkout HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token_for()}\r\n"
        await client.send(f"{head}X-Request-Id: left-1\r\nContent-Length: 1000\r\n\r\n{{".encode())
        await asyncio.sleep(0.05)
        client.reset()
        assert (await unpaid.logged("left-1"))["status"] == 499

    async def test_a_good_one_leads_to_checkout(self, at: House) -> None:
        await prices_known(at)
        answer = await at.post("/_gateway/checkout", token_for(), json={"tier": "pro", "interval": "year"})
        assert answer.status_code == 200
        assert answer.json()["url"].startswith("http://127.0.0.1:")
        form = await at.post("/_gateway/checkout", token_for("bob"), data={"tier": "pro", "price": "price_pro_monthly"})
        assert form.status_code == 200

    async def test_somebody_who_has_it_already_is_409(self, at: House) -> None:
        await prices_known(at)  # the portal sells nothing before
        await at.buy("alice")
        answer = await at.post("/_gateway/checkout", token_for(), json={"tier": "pro"})
        refused(answer, Reason.ALREADY_SUBSCRIBED)
        higher = await at.post("/_gateway/checkout", token_for(), json={"tier": "enterprise"})
        assert higher.status_code == 200
        assert "/p/session/" in higher.json()["url"]

    async def test_a_blocked_customer_is_sold_nothing(self, at: House) -> None:
        assert (await at.get("/pro/x", token_for())).status_code == 402
        link = (await at.get("/pro/x", token_for())).json()["pay_url"].removeprefix(at.api)
        await at.operate("POST", "/api/block/alice", json={"reason": "a test"})
        await at.until(403, "/pro/x", token_for())
        refused(await at.post("/_gateway/checkout", token_for(), json={"tier": "pro"}), Reason.BLOCKED)
        refused(await at.get(link), Reason.BLOCKED)
        refused(await at.post(link), Reason.BLOCKED)


async def test_the_portal_is_for_those_who_have_bought_and_others_are_told_how(at: House) -> None:
    nothing = await at.post("/_gateway/portal", token_for())
    shown = refused(nothing, Reason.SUBSCRIPTION_REQUIRED)
    assert nothing.headers["link"] == f'<{shown["pay_url"]}>; rel="payment"; title="Subscribe"'
    assert shown["offers"]
    assert shown["detail"].startswith(
        "alice has never bought anything here, so there is nothing to manage. Subscribe: http"
    )
    await at.buy("alice")
    answer = await at.post("/_gateway/portal", token_for())
    assert answer.status_code == 200
    page = await at.http.get(answer.json()["url"])
    assert page.status_code == 200


async def test_without_a_stripe_key_whatever_takes_money_says_so(unpaid: House) -> None:
    for path, options in (
        ("/_gateway/checkout", {"json": {"tier": "pro"}}),
        ("/_gateway/portal", {}),
        ("/_gateway/stripe/webhook", {"content": b"{}"}),
    ):
        answer = await unpaid.post(path, token_for(), **options)
        refused(answer, Reason.BILLING_NOT_CONFIGURED)
        assert "STRIPE_SECRET_KEY" in answer.json()["detail"]
        assert answer.headers["retry-after"]
    link = (await unpaid.get("/pro/x", token_for())).json()["pay_url"].removeprefix(unpaid.api)
    assert (await unpaid.get(link)).status_code == 200
    refused(await unpaid.post(link), Reason.BILLING_NOT_CONFIGURED)


class TestCookieTokens:
    """A browser sends cookies along with whatever a foreign page has it do."""

    @pytest.fixture
    async def at(self, tmp_path: Path) -> Any:
        server, auth = "  cors_origins: [https://app.test]", "  token_from: [header, cookie:session]"
        async with house(tmp_path, server=server, auth=auth) as one:
            yield one

    async def test_a_post_with_a_cookie_alone_needs_an_allowed_origin(self, at: House) -> None:
        cookie = {"Cookie": f"session={token_for()}"}
        for path in ("/_gateway/checkout", "/_gateway/portal"):
            for sent in ({}, {"Origin": "https://evil.test"}, {"Origin": "null"}, {"Origin": ""}):
                answer = await at.post(path, headers={**cookie, **sent}, json={"tier": "pro"})
                refused(answer, Reason.FORBIDDEN)
        assert at.simulator is not None
        assert not at.simulator.world.store.sessions
        for origin in (at.api, "https://app.test"):
            answer = await at.post("/_gateway/checkout", headers={**cookie, "Origin": origin}, json={"tier": "pro"})
            assert answer.status_code == 200, answer.text

    async def test_a_get_with_a_cookie_needs_none(self, at: House) -> None:
        cookie = {"Cookie": f"session={token_for()}"}
        assert (await at.get("/_gateway/me", headers=cookie)).status_code == 200
        assert (await at.ask("HEAD", "/_gateway/me", headers=cookie)).status_code == 200

    async def test_a_header_token_needs_no_origin_even_beside_the_same_cookie(self, at: House) -> None:
        token = token_for()
        answer = await at.post(
            "/_gateway/checkout", token, headers={"Cookie": f"session={token}"}, json={"tier": "pro"}
        )
        assert answer.status_code == 200


class TestWebhook:
    async def test_an_unsigned_one_is_400_whatever_it_holds(self, at: House) -> None:
        bodies = (b"", b"{}", b"\x00" * 100, b"\xff\xfe", b"[" * 50000, b'{"id": "evt_1", "object": "event"}')
        signatures = (
            None, "", "garbage", "t=,v1=", "t=1,v1=00", "t=99999999999999999999,v1=a", "v1=é", "t=1", "t=1,t=2,v1=a", "," * 5000,
        )  # fmt: skip
        for signature in signatures:
            for body in bodies:
                headers = {} if signature is None else {"Stripe-Signature": signature.encode("latin-1")}
                shown = refused(
                    await at.post("/_gateway/stripe/webhook", content=body, headers=headers), Reason.BAD_REQUEST
                )
                assert shown["detail"].endswith(".")

    async def test_a_huge_one_is_413_before_it_has_come_whole(self, at: House) -> None:
        async with await RawClient.connect(at.address) as client:
            await client.send(
                b"POST /_gateway/stripe/webhook HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
            )
            await client.send(b"x" * (1 << 20))
            answer = await client.ask(b"xx")
            assert (answer.status, answer.one("x-gateway-reason")) == (413, "body_too_large")

    async def test_a_signed_one_that_is_no_event_is_400_too(self, at: House) -> None:
        bodies = (
            b"", b"{}", b"[]", b"7", b"\xff", b"[" * 50000, b'{"id": 7, "object": "event"}', b'{"id":"\\ud800"}',
            b'{"id":"evt_\\u0000"}',
        )  # fmt: skip
        for body in bodies:
            headers = {"Stripe-Signature": signed(body)}
            refused(await at.post("/_gateway/stripe/webhook", content=body, headers=headers), Reason.BAD_REQUEST)

    async def test_one_from_another_time_is_400(self, at: House) -> None:
        for skew in (-400, 400):
            body = json.dumps({"id": "evt_1", "object": "event", "type": "invoice.paid"}).encode()
            headers = {"Stripe-Signature": signed(body, skew)}
            refused(await at.post("/_gateway/stripe/webhook", content=body, headers=headers), Reason.BAD_REQUEST)

    async def test_the_delivery_is_counted_by_type_and_outcome(self, at: House) -> None:
        await at.post("/_gateway/stripe/webhook", content=b"{}")
        assert 'admin_webhook_events_total{outcome="rejected",type="_unread"} 1.0' in await at.metrics()


def signed(body: bytes, skew: int = 0) -> str:
    """What Stripe would send along with this body, `skew` seconds from now."""
    moment = int(time.time()) + skew
    signature = hmac.new(WEBHOOK_SECRET.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={signature}"


async def test_the_ledger_gone_is_503_and_never_500(at: House) -> None:
    link = (await at.get("/pro/x", token_for())).json()["pay_url"].removeprefix(at.api)
    at.lose_the_ledger()
    refused(await at.get("/_gateway/me", token_for("bob")), Reason.ENTITLEMENT_UNAVAILABLE)
    refused(await at.get("/pro/x", token_for("bob")), Reason.ENTITLEMENT_UNAVAILABLE)
    refused(await at.post("/_gateway/checkout", token_for("bob"), json={"tier": "pro"}), Reason.BILLING_UNAVAILABLE)
    refused(await at.post("/_gateway/portal", token_for("bob")), Reason.BILLING_UNAVAILABLE)
    refused(await at.post(link), Reason.BILLING_UNAVAILABLE)
    assert (await at.get(link)).status_code == 200
    assert (await at.get("/_gateway/plans")).status_code == 200
    body = json.dumps(
        {
            "id": "evt_1", "object": "event", "type": "invoice.paid", "created": 1, "livemode": False, "api_version": "x",
            "data": {"object": {"id": "in_1", "object": "invoice", "customer": "cus_1"}},
        }
    ).encode()  # fmt: skip
    event = await at.post("/_gateway/stripe/webhook", content=body, headers={"Stripe-Signature": signed(body)})
    refused(event, Reason.BILLING_UNAVAILABLE)
    for path in ("/api/customers", "/api/customers/alice", "/api/events"):
        answer = await at.operate("GET", path)
        assert (answer.status_code, answer.json()["detail"][-1]) == (503, "."), path
    answer = await at.operate("POST", "/api/grant/alice", json={"tier": "pro", "reason": "a test"})
    assert answer.status_code == 503
    ready = await at.operate("GET", "/readyz")
    assert (ready.status_code, ready.json()["ledger"]) == (200, "unreachable")
    assert "ledger" in ready.json()["degraded"]
    assert (await at.operate("GET", "/metrics")).status_code == 200
