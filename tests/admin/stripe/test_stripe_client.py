"""Every call ends in an answer, a refusal or no answer; never in an exception, and never with a secret in it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from admin.stripe.budget import PacedBudget, Priority
from admin.stripe.client import (
    ATTEMPTS,
    SIMULATOR_BASE,
    StripeGateway,
    StripeRefused,
    StripeUnavailable,
    base_address,
    is_live,
    path,
)
from tests.support.simulator import free_socket, serving

KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
Answer = tuple[int, bytes, dict[str, str]]


class Upstream:
    """Something in Stripe's place that answers what the test wants."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.go = asyncio.Event()
        self.go.set()

    def will(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, data, {name.replace("_", "-"): value for name, value in headers.items()}))

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        message = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        self.requests.append((scope["method"], f"{scope['path']}?{query}", headers, message["body"]))
        await self.go.wait()
        status, body, extra = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        fields = [(b"content-type", b"application/json")]
        fields += [(name.encode(), value.encode()) for name, value in extra.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})


async def test_a_call_leaves_nothing_in_the_home_directory_and_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("stripe._telemetry_id._loaded", False)
    upstream = Upstream()
    upstream.will(200, {"id": "acct_1"})
    async with stripe_at(upstream) as gateway:
        assert await gateway.account_id(Priority.CUSTOMER) == "acct_1"
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing else runs in this loop


@asynccontextmanager
async def stripe_at(upstream: Upstream, **more: Any) -> AsyncIterator[StripeGateway]:
    async with serving(upstream, free_socket(), lifespan="off") as base:
        gateway = StripeGateway(KEY, base, budget=PacedBudget(1000, burst=1000), jitter=lambda: 0.0, **more)
        try:
            yield gateway
        finally:
            upstream.go.set()
            await gateway.aclose()


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


async def test_an_answer_is_plain_json(upstream: Upstream) -> None:
    upstream.will(200, {"id": "acct_1"})
    async with stripe_at(upstream) as gateway:
        assert await gateway.account_id() == "acct_1"
    (method, where, headers, _) = upstream.requests[0]
    assert (method, where, headers["authorization"]) == ("GET", "/v1/account?", f"Bearer {KEY}")


@pytest.mark.parametrize("status", [429, 500, 503, 409])
async def test_what_may_pass_is_tried_again_with_the_same_key(upstream: Upstream, status: int) -> None:
    upstream.will(status, {"error": {"type": "api_error", "message": "later"}})
    upstream.will(200, {"id": "cus_1"})
    async with stripe_at(upstream) as gateway:
        answer = await gateway.post("/v1/customers", {"metadata": {"a": "b"}}, priority=Priority.CUSTOMER)
    assert answer == {"id": "cus_1"}
    keys = {headers["idempotency-key"] for _, _, headers, _ in upstream.requests}
    bodies = {body for _, _, _, body in upstream.requests}
    assert len(upstream.requests) == 2
    assert len(keys) == 1
    assert bodies == {b"metadata[a]=b"}


async def test_a_refusal_is_told_once_with_its_code(upstream: Upstream) -> None:
    upstream.will(404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such x"}})
    async with stripe_at(upstream) as gateway:
        answer = await gateway.get("/v1/prices/x", priority=Priority.CUSTOMER)
    assert answer == StripeRefused("resource_missing", "No such x", 404)
    assert answer.is_missing
    assert len(upstream.requests) == 1


async def test_a_key_that_was_used_for_something_else_is_recognised(upstream: Upstream) -> None:
    upstream.will(400, {"error": {"type": "idempotency_error", "message": "Keys for idempotent requests…"}})
    async with stripe_at(upstream) as gateway:
        answer = await gateway.post("/v1/customers", priority=Priority.CUSTOMER, idempotency_key="k")
    assert isinstance(answer, StripeRefused)
    assert answer.is_reused_key


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>captive portal</html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"null"),
        (200, b'"text"'),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (400, b"{}"),
        (400, b'{"error": null}'),
        (400, b'{"error": 5}'),
        (400, b'{"error": "text"}'),
        (400, b"[]"),
        (404, b"not found"),
        (502, b"<html>bad gateway</html>"),
    ],
)
async def test_an_answer_that_is_not_stripes_is_no_answer(upstream: Upstream, status: int, body: bytes) -> None:
    upstream.will(status, body)
    async with stripe_at(upstream) as gateway:
        answer = await gateway.get("/v1/account", priority=Priority.CUSTOMER)
    assert isinstance(answer, StripeUnavailable | StripeRefused)
    if isinstance(answer, StripeRefused):
        assert (status, body) == (400, b'{"error": "text"}')


