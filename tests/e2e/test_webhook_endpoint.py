"""Stripe's events at the real endpoint: forged, broken, twice, in any order; a crash never loses an acknowledged one (P6)."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stack import (
    WEBHOOK_SECRET,
    Gateway,
    Stack,
    eventually,
    prepared_gateway,
    running_stack,
    signature,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.recorder import Recorder

GOOD = {"id": "evt_x", "object": "event", "type": "customer.subscription.updated", "created": 1, "livemode": False}


def _post(gateway: Gateway, body: bytes, headers: dict[str, str]) -> Any:
    return gateway.http.post(f"{gateway.base}/_gateway/stripe/webhook", content=body, headers=headers)


def _forgeries() -> dict[str, tuple[bytes, dict[str, str]]]:
    body = json.dumps({**GOOD, "data": {"object": {"id": "sub_1", "customer": "cus_1"}}}).encode()
    return {
        "no signature": (body, {}),
        "an empty signature": (body, {"Stripe-Signature": ""}),
        "no time": (body, {"Stripe-Signature": "v1=00"}),
        "a time that is none": (body, {"Stripe-Signature": "t=x,v1=00"}),
        "a wrong signature": (body, signature(body, secret="whsec_wrong")),
        "a signature of another body": (body, signature(body + b" ")),
        "an old signature": (body, signature(body, at=time.time() - 301)),
        "a signature from ahead": (body, signature(body, at=time.time() + 330)),
        "only the decoy scheme": (body, {"Stripe-Signature": signature(body)["Stripe-Signature"].replace("v1", "v0")}),
        "bytes beyond ASCII": (body, {"Stripe-Signature": "t=1,v1=ÿ"}),
        "a huge signature": (body, {"Stripe-Signature": "t=1," + "v1=0," * 5000}),
    }


def _garbage() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "no JSON": b"<xml/>",
        "no UTF-8": b'\xff\xfe{"id"',
        "a list": b"[]",
        "a number": b"1",
        "null": b"null",
        "no fields": b"{}",
        "no id": json.dumps({**GOOD, "id": None}).encode(),
        "an id that is a list": json.dumps({**GOOD, "id": ["evt"]}).encode(),
        "a type that is a number": json.dumps({**GOOD, "type": 7, "data": {"object": {}}}).encode(),
        "no data": json.dumps(GOOD).encode(),
        "data that is a list": json.dumps({**GOOD, "data": []}).encode(),
        "an object that is a word": json.dumps({**GOOD, "data": {"object": "sub"}}).encode(),
        "a NUL in the id": json.dumps({**GOOD, "id": "evt_\0", "data": {"object": {"id": "sub"}}}).encode(),
        "a lone surrogate": b'{"id": "evt_\\ud800", "object": "event", "type": "x", "data": {"object": {}}}',
        "deep nesting": b'{"id":' + b"[" * 50_000,
        "a created of 10^30": json.dumps({**GOOD, "created": 10**30, "data": {"object": {"id": "s"}}}).encode(),
        "not a number": b'{"id": "evt_n", "object": "event", "created": NaN}',
    }


@pytest.mark.parametrize("forgery", _forgeries())
def test_a_forged_event_is_a_400_problem_and_leaves_nothing(stack: Stack, forgery: str) -> None:
    body, headers = _forgeries()[forgery]
    answer = _post(stack.gateway, body, {name: value.encode("latin-1") for name, value in headers.items()})  # type: ignore[misc]
    assert answer.status_code in {400, 431}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "evt_x" not in stack.gateway.operator_get("/api/events").text


@pytest.mark.parametrize("garbage", _garbage())
def test_signed_garbage_is_never_a_500(stack: Stack, garbage: str) -> None:
    body = _garbage()[garbage]
    answer = stack.gateway.deliver(body)
    assert answer.status_code in {200, 400}, answer.text
    if answer.status_code == 400:
        assert answer.json()["reason"] == "bad_request"
    assert stack.gateway.status("/free/x", "after-garbage") == 200


def test_a_body_larger_than_any_event_is_refused_without_being_read_whole(stack: Stack) -> None:
    answer = stack.gateway.deliver(b" " * (3 << 20))
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (413, "body_too_large")


def test_an_event_of_the_other_mode_has_no_effect(stack: Stack) -> None:
    stack.subscribe("live")
    [event] = [one for one in stack.stripe.events_of("live") if one["type"] == "customer.subscription.created"]
    live = {**event, "id": "evt_live_mode", "livemode": True, "type": "customer.subscription.deleted"}
    answer = stack.gateway.deliver(live)
    assert answer.status_code == 200
    assert stack.gateway.status("/pro/x", "live") == 200


def test_events_twice_and_in_any_order_end_in_stripes_truth(stack: Stack) -> None:
    stack.stripe.control("webhooks", enabled=False)
    try:
        stack.subscribe("shuffled")
        stack.renew("shuffled", enabled=False)
        stack.renew("shuffled", enabled=True)
        [subscription] = stack.stripe.subscriptions_of("shuffled")
        stack.stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
        stack.subscribe("shuffled-stays")
    finally:
        stack.stripe.control("webhooks", enabled=True)
    events = stack.stripe.events_of("shuffled") + stack.stripe.events_of("shuffled-stays")
    assert "customer.subscription.deleted" in {event["type"] for event in events}
    shuffled = [*events, *events]
    random.Random(7).shuffle(shuffled)
    for event in shuffled:
        assert stack.gateway.deliver(event).status_code == 200
        # Whatever has come so far: what is true at Stripe is never contradicted for long, and never for the ended one.
        assert stack.gateway.status("/pro/x", "shuffled") == 402
    assert stack.gateway.status("/pro/x", "shuffled-stays") == 200
    assert stack.refusal("shuffled")["reason"] == "subscription_expired"
    again = stack.gateway.deliver(shuffled[0])
    assert (again.status_code, again.json()["outcome"]) == (200, "duplicate")


def test_the_same_events_at_once_leave_one_row_each(stack: Stack) -> None:
    stack.stripe.control("webhooks", enabled=False)
    try:
        stack.subscribe("at-once")
    finally:
        stack.stripe.control("webhooks", enabled=True)
    events = stack.stripe.events_of("at-once")
    statuses: list[int] = []

    def deliver(event: dict[str, Any]) -> None:
        statuses.append(stack.gateway.deliver(event).status_code)

    threads = [threading.Thread(target=deliver, args=(event,)) for event in events * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert stack.gateway.status("/pro/x", "at-once") == 200
    stored = [one["id"] for one in stack.gateway.operator_get("/api/events?limit=500").json()]
    assert len(stored) == len(set(stored))
    assert {event["id"] for event in events} <= set(stored)


def test_while_stripe_hangs_for_one_customer_anothers_webhook_and_a_grant_go_through(stack: Stack) -> None:
    """No transaction is open while Stripe is asked: on SQLite it would keep everybody else from writing."""
    stack.stripe.control("webhooks", enabled=False)
    try:
        stack.subscribe("hangs")
        stack.subscribe("goes-on")
    finally:
        stack.stripe.control("webhooks", enabled=True)
    held, free = (
        next(one for one in stack.stripe.events_of(customer) if one["type"] == "customer.subscription.created")
        for customer in ("hangs", "goes-on")
    )
    [stripe_customer] = stack.stripe.customers_of("hangs")
    with ThreadPoolExecutor(1) as beside:
        stack.stripe.control("faults", api="hang", seconds=600, count=1000, customer=stripe_customer["id"])
        try:
            delivery = beside.submit(stack.gateway.deliver, held)
            faults = f"{stack.stripe.base}/_sim/faults"
            eventually(lambda: stack.stripe.http.get(faults).json()["api"][0]["count"] < 1000)
            answer = stack.gateway.deliver(free)
            assert (answer.status_code, answer.json()["outcome"]) == (200, "processed")
            assert stack.gateway.status("/pro/x", "goes-on") == 200
            stack.gateway.verb("grant", "granted-meanwhile", "pro", "--reason", "a test")
            stack.gateway.until("/pro/x", "granted-meanwhile", 200)
            waiting = stack.gateway.operator_get("/api/events?status=pending").json()
            assert held["id"] in {one["id"] for one in waiting}, "it hung all the while"
        finally:
            stack.stripe.clear_faults()
        assert delivery.result(30).status_code == 200
    stack.gateway.until("/pro/x", "hangs", 200)
    eventually(lambda: stack.gateway.operator_get("/api/events?status=pending").json() == [], within=30)


@pytest.fixture(scope="module")
def crashing(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("crashing"), upstream=recorder.url) as stack:
        yield stack


def test_what_was_acknowledged_survives_a_kill(crashing: Stack) -> None:
    crashing.subscribe("crash-1")
    [subscription] = crashing.stripe.subscriptions_of("crash-1")
    crashing.stripe.control("webhooks", enabled=False)
    crashing.stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
    [deleted] = [one for one in crashing.stripe.events_of("crash-1") if one["type"] == "customer.subscription.deleted"]
    # Stripe can't be asked while the event comes: it is stored, acknowledged, and has no effect yet.
    crashing.stripe.control("faults", api="500", count=100_000)
    assert crashing.gateway.deliver(deleted).status_code == 200
    crashing.gateway.running.kill()
    crashing.stripe.clear_faults()
    crashing.gateway.start()
    # The dead process's lease runs out before another takes its work up: at most 30 s.
    crashing.gateway.until("/pro/x", "crash-1", 402, within=60)
    rows = crashing.gateway.operator_get("/api/events?status=pending").json()
    assert rows == []
    crashing.stripe.control("webhooks", enabled=True)


def test_a_kill_between_inbox_and_sync_loses_no_payment(crashing: Stack) -> None:
    crashing.stripe.control("webhooks", enabled=False)
    crashing.subscribe("crash-2")
    [created] = [one for one in crashing.stripe.events_of("crash-2") if one["type"] == "customer.subscription.created"]
    crashing.stripe.control("faults", api="hang", count=1000, seconds=30)
    delivery = threading.Thread(target=_deliver_to_a_dying_gateway, args=(crashing.gateway, created))
    delivery.start()
    eventually(lambda: created["id"] in crashing.gateway.operator_get("/api/events?status=pending").text)
    crashing.gateway.running.kill()
    delivery.join()
    crashing.stripe.clear_faults()
    crashing.gateway.start()
    assert created["id"] in crashing.gateway.operator_get("/api/events").text
    crashing.gateway.until("/pro/x", "crash-2", 200, within=60)


def _deliver_to_a_dying_gateway(gateway: Gateway, event: dict[str, Any]) -> None:
    import httpx

    body = json.dumps(event).encode()
    with httpx.Client(verify=False, trust_env=False, timeout=30) as client, pytest.raises(httpx.TransportError):
        client.post(f"{gateway.base}/_gateway/stripe/webhook", content=body, headers=signature(body))


def test_without_a_stripe_key_an_event_is_left_for_stripe_to_deliver_again(tmp_path: Path) -> None:
    with prepared_gateway(tmp_path, webhook_secret=WEBHOOK_SECRET) as gateway:
        gateway.start()
        answer = gateway.deliver({**GOOD, "data": {"object": {"id": "sub_1"}}})
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "billing_not_configured")
