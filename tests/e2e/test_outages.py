"""What callers see while something is down (docs/design.md, section 8), on real processes with a real Redis and PostgreSQL.

Known customers go on; nobody gets a free pass; nobody is told to pay because we don't know. What becomes of Redis alone,
under load, is in test_two_gateways.py.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.doors import Door, door_to_postgres
from tests.support.ledgers import fresh_postgres
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, eventually, running_gateway, running_stack
from tests.support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.recorder import Recorder

pytestmark = [pytest.mark.redis, pytest.mark.postgres]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def ledger() -> Iterator[tuple[Door, str]]:
    with fresh_postgres() as url, door_to_postgres(url) as door:
        yield door


@pytest.fixture(scope="module")
def whole(
    redis: RedisServer, ledger: tuple[Door, str], recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Gateway, simulator, Redis, PostgreSQL."""
    directory = tmp_path_factory.mktemp("outages")
    with running_stack(directory, upstream=recorder.url, redis=redis.url, database=ledger[1]) as stack:
        yield stack


def _answers_of_routes_that_ask_for_nothing(stack: Stack, customer: str) -> None:
    assert stack.gateway.status("/public/x") == 200
    assert stack.gateway.status("/free/x", customer) == 200
    assert stack.gateway.status("/pro/x") == 401
    assert stack.gateway.status("/nothing") == 404


@contextmanager
def _under_load(stack: Stack, payer: str, unpaid: str) -> Iterator[None]:
    """One who pays and one who doesn't ask without a pause, from before the outage until after it."""
    with Traffic([stack.gateway]) as traffic:
        traffic.expect("/pro/x", payer, 200)
        traffic.expect("/pro/x", unpaid, 402, 503)
        traffic.expect("/free/x", unpaid, 200)
        traffic.go_round()
        yield
        traffic.go_round(2)


def _healed(stack: Stack) -> None:
    eventually(
        lambda: stack.gateway.readiness()["status"] == "ok", within=30, told=lambda: str(stack.gateway.readiness())
    )


def test_without_the_ledger_known_payers_go_on_and_nobody_else_is_refused_for_money(
    whole: Stack, ledger: tuple[Door, str]
) -> None:
    whole.gateway.grant("l-payer")
    assert whole.gateway.status("/pro/x", "l-free") == 402
    with _under_load(whole, "l-payer", "l-free"):
        ledger[0].shut()
        try:
            eventually(lambda: "ledger" in whole.gateway.readiness()["degraded"])
            for _ in range(5):
                assert whole.gateway.status("/pro/x", "l-payer") == 200
                unknown = whole.gateway.ask("/pro/x", "l-stranger")
                assert (unknown.status_code, unknown.headers["x-gateway-reason"]) == (503, "entitlement_unavailable")
                assert "retry-after" in unknown.headers
            _answers_of_routes_that_ask_for_nothing(whole, "l-stranger")
            me = whole.gateway.ask("/_gateway/me", "l-stranger")
            assert (me.status_code, me.headers["x-gateway-reason"]) == (503, "entitlement_unavailable")
            checkout = whole.gateway.ask("/_gateway/checkout", "l-stranger", "POST", json={"tier": "pro"})
            assert (checkout.status_code, checkout.headers["x-gateway-reason"]) == (503, "billing_unavailable")
            shown = whole.gateway.operator_get("/api/customers")
            assert shown.status_code == 503
        finally:
            ledger[0].open()
        whole.gateway.until("/pro/x", "l-stranger", 402, within=30)
        _healed(whole)
    whole.gateway.grant("l-stranger")


