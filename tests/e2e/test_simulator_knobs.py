"""What the simulator's faults do to deliveries, at a real gateway's endpoint: nobody's access follows them (P3, P6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stack import WEBHOOK_SECRET, Stack, running_stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.recorder import Recorder

RETIRED_SECRET = "whsec_that_is_being_retired"


def _recorded(stack: Stack, customer: str) -> dict[str, dict[str, Any]]:
    """What the inbox holds of a customer's events, by id."""
    ids = {event["id"] for event in stack.stripe.events_of(customer)}
    kept = stack.gateway.operator_get("/api/events?limit=500").json()
    return {one["id"]: one for one in kept if one["id"] in ids}


@pytest.mark.parametrize("fault", ["same_second", "old_version", "two_secrets", "duplicate", "reorder"])
def test_bought_and_cancelled_under_a_fault_ends_in_stripes_truth(stack: Stack, fault: str) -> None:
    customer = f"knob-{fault}"
    stack.stripe.control("faults", delivery=fault, count=1000)
    try:
        stack.subscribe(customer)
        stack.gateway.until("/pro/x", customer, 200)
        [subscription] = stack.stripe.subscriptions_of(customer)
        stack.stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
        stack.gateway.until("/pro/x", customer, 402)
    finally:
        stack.stripe.clear_faults()
    assert stack.stripe.control("settle") == {"settled": True}
    told = stack.stripe.http.get(f"{stack.stripe.base}/_sim/deliveries").json()["data"]
    ids = {event["id"] for event in stack.stripe.events_of(customer)}
    assert {one["state"] for one in told if one["event"] in ids} == {"delivered"}
    assert set(_recorded(stack, customer)) == ids


def test_events_of_the_other_mode_are_acknowledged_and_take_nothing_from_anybody(stack: Stack) -> None:
    stack.subscribe("knob-mode")
    stack.gateway.until("/pro/x", "knob-mode", 200)
    assert stack.stripe.control("settle") == {"settled": True}
    before = stack.gateway.operator_get("/api/customers/knob-mode").json()["subscriptions"]
    stack.stripe.control("faults", delivery="wrong_mode", count=1000)
    try:
        stack.renew("knob-mode", enabled=False)
    finally:
        stack.stripe.clear_faults()
    assert stack.stripe.control("settle") == {"settled": True}
    assert stack.gateway.operator_get("/api/customers/knob-mode").json()["subscriptions"] == before
    assert stack.gateway.status("/pro/x", "knob-mode") == 200


def test_while_a_secret_is_rolled_events_signed_by_either_are_taken(recorder: Recorder, tmp_path: Path) -> None:
    secrets = f'"{WEBHOOK_SECRET}, {RETIRED_SECRET}"'
    with running_stack(tmp_path, upstream=recorder.url, webhook_secret=secrets) as stack:
        stack.stripe.control("faults", delivery="two_secrets", count=2)
        stack.subscribe("rolling")
        stack.gateway.until("/pro/x", "rolling", 200)
        event = stack.stripe.events_of("rolling")[-1]
        for number, (secret, status) in enumerate(((WEBHOOK_SECRET, 200), (RETIRED_SECRET, 200), ("whsec_third", 400))):
            answer = stack.gateway.deliver({**event, "id": f"evt_rolled_{number}"}, secret=secret)
            assert answer.status_code == status, answer.text
        kept = {one["id"] for one in stack.gateway.operator_get("/api/events?limit=500").json()}
        assert {one for one in kept if one.startswith("evt_rolled_")} == {"evt_rolled_0", "evt_rolled_1"}
