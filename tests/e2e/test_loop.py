"""The main job against `gateway run` and `gateway simulator`: refused, paid, admitted, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.stack import OPERATOR_TOKEN, bearer, eventually

if TYPE_CHECKING:
    from tests.support.recorder import Recorder
    from tests.support.stack import Stack


def test_a_public_route_needs_no_token_and_gets_no_identity(stack: Stack, recorder: Recorder) -> None:
    recorder.taken()
    answer = stack.gateway.ask("/public/x")
    assert (answer.status_code, answer.text) == (200, "recorded")
    [request] = recorder.taken()
    assert b"x-gateway-" not in request.lower()


def test_without_a_token_a_paid_route_answers_401_and_never_402(stack: Stack) -> None:
    answer = stack.gateway.ask("/pro/x")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (401, "token_missing")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "pay_url" not in answer.json()


def test_a_free_user_gets_a_402_with_everything_a_program_needs_to_act_on(stack: Stack) -> None:
    answer = stack.gateway.ask("/pro/x?secret=1", "free-1")
    problem = answer.json()
    assert answer.status_code == 402
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert {"Authorization", "Accept"} <= {one.strip() for one in answer.headers["vary"].split(",")}
    assert answer.headers["link"].startswith(f'<{problem["pay_url"]}>; rel="payment"')
    assert problem["reason"] == answer.headers["x-gateway-reason"] == "tier_required"
    assert problem["required"] == {"tier": "pro", "features": []}
    assert problem["current"] == {"tier": "free", "status": "none", "access_until": None}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert stack.gateway.http.get(problem["type"]).status_code == 200
    assert stack.gateway.http.get(problem["status_url"], headers=bearer("free-1")).json()["tier"] == "free"


def test_an_offer_names_amount_and_interval_once_stripe_was_asked(stack: Stack) -> None:
    offers = eventually(
        lambda: [offer for offer in stack.refusal("offers")["offers"] if offer.get("amount")],
        told=lambda: stack.gateway.running.said,
    )
    assert {offer["price"] for offer in offers} == {"price_pro_monthly", "price_pro_yearly"}
    assert {offer["interval"] for offer in offers} == {"month", "year"}


def test_a_reload_sells_a_tier_that_it_brings_at_once_and_not_an_hour_later(stack: Stack) -> None:
    def offers() -> list[tuple[str, int]]:
        tiers = stack.gateway.ask("/_gateway/plans").json()["tiers"]
        return [
            (offer["price"], offer["amount"]) for tier in tiers if tier["tier"] == "team" for offer in tier["offers"]
        ]

    file = stack.gateway.directory / "gateway.yaml"
    original = file.read_text()
    file.write_text(
        original.replace("prices: [price_pro_monthly, price_pro_yearly]", "prices: [price_pro_monthly]").replace(
            "  - name: enterprise\n", "  - name: team\n    prices: [price_pro_yearly]\n  - name: enterprise\n"
        )
    )
    try:
        assert stack.gateway.operator_post("/api/reload", {}).status_code == 200
        [(price, amount)] = eventually(lambda: [one for one in offers() if one[1]])
        assert price == "price_pro_yearly"
        assert amount > 0
    finally:
        file.write_text(original)
        assert stack.gateway.operator_post("/api/reload", {}).status_code == 200


def test_paying_through_the_link_of_a_402_admits_at_once_and_the_api_sees_who_calls(
    stack: Stack, recorder: Recorder
) -> None:
    stack.subscribe("loop-1")
    recorder.taken()
    assert stack.gateway.status("/pro/x", "loop-1") == 200
    [request] = recorder.taken()
    lines = request.lower().split(b"\r\n")
    assert b"x-gateway-customer: loop-1" in lines
    assert b"x-gateway-tier: pro" in lines
    assert b"x-gateway-features: export" in lines
    assert b"x-gateway-status: active" in lines
    assert stack.gateway.status("/ent/x", "loop-1") == 402


def test_the_return_page_says_what_the_payer_now_has(stack: Stack) -> None:
    paid = stack.stripe.pay(stack.checkout_of("loop-2"))
    page = stack.gateway.http.get(paid.headers["location"])
    assert page.status_code == 200
    assert "You now have pro" in page.text


def test_the_return_page_admits_where_no_webhook_ever_came(stack: Stack) -> None:
    stack.stripe.control("webhooks", enabled=False)
    try:
        paid = stack.stripe.pay(stack.checkout_of("loop-3"))
    finally:
        stack.stripe.control("webhooks", enabled=True)
    assert "You now have pro" in stack.gateway.http.get(paid.headers["location"]).text
    assert stack.gateway.status("/pro/x", "loop-3") == 200


def test_whoever_paid_is_admitted_though_webhook_and_browser_were_both_lost(stack: Stack) -> None:
    stack.stripe.control("webhooks", enabled=False)
    try:
        stack.subscribe("loop-4")
    finally:
        stack.stripe.control("webhooks", enabled=True)
    stack.gateway.until("/pro/x", "loop-4", 200)  # by the live check before a refusal


def test_the_return_page_of_one_payer_shows_nothing_for_another_ones_session(stack: Stack) -> None:
    first = stack.stripe.pay(stack.checkout_of("loop-5")).headers["location"]
    other = stack.stripe.pay(stack.checkout_of("loop-6")).headers["location"]
    mixed = first.partition("&session_id=")[0] + "&session_id=" + other.partition("&session_id=")[2]
    answer = stack.gateway.http.get(mixed)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (400, "bad_request")
    assert stack.gateway.http.get(first + "x").status_code in {400, 404}


@pytest.mark.parametrize("spoiled", ["", "x", "eyJ.eyJ.x", "%00", "a" * 4000])
def test_a_spoiled_payment_link_is_a_4xx(stack: Stack, spoiled: str) -> None:
    for method in ("GET", "POST"):
        answer = stack.gateway.ask(f"/_gateway/pay/{spoiled}", method=method)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["x-gateway-reason"] in {"bad_request", "no_route", "bad_path"}


def test_looking_at_a_payment_link_changes_nothing_at_stripe(stack: Stack) -> None:
    pay_url = stack.refusal("looker")["pay_url"]
    for _ in range(3):
        page = stack.gateway.http.get(pay_url)
        assert page.status_code == 200
        assert "Continue to payment" in page.text
    assert stack.stripe.customers_of("looker") == []


def test_an_export_needs_its_method_and_its_feature(stack: Stack) -> None:
    stack.gateway.verb("grant", "exporter", "pro", "--reason", "test")
    stack.gateway.until("/pro/x", "exporter", 200)
    assert stack.gateway.ask("/export/x", "exporter", "POST", content=b"data").status_code == 200
    answer = stack.gateway.ask("/export/x", "exporter")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_an_auto_renewing_period_is_served_through_its_leeway_and_not_after_with_webhooks_off(stack: Stack) -> None:
    stack.subscribe("renewing")
    stack.subscribe("ending")
    stack.renew("ending", enabled=False)
    assert stack.gateway.status("/pro/x", "renewing") == stack.gateway.status("/pro/x", "ending") == 200
    [subscription] = stack.stripe.subscriptions_of("renewing")
    end = subscription["items"]["data"][0]["current_period_end"]
    stack.stripe.control("webhooks", enabled=False)
    # Stripe is gone, too: what follows can only come from what the gateway knew.
    stack.stripe.control("faults", api="500", count=100_000)
    try:
        stack.advance(to=end + 86400)
        assert stack.gateway.status("/pro/x", "renewing") == 200
        assert stack.refusal("ending")["reason"] == "subscription_expired"
        stack.advance(to=end + 48 * 3600 + 60)
        past = stack.gateway.ask("/pro/x", "renewing")
        # Nobody is told to pay twice: last seen they were paying, and Stripe can't be asked.
        assert (past.status_code, past.headers["x-gateway-reason"]) == (503, "entitlement_unavailable")
        assert "retry-after" in past.headers
    finally:
        stack.stripe.clear_faults()
        stack.stripe.control("webhooks", enabled=True)
    # A live check is good for 30 s on either clock.
    stack.advance(seconds=60)
    stack.gateway.until("/pro/x", "renewing", 200)
    assert stack.refusal("ending")["reason"] == "subscription_expired"


def test_me_plans_and_the_operators_view_agree(stack: Stack) -> None:
    stack.subscribe("agreeing")
    me = stack.gateway.ask("/_gateway/me", "agreeing").json()
    shown = stack.gateway.operator_get("/api/customers/agreeing").json()
    assert me["tier"] == shown["tier"] == "pro"
    assert me["status"] == shown["status"] == "active"
    assert me["access_until"] == shown["access_until"]
    assert [event["status"] for event in shown["events"]].count("pending") == 0
    assert "agreeing" in stack.gateway.verb("customers")
    plans = stack.gateway.ask("/_gateway/plans").json()
    assert "enterprise" in str(plans)


def test_only_the_probes_of_the_operators_listener_are_open(stack: Stack) -> None:
    operator = f"http://127.0.0.1:{stack.gateway.operator}"
    for path, status in (("/livez", 200), ("/readyz", 200), ("/metrics", 401), ("/api/customers", 401), ("/docs", 401)):
        assert stack.gateway.http.get(operator + path).status_code == status, path
    assert stack.gateway.http.get(operator + "/docs", auth=("anyone", OPERATOR_TOKEN)).status_code == 200
    assert stack.gateway.http.get(operator + "/metrics", auth=("anyone", OPERATOR_TOKEN + "x")).status_code == 401