async def test_a_server_that_is_not_there_is_no_answer() -> None:
    listener = free_socket()
    port = listener.getsockname()[1]
    listener.close()
    gateway = StripeGateway(KEY, f"http://127.0.0.1:{port}", budget=PacedBudget(1000, burst=1000), jitter=lambda: 0.0)
    answer = await gateway.get("/v1/account", priority=Priority.CUSTOMER)
    await gateway.aclose()
    assert isinstance(answer, StripeUnavailable)
    assert "ConnectError" in answer.detail


async def test_a_server_that_hangs_is_given_up_in_time(upstream: Upstream) -> None:
    upstream.go.clear()
    upstream.will(200, {})
    async with stripe_at(upstream) as gateway, asyncio.timeout(5):
        answer = await gateway.get("/v1/account", priority=Priority.CUSTOMER, timeout=0.2)
    assert isinstance(answer, StripeUnavailable)


async def test_tries_are_bounded(upstream: Upstream) -> None:
    upstream.will(500, {"error": {"message": "always"}})
    async with stripe_at(upstream) as gateway:
        assert isinstance(await gateway.get("/v1/account", priority=Priority.CUSTOMER), StripeUnavailable)
    assert len(upstream.requests) == ATTEMPTS


async def test_stripes_wish_to_wait_is_handed_on(upstream: Upstream) -> None:
    upstream.will(429, {"error": {"message": "slow"}}, retry_after="7")
    async with stripe_at(upstream) as gateway:
        answer = await gateway.get("/v1/account", priority=Priority.CUSTOMER, timeout=0.2)
    assert answer == StripeUnavailable("Stripe answered 429", 7.0)


async def test_a_list_is_read_to_its_end(upstream: Upstream) -> None:
    upstream.will(200, {"data": [{"id": "a"}, {"id": "b"}], "has_more": True})
    upstream.will(200, {"data": [{"id": "c"}], "has_more": False})
    async with stripe_at(upstream) as gateway:
        found = await gateway.list_all("/v1/things", {"x": "1"}, priority=Priority.NIGHTLY)
    assert not isinstance(found, StripeRefused | StripeUnavailable)
    assert [entry["id"] for entry in found] == ["a", "b", "c"]
    assert "starting_after=b" in upstream.requests[1][1]
    assert "x=1" in upstream.requests[1][1]


@pytest.mark.parametrize("page", [{"data": [], "has_more": True}, {"data": [{"no": "id"}], "has_more": True}])
async def test_a_list_that_can_not_go_on_is_not_taken_for_whole(upstream: Upstream, page: Any) -> None:
    upstream.will(200, page)
    async with stripe_at(upstream) as gateway:
        assert isinstance(await gateway.list_all("/v1/things", priority=Priority.NIGHTLY), StripeUnavailable)


async def test_a_list_without_end_ends(upstream: Upstream) -> None:
    upstream.will(200, {"data": [{"id": "a"}], "has_more": True})
    async with stripe_at(upstream) as gateway:
        assert isinstance(await gateway.list_all("/v1/things", priority=Priority.NIGHTLY), StripeUnavailable)
    assert len(upstream.requests) <= 100


async def test_no_key_shows_in_a_repr_a_message_or_a_log(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.will(401, {"error": {"type": "invalid_request_error", "message": f"Invalid API Key provided: {KEY}"}})
    async with stripe_at(upstream) as gateway:
        answer = await gateway.post("/v1/customers", {"name": "geheim"}, priority=Priority.CUSTOMER)
        told = repr(gateway) + repr(answer) + caplog.text
    assert isinstance(answer, StripeRefused)
    assert KEY not in told
    assert "geheim" not in told


def test_the_mode_follows_the_keys_prefix() -> None:
    assert [is_live(key) for key in ("sk_live_a", "rk_live_a", "sk_test_a", "rk_test_a", "live", "")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_only_the_simulators_own_keys_lead_to_the_simulator() -> None:
    assert base_address("sk_test_simulator", "") == SIMULATOR_BASE
    assert base_address("sk_test_simulator_x", "http://127.0.0.1:1/") == "http://127.0.0.1:1"
    assert base_address("sk_test_abc", "") is None
    assert base_address("sk_live_simulator", "") is None


def test_ids_can_not_leave_their_segment() -> None:
    assert path("prices", "../customers?x=1#y") == "/v1/prices/..%2Fcustomers%3Fx%3D1%23y"


async def test_the_last_call_without_an_answer_is_remembered_until_one_has_an_answer(upstream: Upstream) -> None:
    async with stripe_at(upstream) as gateway:
        upstream.will(503, {"error": {"message": "down"}})
        assert isinstance(await gateway.get("/v1/account", priority=Priority.CUSTOMER), StripeUnavailable)
        assert gateway.trouble
        upstream.answers.clear()
        upstream.will(404, {"error": {"code": "resource_missing", "message": "no such thing"}})
        assert isinstance(await gateway.get("/v1/prices/x", priority=Priority.CUSTOMER), StripeRefused)
        assert gateway.trouble is None
