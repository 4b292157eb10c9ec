"""The operator's listener: who is let in, and what is shown to whom."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from admin.operator.docs_page import docs_page
from gateway.operator import Operator
from tests.support.house import OPERATOR_TOKEN, house, token_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.house import House

GUARDED = (
    "/",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/api/customers",
    "/api/events",
    "/livez/",
    "/nothing",
    "/readyz/x",
)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, stripe=False) as one:
        yield one


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_probes_need_no_token(at: House) -> None:
    live = await at.operate("GET", "/livez", token=None)
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    ready = await at.operate("GET", "/readyz", token=None)
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert (await at.operate("HEAD", "/livez", token=None)).status_code == 200


async def test_everything_else_does(at: House) -> None:
    for path in GUARDED:
        for headers in (
            {},
            basic("wrong"),
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Token {OPERATOR_TOKEN}"},
        ):
            answer = await at.operate("GET", path, token=None, headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers.get_list("www-authenticate") == ['Bearer realm="operator"', 'Basic realm="operator"']
            assert answer.headers["cache-control"] == "no-store"
            assert answer.json()["detail"].endswith(".")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Basic",
        "Basic !!!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic é",
        "Bearer é",
        ":",
    ],
)
async def test_a_malformed_credential_is_none(at: House, authorization: str) -> None:
    headers = [(b"Authorization", authorization.encode("latin-1"))]
    assert (await at.http.get(f"{at.operator}/api/customers", headers=headers)).status_code == 401


async def test_the_token_comes_as_bearer_or_as_a_password_of_any_user(at: House) -> None:
    for headers in (
        {"Authorization": f"Bearer {OPERATOR_TOKEN}"}, {"Authorization": f"bearer {OPERATOR_TOKEN}"},
        basic(OPERATOR_TOKEN), basic(OPERATOR_TOKEN, ""),
    ):  # fmt: skip
        assert (await at.operate("GET", "/api/customers", token=None, headers=headers)).status_code == 200


async def test_a_customers_token_is_no_operators_token_and_the_other_way_round(at: House) -> None:
    assert (await at.operate("GET", "/api/customers", token=token_for())).status_code == 401
    assert (await at.get("/mine", OPERATOR_TOKEN)).status_code == 401
    assert (await at.get("/api/customers", OPERATOR_TOKEN)).status_code == 404


async def test_what_a_foreign_page_has_a_browser_send_is_refused(at: House) -> None:
    own = at.operator
    for foreign in (
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.test"},
        {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site", "Origin": own},
    ):  # fmt: skip
        answer = await at.operate(
            "POST", "/api/unblock/alice", headers={**basic(OPERATOR_TOKEN), **foreign}, token=None
        )
        assert answer.status_code == 403, foreign
    for fine in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": own}):
        # It was taken, and answered in its own words: there is no block to lift.
        answer = await at.operate("POST", "/api/unblock/alice", headers=fine)
        assert (answer.status_code, answer.json()["detail"]) == (422, "alice is not blocked."), fine
    assert (await at.operate("GET", "/api/customers", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


async def test_not_ready_is_503_and_lets_probes_know_before_the_listener_closes(at: House) -> None:
    at.process.readiness.stopping = True
    answer = await at.operate("GET", "/readyz", token=None)
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
    assert (await at.operate("GET", "/livez", token=None)).status_code == 200
    assert (await at.get("/open/x")).status_code == 200, "what still comes is still served"


class _Loads(HTMLParser):
    """Whatever a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object", "embed"}:
            self.found.append(tag)
        self.found += [name for name, _ in attrs if name in {"src", "style"} or name.startswith("on")]


async def test_docs_show_every_operation_without_a_script_or_anything_from_elsewhere(at: House) -> None:
    answer = await at.operate("GET", "/docs")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    page = _Loads()
    page.feed(answer.text)
    assert page.found == []
    assert "http://" not in answer.text.replace("http://127", "")
    assert "https://" not in answer.text
    document = (await at.operate("GET", "/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    for path, methods in document["paths"].items():
        for method in methods:
            assert f'<span class="method">{method.upper()}</span> {path}' in answer.text
    assert "A duration such as 30d, or a date; without it the grant has no end." in answer.text
    assert (await at.operate("GET", "/", follow_redirects=False)).headers["location"] == "/docs"
    assert (await at.operate("GET", "/redoc")).status_code == 404


async def test_docs_escape_what_they_show() -> None:
    app = FastAPI(title="<b>T</b>", version="1")

    @app.get("/x")
    async def shown(name: str = "<i>") -> list[int]:
        """<script>alert(1)</script>"""
        return [len(name)]

    text = bytes(docs_page(app.openapi()).body).decode()
    assert "<script>" not in text
    assert "&lt;b&gt;T" in text
    assert "gives list of integer" in text


async def test_another_kind_of_connection_is_not_answered() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    operator = Operator(token="t", registry=CollectorRegistry(), readiness=never, before_metrics=never, admin=never)
    await operator({"type": "lifespan"}, never, never)
    await operator({"type": "websocket"}, never, never)


async def test_readyz_says_what_is_worse_than_usual_and_stays_ready(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        one.lose_the_ledger()
        ready = await one.operate("GET", "/readyz", token=None)
        assert ready.status_code == 200
        shown = ready.json()
        assert shown["status"] == "degraded"
        assert "ledger" in shown["degraded"]
        assert OPERATOR_TOKEN not in ready.text
        assert "sk_test" not in json.dumps(shown)


async def test_the_listener_answers_over_a_kept_connection_too(at: House) -> None:
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        for path in ("/livez", "/readyz", "/metrics", "/livez"):
            answer = await client.get(at.operator + path)
            assert answer.status_code == (401 if path == "/metrics" else 200)
