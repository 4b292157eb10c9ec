"""`auth.api_keys` in gateway.yaml: what it may say, and what it spares."""

from __future__ import annotations

import pytest

from policies.diagnostics import render
from policies.load import load

FILE = """
version: 1
upstreams: {api: {targets: ["http://127.0.0.1:9000"]}}
tiers: [{name: free}, {name: pro, prices: [price_1]}]
routes: [{path: /a, tier: pro}]
auth: {api_keys: %s}
"""


def problems(settings: str) -> str:
    return render(load(FILE % settings, file="gateway.yaml", environ={}, read_file=str).diagnostics)


def test_keys_alone_are_enough_for_a_route_that_asks_who_is_calling() -> None:
    assert problems("{enabled: true}").strip() == ""
    assert "no-issuers" in problems("{enabled: false}")
    assert "no-issuers" in problems("{}")


def test_a_slip_in_the_switch_hides_no_other_problem_and_makes_up_none() -> None:
    said = problems("{enabled: yess}")
    assert "enabled" in said
    assert "no-issuers" not in said
    assert "did you mean 'enabled'" in problems("{enable: true}")


@pytest.mark.parametrize("header", ["X-API-Key", "x_api_key", "Api-Key", "X-Customer-Token"])
def test_a_header_of_its_own_is_taken(header: str) -> None:
    assert problems(f"{{enabled: true, header: {header}}}").strip() == ""


@pytest.mark.parametrize(
    "header",
    [
        "Authorization", "cookie", "Host", "Transfer_Encoding", "content-length", "Content-Type", "X-Gateway-Key",
        "x_gateway_key", "X-Forwarded-For", "X-Request-Id", "Proxy-Authorization", "Connection", "Origin", "Sec-Fetch-Site",
    ],
)  # fmt: skip
def test_a_header_with_a_meaning_of_its_own_is_not(header: str) -> None:
    said = problems(f"{{enabled: true, header: {header}}}")
    assert f"error[bad-header]: 'header', which reads '{header}', has a meaning of its own" in said


@pytest.mark.parametrize("header", ["''", "'a b'", "'a:b'", "é", '"a\\r\\nb"'])
def test_what_is_no_header_is_said_to_be_none(header: str) -> None:
    assert "error[bad-header]" in problems(f"{{enabled: true, header: {header}}}")
