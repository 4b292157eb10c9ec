"""Whoever pays ends with one subscription, whichever way and however often they clicked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stack import Stack

if TYPE_CHECKING:
    import httpx

RUNNING = {"active", "trialing", "past_due", "unpaid"}


def _running(stack: Stack, customer: str) -> list[dict[str, Any]]:
    return [one for one in stack.stripe.subscriptions_of(customer) if one["status"] in RUNNING]


def _checkout(stack: Stack, customer: str, **body: str) -> httpx.Response:
    return stack.gateway.ask("/_gateway/checkout", customer, "POST", json={"tier": "pro", **body})


def test_one_link_posted_many_times_at_once_leads_to_one_session_and_one_subscription(stack: Stack) -> None:
    link = stack.refusal("once-1")["pay_url"]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: stack.gateway.http.post(link), range(8)))
    assert {answer.status_code for answer in answers} == {303}
    pages = {answer.headers["location"] for answer in answers}
    assert len(pages) == 1
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: stack.stripe.pay(next(iter(pages))), range(4)))
    assert len(_running(stack, "once-1")) == 1
    assert stack.gateway.status("/pro/x", "once-1") == 200


def test_links_of_two_402s_for_two_tiers_leave_one_page_that_can_be_paid(stack: Stack) -> None:
    links = [stack.refusal("once-2")["pay_url"], stack.refusal("once-2", "/ent/x")["pay_url"]]
    with ThreadPoolExecutor(2) as threads:
        pages = [answer.headers["location"] for answer in threads.map(stack.gateway.http.post, links)]
    paid = [stack.stripe.pay(page).status_code for page in pages]
    assert sorted(paid) == [303, 410]
    assert len(_running(stack, "once-2")) == 1


def test_two_links_opened_one_after_the_other_and_both_paid_late_make_one_subscription(stack: Stack) -> None:
    first = stack.checkout_of("once-3")
    second = _checkout(stack, "once-3", interval="year").json()["url"]
    assert first != second
    assert stack.stripe.pay(first).status_code == 410
    assert stack.stripe.pay(second).status_code == 303
    assert stack.stripe.pay(second).status_code == 200  # "you have already completed your payment"
    assert len(_running(stack, "once-3")) == 1


def test_someone_who_already_pays_is_told_so(stack: Stack) -> None:
    link = stack.refusal("once-4")["pay_url"]
    stack.subscribe("once-4")
    for answer in (_checkout(stack, "once-4"), stack.gateway.http.post(link)):
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (409, "already_subscribed")
    assert "You already have pro" in stack.gateway.http.get(link).text
    assert len(_running(stack, "once-4")) == 1


def test_someone_who_pays_is_told_so_though_no_webhook_ever_came(stack: Stack) -> None:
    link = stack.refusal("once-5")["pay_url"]
    stack.stripe.control("webhooks", enabled=False)
    try:
        stack.subscribe("once-5")
        answer = stack.gateway.http.post(link)
    finally:
        stack.stripe.control("webhooks", enabled=True)
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (409, "already_subscribed")
    assert len(_running(stack, "once-5")) == 1


def test_someone_who_pays_for_less_confirms_the_change_in_the_portal(stack: Stack) -> None:
    stack.subscribe("once-6")
    link = stack.refusal("once-6", "/ent/x")["pay_url"]
    answer = stack.gateway.http.post(link)
    assert answer.status_code == 303
    portal = answer.headers["location"]
    assert "/p/session/" in portal
    page = stack.gateway.http.get(portal)
    assert "Confirm" in page.text
    # The holder of a link can pay, and nothing else: the flow shows no way to cancel.
    confirmed = stack.gateway.http.post(f"{portal}/confirm")
    assert confirmed.status_code == 303
    stack.gateway.until("/ent/x", "once-6", 200)
    assert len(_running(stack, "once-6")) == 1


def test_someone_whose_renewal_failed_is_led_to_the_open_invoice(stack: Stack) -> None:
    page = stack.checkout_of("once-7")
    assert stack.stripe.pay(page, card="fails_later").status_code == 303
    assert stack.gateway.status("/pro/x", "once-7") == 200
    [subscription] = _running(stack, "once-7")
    end = subscription["items"]["data"][0]["current_period_end"]
    stack.advance(to=end + 2 * 3600)
    assert stack.gateway.status("/pro/x", "once-7") == 200  # within the grace
    stack.advance(to=end + 2 * 3600 + 73 * 3600)
    problem = stack.refusal("once-7")
    assert problem["reason"] == "payment_failed"
    answer = stack.gateway.http.post(problem["pay_url"])
    assert answer.status_code == 303
    invoice = answer.headers["location"]
    assert "/i/" in invoice
    assert stack.stripe.pay(invoice).status_code == 303
    stack.gateway.until("/pro/x", "once-7", 200)
    assert len(_running(stack, "once-7")) == 1


def test_the_portal_needs_the_token_and_someone_who_has_bought(stack: Stack) -> None:
    assert stack.gateway.ask("/_gateway/portal", method="POST").status_code == 401
    nothing = stack.gateway.ask("/_gateway/portal", "once-8", "POST")
    assert (nothing.status_code, nothing.headers["x-gateway-reason"]) == (402, "subscription_required")
    stack.subscribe("once-8")
    opened = stack.gateway.ask("/_gateway/portal", "once-8", "POST")
    assert "/p/session/" in opened.json()["url"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"pro"', b'{"tier": 1}', b'{"tier": "gold"}', b'{"tier": "free"}', b"\xff", b'{"tier":"pro","price":"price_ent"}']
)  # fmt: skip
def test_a_checkout_that_makes_no_sense_is_a_400(stack: Stack, body: bytes) -> None:
    answer = stack.gateway.ask(
        "/_gateway/checkout", "once-9", "POST", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (400, "bad_request"), answer.text
    assert stack.stripe.customers_of("once-9") == []
