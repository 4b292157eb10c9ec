"""What a route may say beside who pays for it, through a whole gateway: scopes and claims, prefixes, bounds."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from gateway.cli_explain import explained
from gateway.loading import LoadedFile, load_file
from policies.explain_report import Asking, Report
from policies.reasons import Reason
from tests.support.house import PLAIN_ANSWER, House, house, token_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.upstreams import Visit

KEYS = "  api_keys: {enabled: true}"
SCOPED = """
  - path: /reports/**
    methods: [GET]
    tier: pro
  - path: /reports/**
    methods: [POST]
    tier: pro
    scopes: [reports:write]
  - path: /admin/**
    access: authenticated
    claims: {org.role: [admin, owner], email_verified: "true"}
  - path: /both
    access: authenticated
    scopes: [a, b]
  - path: /**
    access: public
"""
ADMIN: dict[str, Any] = {"org": {"role": "owner"}, "email_verified": True}


def refused(answer: httpx.Response, reason: Reason) -> str:
    assert answer.headers.get("x-gateway-reason") == reason.value, answer.text
    detail: str = answer.json()["detail"]
    return detail


async def test_a_scope_is_asked_of_the_token_before_anybody_is_asked_to_pay(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=SCOPED) as at:
        answer = await at.post("/reports/7", token_for(scope="reports:read reports:writer"))
        assert refused(answer, Reason.SCOPE_MISSING) == (
            "POST /reports/7 needs the scope 'reports:write'; the credential doesn't hold it."
        )
        assert answer.headers["www-authenticate"] == (
            'Bearer realm="gateway", error="insufficient_scope", scope="reports:write"'
        )
        assert "link" not in answer.headers
        assert at.visit_count() == 0
        with_it = token_for(scope="reports:read reports:write")
        refused(await at.post("/reports/7", with_it), Reason.TIER_REQUIRED)
        refused(await at.post("/reports/7"), Reason.TOKEN_MISSING)
        await at.grant("alice", "pro")
        assert (await at.until(200, "/reports/7", token_for())).status_code == 200
        assert (await at.post("/reports/7", with_it)).status_code == 200
        refused(await at.post("/reports/7", token_for()), Reason.SCOPE_MISSING)
        for claims in ({"scp": ["reports:write"]}, {"scopes": ["x", "reports:write"]}, {"scp": "reports:write x"}):
            assert (await at.post("/reports/7", token_for(**claims))).status_code == 200
        line = await at.logged(answer.headers["x-request-id"])
        assert (line["reason"], line["customer"], line["status"]) == ("scope_missing", "alice", 403)
        assert await at.count(reason="scope_missing", status="403") == 2


@pytest.mark.parametrize("target", ["/both", "/BOTH", "/both/", "/both;x", "/%62oth", "/both%20"])
async def test_all_scopes_are_needed_however_the_path_is_spelled(tmp_path: Path, target: str) -> None:
    async with house(tmp_path, stripe=False, routes=SCOPED) as at:
        for scope in ("a", "b", "ab", "A B"):
            answer = await at.raw_get(target, f"Authorization: Bearer {token_for(scope=scope)}")
            assert answer.status == 403, answer
        assert (await at.raw_get(target)).status == 401
        assert at.visit_count() == 0
        assert (await at.raw_get(target, f"Authorization: Bearer {token_for(scope='b a')}")).status == 200


async def test_claims_are_compared_by_value_nested_listed_or_alone(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=SCOPED) as at:
        for claims in (
            ADMIN,
            {**ADMIN, "org": {"role": ["member", "admin"]}},
            {"org.role": "admin", "email_verified": "true"},
        ):
            assert (await at.get("/admin/x", token_for(**claims))).status_code == 200, claims
        before = at.visit_count()
        lacking: list[dict[str, Any]] = [
            {}, {**ADMIN, "email_verified": False}, {**ADMIN, "org": {"role": "Admin"}}, {**ADMIN, "org": "owner"},
            {**ADMIN, "org": {"role": None}}, {**ADMIN, "org": {"role": {"owner": True}}}, {**ADMIN, "org.role": "member"},
            {**ADMIN, "email_verified": 1},
        ]  # fmt: skip
        for claims in lacking:
            answer = await at.get("/admin/x", token_for(**claims))
            assert "claim" in refused(answer, Reason.SCOPE_MISSING), claims
            assert answer.headers["www-authenticate"] == 'Bearer realm="gateway", error="insufficient_scope"'
        assert at.visit_count() == before


async def test_a_token_seen_before_lends_its_scopes_to_no_other(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=SCOPED) as at:
        strong, weak = token_for(scope="a b"), token_for(scope="a")
        for _ in range(3):
            assert (await at.get("/both", strong)).status_code == 200
            refused(await at.get("/both", weak), Reason.SCOPE_MISSING)


async def test_an_api_key_holds_the_scopes_it_was_made_with_and_no_claims(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=SCOPED, auth=KEYS) as at:
        keys = [await made(at, scopes) for scopes in (["a", "b"], ["a"], None)]
        answers = [(await at.get("/both", key)).status_code for key in keys]
        assert answers == [200, 403, 403]
        refused(await at.get("/both", keys[2]), Reason.SCOPE_MISSING)
        refused(await at.get("/admin/x", keys[0]), Reason.SCOPE_MISSING)
        assert (await at.get("/_gateway/me", keys[2])).status_code == 200


async def made(at: House, scopes: list[str] | None) -> str:
    body = {} if scopes is None else {"scopes": scopes}
    answer = await at.operate("POST", "/api/keys/alice", json=body)
    assert answer.status_code in {200, 201}, answer.text
    key: str = answer.json()["key"]
    return key


async def test_a_preflight_needs_no_scope(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=SCOPED) as at:
        headers = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
        assert (await at.ask("OPTIONS", "/reports/7", headers=headers)).status_code == 200


PREFIXED = """
  - paths: [/open/**, "/other/{id}"]
    access: public
    add_prefix: /api
  - path: /paid/**
    tier: pro
    strip_prefix: /paid
    add_prefix: /v2
  - path: /keyless/**
    access: authenticated
    strip_prefix: /keyless
"""


def sent(at: House) -> str:
    """The target that the upstream was asked for."""
    return at.last().received.split(b" ", 2)[1].decode()


async def test_a_declared_prefix_is_cut_off_and_put_before_and_nothing_else_changes(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=PREFIXED) as at:
        await at.grant("alice", "pro")
        bearer = f"Authorization: Bearer {token_for()}"
        for asked, reached in (
            ("/open/%7Ex?a=%2f&a", "/api/open/%7Ex?a=%2f&a"),
            ("/other/7?", "/api/other/7?"),
            ("/paid/%41/b?q=/paid", "/v2/%41/b?q=/paid"),
            ("/paid", "/v2"),
            ("/paid/", "/v2/"),
            ("/p%61id/x", "/v2/x"),
            ("/keyless", "/"),
            ("/keyless?x", "/?x"),
        ):
            answer = await at.raw_get(asked, bearer)
            assert answer.status == 200, (asked, answer)
            assert sent(at) == reached


@pytest.mark.parametrize("target", ["/PAID/x", "/paid;y/x", "/paid%20/x", "/paid%3fx/y"])
async def test_a_prefix_that_is_spelled_otherwise_is_refused_and_reaches_nothing(tmp_path: Path, target: str) -> None:
    async with house(tmp_path, stripe=False, routes=PREFIXED) as at:
        await at.grant("alice", "pro")
        answer = await at.raw_get(target, f"Authorization: Bearer {token_for()}")
        assert answer.status in {400, 404}, answer
        assert at.visit_count() == 0


async def test_the_token_in_a_query_stops_here_beside_a_prefix(tmp_path: Path) -> None:
    settings = "    forward_token: false"
    async with house(
        tmp_path, stripe=False, routes=PREFIXED, auth="  token_from: ['query:t']", upstream_settings=settings
    ) as at:
        answer = await at.raw_get(f"/keyless/x?a=1&t={token_for()}&b=2")
        assert answer.status == 200
        assert sent(at) == "/x?a=1&b=2"


BOUNDED = """
  - path: /slow/**
    access: public
    timeouts: {response: 100ms}
  - path: /patient/**
    access: public
  - path: /small/**
    access: public
    max_body: 10B
  - path: /paid/**
    tier: pro
    max_body: 10B
"""


async def test_a_route_may_wait_less_long_than_its_upstream_lets_others(tmp_path: Path) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(0.5)
        await visit.say(PLAIN_ANSWER)

    async with house(tmp_path, stripe=False, routes=BOUNDED, script=script) as at:
        refused(await at.get("/slow/x"), Reason.UPSTREAM_TIMEOUT)
        assert (await at.get("/patient/x")).status_code == 200


async def test_a_body_that_says_it_is_too_large_is_refused_before_anything_is_forwarded(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=BOUNDED) as at:
        assert "at most 10 bytes" in refused(await at.post("/small/x", content=b"x" * 11), Reason.BODY_TOO_LARGE)
        refused(await at.post("/paid/x", content=b"x" * 11), Reason.TOKEN_MISSING)
        refused(await at.post("/paid/x", token_for(), content=b"x" * 11), Reason.TIER_REQUIRED)
        await at.grant("alice", "pro")
        await at.until(200, "/paid/x", token_for())
        before = at.visit_count()
        refused(await at.post("/paid/x", token_for(), content=b"x" * 11), Reason.BODY_TOO_LARGE)
        assert at.visit_count() == before
        for size in (0, 1, 10):
            assert (await at.post("/small/x", content=b"x" * size)).status_code == 200
            assert at.last().received.partition(b"\r\n\r\n")[2] == b"x" * size
        assert (await at.post("/patient/x", content=b"x" * 100_000)).status_code == 200


@pytest.mark.parametrize("chunks", [[b"x" * 11], [b"x" * 10, b"x"], [b"x"] * 11, [b"x" * 1_000_000]])
async def test_a_chunked_body_that_grows_too_large_never_looks_whole_to_the_upstream(
    tmp_path: Path, chunks: list[bytes]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
            await asyncio.sleep(0.01)

    async def fitting() -> AsyncIterator[bytes]:
        yield b"12345"
        yield b"67890"

    async with house(tmp_path, stripe=False, routes=BOUNDED) as at:
        answer = await at.post("/small/x", content=pieces())
        refused(answer, Reason.BODY_TOO_LARGE)
        async with asyncio.timeout(30):
            for visit in at.upstream.visits:
                await visit.closed.wait()
                body = visit.received.partition(b"\r\n\r\n")[2]  # the head may end in a 0, too: the request's id
                assert not body.endswith(b"0\r\n\r\n")
                assert body.count(b"x") <= 10
        line = await at.logged(answer.headers["x-request-id"])
        assert (line["status"], line["reason"], line["note"]) == (413, "body_too_large", "the body grew too large")
        assert (await at.post("/small/x", content=fitting())).status_code == 200
        assert at.last().received.endswith(b"0\r\n\r\n")


async def test_an_answer_that_began_before_the_body_grew_too_large_ends_broken(tmp_path: Path) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        while await visit.read():
            pass

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.2)
        yield b"x" * 20

    async with house(tmp_path, stripe=False, routes=BOUNDED, script=script) as at:
        with pytest.raises(httpx.HTTPError):
            await at.post("/small/x", content=pieces())
        assert not at.last().received.partition(b"\r\n\r\n")[2].endswith(b"0\r\n\r\n")


async def test_what_is_explained_of_every_option_is_what_is_answered(tmp_path: Path) -> None:
    async with house(
        tmp_path,
        stripe=False,
        routes=SCOPED.replace("- path: /**", "- path: /rest/**") + PREFIXED + BOUNDED.replace("/paid/**", "/large/**"),
        auth=KEYS,
    ) as at:
        await at.grant("alice", "pro")
        loaded = load_file(tmp_path / "gateway.yaml", {})
        assert isinstance(loaded, LoadedFile)
        assert loaded.ready is not None
        credentials = [
            token_for(), token_for(scope="a b"), token_for(scope="a reports:write"), token_for("bob", scope="reports:write"),
            token_for(**ADMIN), await made(at, ["a", "b"]), await made(at, None), None,
        ]  # fmt: skip
        requests = [
            ("GET", "/both", 0), ("GET", "/BOTH/", 0), ("POST", "/reports/7", 0), ("GET", "/admin/x", 0), ("GET", "/rest/x", 0),
            ("GET", "/open/x?y", 0), ("GET", "/paid/x?y", 0), ("GET", "/PAID/x", 0), ("GET", "/keyless", 0), ("GET", "/other/1", 0),
            ("POST", "/small/x", 11), ("POST", "/small/x", 10), ("POST", "/large/x", 11), ("POST", "/slow/x", 3),
        ]  # fmt: skip
        outcomes: set[str] = set()
        for credential in credentials:
            for method, target, size in requests:
                fields = [] if credential is None else [("authorization", f"Bearer {credential}")]
                fields += [("content-length", str(size))] if size else []
                host = at.api.removeprefix("http://")
                report = await explained(*loaded.ready, Asking(method, target, host, tuple(fields)))
                assert isinstance(report, Report), report
                outcomes.add(report.outcome)
                answer = await at.ask(method, target, credential, content=b"x" * size if size else None)
                if report.forwarded is not None:
                    assert (report.outcome, answer.status_code, sent(at)) == ("forward", 200, report.forwarded.target)
                    continue
                assert report.answer is not None
                reason = answer.headers["x-gateway-reason"]
                assert report.outcome == f"{answer.status_code} {reason}", (target, report)
                assert report.answer.status == answer.status_code
                told = json.loads(report.answer.body)
                assert told["detail"].partition("http")[0] == answer.json()["detail"].partition("http")[0]
                challenge = dict(report.answer.headers).get("www-authenticate")
                assert challenge == answer.headers.get("www-authenticate")
        assert outcomes >= {"forward", "403 scope_missing", "400 bad_path", "413 body_too_large", "402 tier_required"}


FAILING_OPEN = """
  - path: /closed
    tier: pro
  - path: /kind
    tier: pro
    on_unavailable: allow
    scopes: [a]
  - path: /**
    tier: pro
    on_unavailable: allow
"""


async def test_only_a_route_that_says_so_lets_somebody_through_when_the_ledger_is_gone(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=FAILING_OPEN) as at:
        refused(await at.get("/kind", token_for("carol", scope="a")), Reason.TIER_REQUIRED)
        at.lose_the_ledger()
        assert (await at.get("/kind", token_for("dave", scope="a"))).status_code == 200
        assert (at.seen("x-gateway-customer"), at.seen("x-gateway-tier")) == (["dave"], [])
        assert 'gateway_fail_open_total{route="/kind"} 1.0' in await at.metrics()
        before = at.visit_count()
        refused(await at.get("/closed", token_for("dave")), Reason.ENTITLEMENT_UNAVAILABLE)
        refused(await at.get("/kind", token_for("dave")), Reason.SCOPE_MISSING)
        refused(await at.get("/kind"), Reason.TOKEN_MISSING)
        refused(await at.get("/kind", "no-token"), Reason.TOKEN_INVALID)
        for spelled in ("/CLOSED", "/closed/", "/closed;x", "/closed%20", "/%63losed"):
            answer = await at.raw_get(spelled, f"Authorization: Bearer {token_for('dave')}")
            assert answer.status == 503, spelled
        assert at.visit_count() == before
        assert (await at.get("/other", token_for("dave"))).status_code == 200