def test_a_webhook_that_can_not_be_stored_is_not_acknowledged(whole: Stack, ledger: tuple[Door, str]) -> None:
    whole.stripe.control("webhooks", enabled=False)
    whole.subscribe("w-payer")
    whole.stripe.control("webhooks", enabled=True)
    [event] = [one for one in whole.stripe.events_of("w-payer") if one["type"] == "customer.subscription.created"]
    ledger[0].shut()
    try:
        assert whole.gateway.deliver(event).status_code == 503
    finally:
        ledger[0].open()
    _healed(whole)
    assert whole.gateway.deliver(event).status_code == 200
    assert whole.gateway.status("/pro/x", "w-payer") == 200


def test_without_redis_and_ledger_known_payers_go_on_and_others_get_503(
    whole: Stack, redis: RedisServer, ledger: tuple[Door, str]
) -> None:
    whole.gateway.grant("b-payer")
    assert whole.gateway.status("/pro/x", "b-free") == 402
    with _under_load(whole, "b-payer", "b-free"):
        redis.kill()
        ledger[0].shut()
        try:
            eventually(lambda: {"redis", "ledger"} <= set(whole.gateway.readiness()["degraded"]))
            for _ in range(5):
                assert whole.gateway.status("/pro/x", "b-payer") == 200
            assert whole.gateway.status("/pro/x", "b-stranger") == 503
            _answers_of_routes_that_ask_for_nothing(whole, "b-stranger")
        finally:
            ledger[0].open()
            redis.start()
        whole.gateway.until("/pro/x", "b-stranger", 402, within=30)
        _healed(whole)


def test_without_stripe_verdicts_stay_and_only_paying_is_unavailable(whole: Stack) -> None:
    whole.subscribe("s-payer")
    assert whole.gateway.status("/pro/x", "s-payer") == 200
    whole.stripe.control("faults", api="500", count=100_000)
    try:
        assert whole.gateway.status("/pro/x", "s-payer") == 200
        problem = whole.refusal("s-free")
        page = whole.gateway.http.get(problem["pay_url"])
        assert page.status_code == 200
        for answer in (
            whole.gateway.http.post(problem["pay_url"]),
            whole.gateway.ask("/_gateway/checkout", "s-free", "POST", json={"tier": "pro"}),
            whole.gateway.ask("/_gateway/portal", "s-payer", "POST"),
        ):
            assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "billing_unavailable")
            assert "retry-after" in answer.headers
    finally:
        whole.stripe.clear_faults()
    assert whole.gateway.http.post(problem["pay_url"]).status_code == 303


def test_a_simulator_that_is_killed_takes_no_request_with_it(recorder: Recorder, tmp_path: Path) -> None:
    with running_stack(tmp_path, upstream=recorder.url) as stack:
        stack.subscribe("k-payer")
        assert stack.gateway.status("/pro/x", "k-payer") == 200
        stack.stripe.process.kill()
        assert stack.gateway.status("/pro/x", "k-payer") == 200
        problem = stack.refusal("k-free")
        answer = stack.gateway.http.post(problem["pay_url"])
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "billing_unavailable")


def test_a_gateway_starts_without_its_redis_and_says_so(recorder: Recorder, tmp_path: Path) -> None:
    with ExitStack() as exits:
        redis = RedisServer()
        exits.push(redis)  # ended at the end, and not started yet
        gateway = exits.enter_context(running_gateway(tmp_path, upstream=recorder.url, redis=redis.url))
        eventually(lambda: "redis" in gateway.readiness()["degraded"])
        gateway.grant("early")
        warned = "redis can't be used (ConnectionError"
        assert gateway.running.said.count(warned) == 1
        assert "who is not in memory is looked up in the ledger" in gateway.running.said
        redis.start()
        eventually(lambda: gateway.readiness()["status"] == "ok", within=30)
        assert gateway.running.said.count(warned) == 1  # however often it was tried
        assert gateway.status("/pro/x", "early") == 200


def test_an_upstream_that_is_gone_is_a_502_that_does_not_name_it(tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream="http://127.0.0.2:9") as gateway:
        answer = gateway.ask("/public/x")
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (502, "upstream_unreachable")
        assert "127.0.0.2" not in answer.text
