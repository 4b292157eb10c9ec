"""The `tests:` section: what holds, what is said of what doesn't, and that it is loaded like the rest of the file."""

from __future__ import annotations

import pytest
import yaml

from policies.effective import effective_yaml
from policies.expectations import DECIDED_BY_ROUTES, Expected, Unmet, read_expected, read_request, unmet_expectations
from policies.load import Loaded, load
from policies.reasons import ANSWERS, Reason
from policies.routes import compile_routes
from policies.schema import Expectation, Who

BASE = """
version: 1
upstreams: {api: {targets: ["http://127.0.0.1:9000"]}}
auth: {issuers: [{issuer: "https://a.example.com/", audience: api, algorithms: [RS256], discovery: true}]}
tiers:
  - name: free
  - {name: pro, prices: [price_pro], features: [export]}
  - {name: enterprise, prices: [price_ent]}
billing: {past_due_grace: 72h, renewal_leeway: 48h}
routes:
  - {path: /status, access: public}
  - {path: "/v1/reports/{id}", tier: pro}
  - {path: /v1/export/**, methods: [POST], features: [export]}
  - {path: /hosted, host: api.example.com, access: public}
tests:
"""


def loaded(*tests: str) -> Loaded:
    text = BASE + "".join(f"  - {test}\n" for test in tests)
    return load(text, file="gateway.yaml", environ={"WHERE": "/status"}, read_file=str)


def unmet(*tests: str) -> list[Unmet]:
    found = loaded(*tests)
    assert found.config is not None, found.diagnostics
    table = compile_routes(found.config).table
    assert table is not None
    return list(unmet_expectations(found.config, table))


@pytest.mark.parametrize(
    "test",
    [
        "{request: GET /status, expect: forward}",
        "{request: 'HEAD /status?x=1', expect: forward}",
        "{request: 'GET   /status', expect: forward}",
        "{request: 'GET ${WHERE}', expect: forward}",
        "{request: GET /v1/reports/7, expect: 401}",
        "{request: GET /v1/reports/7, expect: token_missing}",
        "{request: GET /v1/reports/7, who: {}, expect: 401 token_missing}",
        "{request: GET /v1/reports/7, who: {status: none}, expect: 402 tier_required}",
        "{request: GET /v1/reports/7, who: {tier: free}, expect: 402}",
        "{request: GET /V1/Reports/7/, who: {tier: free}, expect: 402 tier_required}",
        "{request: POST /v1/export/x, who: {tier: pro, status: past_due}, expect: forward}",
        "{request: GET /v1/export/x, who: {tier: pro}, expect: 405}",
        "{request: GET /v1//x, expect: 400 bad_path}",
        "{request: GET /nowhere, expect: no_route}",
        "{request: GET /hosted, expect: 404}",
        "{request: GET /hosted, host: API.example.com, expect: forward}",
        "{request: GET /v1/reports/7, who: {tier: enterprise, status: blocked}, expect: 403 blocked}",
        "{request: GET /v1/reports/7, who: {tier: pro, until: 2026-12-01}, at: 2026-12-02T23:59:59Z, expect: forward}",
        "{request: GET /v1/reports/7, who: {tier: pro, until: 2026-12-01}, at: 2026-12-03, expect: subscription_expired}",
        "{request: GET /v1/reports/7, who: {tier: pro, status: canceled, until: 2026-12-01}, at: 2026-12-01, expect: 402}",
        "{request: GET /v1/reports/7, who: {tier: pro, status: past_due, until: 2026-12-01}, at: 2026-12-03, expect: forward}",
        "{request: GET /v1/reports/7, who: {tier: pro, status: past_due, until: 2026-12-01}, at: 2026-12-04, expect: payment_failed}",
    ],
)
def test_what_holds_is_not_spoken_of_and_its_contrary_is(test: str) -> None:
    assert unmet(test) == []
    contrary = "forward" if "expect: forward" not in test else "402"
    begin, _, _ = test.partition("expect: ")
    assert [one.index for one in unmet(f"{begin}expect: {contrary}}}")] == [0]


def test_a_test_that_fails_says_what_it_got_and_why() -> None:
    (one,) = unmet("{request: GET /v1/reports/7, who: {tier: free}, expect: forward}")

    assert one.message == (
        "GET /v1/reports/7 from free is answered 402 tier_required, not forward: the route '/v1/reports/{id}' asks for "
        "tier 'pro', and the caller has 'free' (status none)"
    )


def test_each_test_that_fails_is_named_by_its_place() -> None:
    found = unmet(
        "{request: GET /status, expect: 404}",
        "{request: GET /status, expect: forward}",
        "{request: GET /x, expect: forward}",
    )

    assert [one.index for one in found] == [0, 2]


def test_a_test_with_an_end_must_say_when_it_plays() -> None:
    found = loaded("{request: GET /status, who: {tier: pro, until: 2026-12-01}, expect: forward}")

    assert [one.code for one in found.errors] == ["no-time"]


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_expected_exactly_if_a_route_can_decide_it(reason: Reason) -> None:
    status = ANSWERS[reason].status

    for text in (reason.value, f"{status} {reason.value}"):
        expected = read_expected(text)
        assert isinstance(expected, Expected) is (reason in DECIDED_BY_ROUTES), expected
        if isinstance(expected, Expected):
            assert expected.holds(reason)
            assert not expected.holds(None)
    assert isinstance(read_expected(f"{status + 1} {reason.value}"), str)


@pytest.mark.parametrize(
    "text", ["", " ", "FORWARD", "200", "forward 200", "402 402", "tier required", "4020", "402tier"]
)
def test_what_can_not_be_expected_is_said_to_be_none(text: str) -> None:
    assert isinstance(read_expected(text), str)


@pytest.mark.parametrize("text", ["", "GET", "GET ", "/x", "GET/x", "GE\tT /x", "G(T /x"])
def test_what_is_no_request_is_said_to_be_none(text: str) -> None:
    assert isinstance(read_request(text), str)


def test_the_effective_configuration_shows_the_tests_and_loads_again() -> None:
    before = loaded(
        "{request: GET /status, expect: forward}",
        "{request: GET /v1/reports/7, who: {tier: pro, until: 2026-12-01}, at: 2026-12-02, expect: forward}",
    )
    assert before.config is not None

    shown = effective_yaml(before.config)
    again = load(shown, file="gateway.yaml", environ={}, read_file=str)

    assert again.config is not None, again.diagnostics
    assert again.config.tests == before.config.tests
    assert yaml.safe_load(shown)["run_tests_at_load"] is False


def test_tests_that_are_to_run_at_load_and_are_not_there_are_warned_of() -> None:
    found = load(BASE.replace("tests:", "run_tests_at_load: true"), file="gateway.yaml", environ={}, read_file=str)

    assert [one.code for one in found.diagnostics] == ["no-tests"]
    assert found.config is not None


def test_a_test_that_the_loader_would_refuse_is_never_taken_for_one_that_holds() -> None:
    found = loaded("{request: GET /status, expect: forward}")
    assert found.config is not None
    table = compile_routes(found.config).table
    assert table is not None
    for broken in (
        Expectation(request="nonsense", expect="forward"),
        Expectation(request="GET /status", expect="nonsense"),
        Expectation(request="GET /status", expect="forward", who=Who(tier="nope")),
    ):
        config = found.config.model_copy(update={"tests": (broken,)})
        with pytest.raises(TypeError):
            list(unmet_expectations(config, table))
