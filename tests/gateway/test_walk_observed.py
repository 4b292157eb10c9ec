"""Routes that aren't enforced, through a whole gateway: what goes on, what is counted, and what is refused all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.cli_explain import explained
from gateway.loading import LoadedFile, load_file
from policies.explain_report import Asking, Report
from policies.reasons import Reason
from tests.gateway.test_walk_route_options import refused
from tests.support.house import house, token_for

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = """
  - {path: /watched, tier: pro, enforce: observe, scopes: [a], max_body: 10B}
  - {path: /open, tier: pro, enforce: "off"}
  - {path: /part, tier: pro, enforce: 50%}
  - {path: /paid, tier: pro}
tests:
  - {request: GET /watched, who: {tier: free}, expect: forward}
  - {request: GET /watched, who: {tier: free}, expect: observe 402 tier_required}
  - {request: GET /watched, expect: observe token_missing}
  - {request: GET /watched, who: {tier: pro, status: blocked}, expect: 403 blocked}
  - {request: GET /part, who: {tier: free}, expect: 402}
"""


async def test_what_would_be_refused_goes_on_as_what_it_is_and_is_counted(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=ROUTES) as at:
        scoped = token_for(scope="a")
        for token, reason, customer, tier in (
            (None, "token_missing", [], "_unknown"),
            ("garbage", "token_invalid", [], "_unknown"),
            (token_for(), "scope_missing", ["alice"], "free"),
            (scoped, "tier_required", ["alice"], "free"),
        ):
            answer = await at.get("/watched", token, headers={"X-Gateway-Observed": "forged"})
            assert answer.status_code == 200
            assert (at.seen("x-gateway-observed"), at.seen("x-gateway-customer")) == ([reason], customer)
            assert at.seen("x-gateway-tier") == ([tier] if customer else [])
            line = await at.logged(at.seen("x-request-id")[0])
            assert (line["reason"], line["observed"]) == ("forwarded", reason)
            counted = f'gateway_observed_total{{reason="{reason}",route="/watched",tier="{tier}"}} 1.0'
            assert counted in await at.metrics()
        await at.grant("alice", "pro")
        await at.until(200, "/paid", scoped)
        assert (await at.get("/watched", scoped)).status_code == 200
        assert (at.seen("x-gateway-observed"), at.seen("x-gateway-tier")) == ([], ["pro"])
        assert "observed" not in await at.logged(at.seen("x-request-id")[0])
        before = at.visit_count()
        refused(await at.post("/watched", scoped, content=b"x" * 11), Reason.BODY_TOO_LARGE)
        refused(await at.get("/paid"), Reason.TOKEN_MISSING)
        assert at.visit_count() == before


async def test_off_looks_at_nobody_and_a_percentage_always_at_the_same(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=ROUTES) as at:
        assert (await at.get("/open", token_for())).status_code == 200
        assert (at.seen("x-gateway-customer"), at.seen("x-gateway-observed")) == ([], [])
        assert (await at.get("/part")).status_code == 200, "nobody known is in no share"
        statuses = {}
        for number in range(16):
            token = token_for(f"c{number}")
            answers = {(await at.get("/part", token)).status_code for _ in range(2)}
            assert len(answers) == 1
            statuses[number] = answers.pop()
            unlocks = (await at.get("/_gateway/me", token)).json()["unlocks"][0]["routes"]
            assert unlocks == (["/part", "/paid"] if statuses[number] == 402 else ["/paid"]), "the rest is open already"
        assert set(statuses.values()) == {200, 402}


async def test_an_explanation_says_what_is_observed_and_what_enforcing_would_do(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, routes=ROUTES):
        loaded = load_file(tmp_path / "gateway.yaml", {}, run_tests=True)
        assert isinstance(loaded, LoadedFile)
        assert loaded.ready is not None, loaded.diagnostics
        report = await explained(*loaded.ready, Asking("GET", "/watched"))
        assert isinstance(report, Report)
        assert report.outcome == "forward, observed 401 token_missing"
        assert report.forwarded is not None
        assert ("x-gateway-observed", "token_missing") in report.forwarded.headers
        assert report.changes[0].outcome == "401 token_missing"
        assert ("enforce", "observe: what would be refused is forwarded and counted") in [
            (one.what, one.found) for one in report.checks
        ]
