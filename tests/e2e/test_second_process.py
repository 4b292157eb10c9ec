"""What another process commits is in force in running gateways, without a restart and with nothing but the ledger (P7)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.ledgers import fresh_postgres
from tests.support.redis_server import RedisServer
from tests.support.stack import Gateway, running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.recorder import Recorder

IN_FORCE_SECONDS = 8.0
"""Promised within one; a machine that is busy with other things is given more."""


@pytest.fixture(
    scope="module",
    params=[
        "one gateway on SQLite",
        pytest.param("two gateways on PostgreSQL", marks=pytest.mark.postgres),
        pytest.param("two gateways on PostgreSQL and Redis", marks=[pytest.mark.postgres, pytest.mark.redis]),
    ],
)
def gateways(
    request: pytest.FixtureRequest, recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    directory = tmp_path_factory.mktemp("processes")
    named: dict[str, str] = {"upstream": recorder.url}
    with ExitStack() as stack:
        if "PostgreSQL" in request.param:
            named["database"] = stack.enter_context(fresh_postgres())
        if "Redis" in request.param:
            named["redis"] = stack.enter_context(RedisServer()).url
        count = 2 if "two" in request.param else 1
        yield [stack.enter_context(running_gateway(directory / str(number), **named)) for number in range(count)]


def test_what_other_processes_commit_is_in_force_in_every_gateway(gateways: list[Gateway]) -> None:
    first, last = gateways[0], gateways[-1]
    for gateway in gateways:
        assert gateway.status("/pro/x", "anna") == 402
    first.verb("grant", "anna", "pro", "--until", "30d", "--reason", "a trial")
    for gateway in gateways:
        gateway.until("/pro/x", "anna", 200, within=IN_FORCE_SECONDS)
        assert gateway.status("/ent/x", "anna") == 402
    last.verb("block", "anna", "--reason", "abuse")
    for gateway in gateways:
        answer = gateway.until("/pro/x", "anna", 403, within=IN_FORCE_SECONDS)
        assert answer.headers["x-gateway-reason"] == "blocked"
        assert gateway.status("/free/x", "anna") == 403
        assert gateway.status("/public/x", "anna") == 200
    first.verb("unblock", "anna")
    for gateway in gateways:
        gateway.until("/pro/x", "anna", 200, within=IN_FORCE_SECONDS)
    last.verb("revoke", "anna", "--reason", "over")
    for gateway in gateways:
        gateway.until("/pro/x", "anna", 402, within=IN_FORCE_SECONDS)


def test_a_grant_over_the_operators_api_is_in_force_in_every_process(gateways: list[Gateway]) -> None:
    for gateway in gateways:
        assert gateway.status("/pro/x", "cora") == 402
    answer = gateways[0].operator_post("/api/grant/cora", {"tier": "pro", "reason": "asked nicely"})
    assert answer.status_code == 200, answer.text
    for gateway in gateways:
        gateway.until("/pro/x", "cora", 200, within=IN_FORCE_SECONDS)


def test_a_grant_of_a_tier_that_does_not_exist_is_refused_with_the_ones_that_do(gateways: list[Gateway]) -> None:
    answer = gateways[0].operator_post("/api/grant/dora", {"tier": "gold", "reason": "x"})
    assert answer.status_code == 422
    assert "pro" in answer.text


def test_a_link_made_by_one_replica_is_honoured_by_the_other(gateways: list[Gateway]) -> None:
    link = gateways[0].ask("/pro/x", "emil").json()["pay_url"].rpartition("/")[2]
    assert gateways[-1].ask(f"/_gateway/pay/{link}").status_code == 200
    answer = gateways[-1].ask(f"/_gateway/pay/{link}", method="POST")
    assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "billing_not_configured")
