"""`gateway schema`, `routes`, `explain`, `diff`, and `check` with tests: what they print and how they end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from admin.stripe.client import SIMULATOR_KEY_PREFIX
from gateway.cli import app
from policies.json_schema import json_schema
from tests.support.ledgers import fresh_sqlite
from tests.support.simulator import running_simulator
from tests.support.tokens import SECRET, sign

if TYPE_CHECKING:
    from pathlib import Path

ISSUER, AUDIENCE = "https://issuer.test/", "api"
CONFIG = """
version: 1
server: {{signing_key: a-signing-key-of-the-tests-0123456789}}
database: {database}
upstreams: {{api: {{targets: ["http://127.0.0.1:9"]}}}}
auth:
  issuers: [{{issuer: {issuer}, audience: {audience}, algorithms: [HS256], secret: {secret}}}]
tiers:
  - name: free
  - {{name: pro, prices: [price_pro]}}
  - {{name: enterprise, prices: [price_ent]}}
routes:
  - {{path: /status, access: public}}
  - {{path: /v1/**, tier: {tier}}}
  - {{path: "/v1/reports/{{id}}", methods: [GET], tier: pro}}
{more}
"""


def written(directory: Path, name: str = "gateway.yaml", *, tier: str = "free", more: str = "") -> Path:
    """A gateway.yaml on the ledger of this directory, which is made by the first."""
    ledger = directory / "ledger.db"
    database = f"sqlite:///{ledger}" if ledger.exists() else fresh_sqlite(directory)
    path = directory / name
    path.write_text(
        CONFIG.format(database=database, issuer=ISSUER, audience=AUDIENCE, secret=SECRET, tier=tier, more=more),
        encoding="utf-8",
    )
    return path


def gateway(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def explained(config: Path, *words: object) -> dict[str, Any]:
    result = gateway("explain", *words, "--config", config, "--format", "json")
    assert result.exit_code == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_schema_prints_the_json_schema() -> None:
    assert json.loads(gateway("schema").stdout) == json_schema()


def test_routes_prints_a_line_for_each_route_and_the_default(tmp_path: Path) -> None:
    config = written(tmp_path)

    lines = [line.split("\t") for line in gateway("routes", "--config", config).stdout.splitlines()]
    as_json = json.loads(gateway("routes", "--config", config, "--format", "json").stdout)

    assert [(line[1], line[3], line[4]) for line in lines] == [
        ("any", "/status", "everybody"),
        ("GET,HEAD", "/v1/reports/{id}", "tier 'pro'"),
        ("any", "/v1/**", "tier 'free'"),
        ("any", "default", "nobody: 404 no_route"),
    ]
    assert [line["path"] for line in as_json] == ["/status", "/v1/reports/{id}", "/v1/**", None]


def test_check_runs_the_tests_of_the_file_and_names_the_line_of_one_that_fails(tmp_path: Path) -> None:
    good = "tests:\n  - {request: GET /status, expect: forward}\n"
    config = written(tmp_path, more=good)
    assert gateway("check", "--config", config).exit_code == 0
    assert "3 routes, 1 test passed" in gateway("check", "--config", config).stderr

    config = written(tmp_path, more=good + "  - {request: GET /v1/x, expect: forward}\n")
    failed = gateway("check", "--config", config)

    line = next(at for at, text in enumerate(config.read_text().splitlines(), 1) if "GET /v1/x" in text)
    assert failed.exit_code == 1
    assert (
        f"gateway.yaml:{line}:5: error[failed-test]: GET /v1/x from nobody is answered 401 token_missing"
        in failed.stdout
    )
    annotated = gateway("check", "--config", config, "--format", "github").stdout
    assert f"line={line}" in annotated
    assert json.loads(gateway("check", "--config", config, "--format", "json").stdout)[0]["code"] == "failed-test"


@pytest.mark.parametrize(("flag", "exit_code"), [("true", 3), ("false", 0)])
def test_a_test_that_fails_keeps_the_file_from_being_used_only_if_it_says_so(
    tmp_path: Path, flag: str, exit_code: int
) -> None:
    failing = f"run_tests_at_load: {flag}\ntests:\n  - {{request: GET /status, expect: 404}}\n"

    assert gateway("routes", "--config", written(tmp_path, more=failing)).exit_code == exit_code


def test_explain_tells_people_the_answer_the_way_to_it_and_what_would_change_it(tmp_path: Path) -> None:
    result = gateway("explain", "GET", "/v1/reports/7", "--tier", "free", "--config", written(tmp_path))

    assert result.exit_code == 0
    for line in (
        "  402 tier_required: the route '/v1/reports/{id}' asks for tier 'pro', and the caller has 'free' (status none)",
        "  /v1/**: '/v1/reports/{id}' is more specific: it has a literal where this has '/**', in segment 2",
        "  if the customer paid for pro: forward",
        "  HTTP/1.1 402 Payment Required",
        "  x-gateway-reason: tier_required",
    ):
        assert line in result.stdout.splitlines()


def test_explain_shows_what_the_upstream_is_sent(tmp_path: Path) -> None:
    report = explained(written(tmp_path), "POST", "/v1/X?q=%2F", "--tier", "pro", "--status", "past_due")

    assert report["answer"] is None
    assert (report["forwarded"]["upstream"], report["forwarded"]["target"]) == ("api", "/v1/X?q=%2F")
    assert {"x-gateway-tier": "pro", "x-gateway-status": "past_due"}.items() <= dict(
        report["forwarded"]["headers"]
    ).items()


def test_explain_reads_a_customer_from_the_ledger_at_the_time_that_is_asked_about(tmp_path: Path) -> None:
    config = written(tmp_path)
    assert gateway("grant", "alice", "pro", "--until", "2096-01-01", "--reason", "test", "-c", config).exit_code == 0

    now = explained(config, "GET", "/v1/reports/7", "--customer", "alice")
    later = explained(config, "GET", "/v1/reports/7", "--customer", "alice", "--at", "2097-01-01")

    assert (now["outcome"], later["outcome"]) == ("forward", "402 tier_required")
    assert [one["outcome"] for one in now["changes"]] == ["402 tier_required"]
    assert later["who"] == "the customer alice"
    assert json.loads(later["answer"]["body"])["current"]["tier"] == "free"


def test_explain_verifies_a_token_as_the_gateway_does(tmp_path: Path) -> None:
    config = written(tmp_path)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600}

    good = explained(config, "GET", "/v1/reports/7", "--token", sign(claims))
    old = explained(config, "GET", "/v1/reports/7", "--token", sign({**claims, "exp": 1_000_000_000}))
    forged = explained(config, "GET", "/v1/reports/7", "--token", sign({**claims, "aud": "other"}))
    result = CliRunner().invoke(
        app,
        ["explain", "GET", "/v1/x", "--token", "-", "--config", str(config), "--format", "json"],
        input=sign(claims) + "\n",
    )

    assert (good["outcome"], good["who"]) == ("402 tier_required", "the customer alice, whom the credential names")
    assert (old["outcome"], forged["outcome"]) == ("401 token_expired", "401 token_invalid")
    assert 'error="invalid_token"' in dict(forged["answer"]["headers"])["www-authenticate"]
    assert json.loads(result.stdout)["outcome"] == "forward"


def test_explain_knows_a_key_of_the_ledger_as_the_gateway_does(tmp_path: Path) -> None:
    config = written(tmp_path)
    config.write_text(config.read_text().replace("auth:\n", "auth:\n  api_keys: {enabled: true}\n"))
    made = gateway("keys", "create", "alice", "--name", "ci", "--config", config)
    assert made.exit_code == 0, made.stderr
    (key,) = [word for word in made.stdout.split() if word.startswith("gw_")]

    for given in (("--token", key), ("--header", f"X-API-Key: {key}")):
        assert (
            explained(config, "GET", "/v1/reports/7", *given)["who"] == "the customer alice, whom the credential names"
        )
    assert explained(config, "GET", "/v1/x", "--token", key[:-1] + "x")["outcome"] == "401 token_invalid"


def test_explain_about_somebody_made_up_or_nobody_opens_no_ledger(tmp_path: Path) -> None:
    config = written(tmp_path)
    (tmp_path / "ledger.db").unlink()

    assert explained(config, "GET", "/v1/x", "--tier", "pro")["outcome"] == "forward"
    assert explained(config, "GET", "/v1/x?token=y")["outcome"] == "401 token_missing"
    assert not (tmp_path / "ledger.db").exists()


def test_explain_gives_a_browser_its_page(tmp_path: Path) -> None:
    report = explained(written(tmp_path), "GET", "/nowhere", "--header", "Accept: text/html")

    assert report["answer"]["body"].startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tier", "pro", "--customer", "alice"], "ask with --token"),
        (["--tier", "pro", "--status", "late"], "--status is one of"),
        (["--tier", "free", "--status", "past_due"], "Nobody on 'free' is 'past_due'"),
        (["--tier", "pro", "--until", "soon"], "--until is not a time"),
        (["--at", "soon"], "--at is not a time"),
        (["--header", "Accept"], "--header is a name"),
        (["--header", "X: a\nb"], "holds what no request can"),
        (["--host", "h\N{SNOWMAN}"], "holds what no request can"),
        (["--customer", ""], "is empty"),
    ],
)
def test_a_question_that_makes_no_sense_is_wrong_usage(tmp_path: Path, words: list[str], said: str) -> None:
    result = gateway("explain", "GET", "/v1/x", *words, "--config", written(tmp_path))

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_tier_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    result = gateway("explain", "GET", "/v1/x", "--tier", "prp", "--config", written(tmp_path))

    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no tier 'prp'" in result.stderr


@pytest.mark.parametrize("path", ["/%zz", "/a//b", "/%2e%2e/x", "/a\\b", "/%EF%BC%8F"])
def test_a_path_with_two_readings_is_explained_like_any_other(tmp_path: Path, path: str) -> None:
    assert explained(written(tmp_path), "GET", path)["outcome"] == "400 bad_path"


@pytest.mark.parametrize(
    "path", ["nonsense", "", "*", "http://a/b", "/\N{SNOWMAN}", "/a b", "/\udcff", "/" + "x" * 9000]
)
def test_a_target_that_never_becomes_a_request_is_said_to_end_at_the_listener(tmp_path: Path, path: str) -> None:
    result = gateway("explain", "GET", path, "--config", written(tmp_path))

    assert (result.exit_code, result.stdout) == (2, "")
    assert "The listener ends such a request before any rule is asked: 4" in result.stderr


def test_the_gateways_own_paths_are_told_apart_and_not_rehearsed(tmp_path: Path) -> None:
    report = explained(written(tmp_path), "POST", "/_gateway/checkout", "--tier", "free")

    assert (report["outcome"], report["answer"], report["forwarded"]) == ("own", None, None)


def test_diff_ends_with_1_when_somebody_loses_and_0_when_nobody_does(tmp_path: Path) -> None:
    today, stricter = written(tmp_path, "today.yaml"), written(tmp_path, "stricter.yaml", tier="enterprise")

    loses, gains, same = (gateway("diff", *files) for files in ((today, stricter), (stricter, today), (today, today)))

    assert (loses.exit_code, gains.exit_code, same.exit_code) == (1, 0, 0)
    (line,) = loses.stdout.splitlines()
    assert line.split("\t")[:5] == ["loses", "GET,*", "/v1", "any token, free, pro", "forward -> 402 tier_required"]
    assert (same.stdout, same.stderr) == ("", "Nothing changes for anybody.\n")


def test_diff_counts_the_customers_of_the_ledger(tmp_path: Path) -> None:
    today, stricter = written(tmp_path, "today.yaml"), written(tmp_path, "stricter.yaml", tier="enterprise")
    for customer, tier in (("alice", "pro"), ("bob", "enterprise"), ("carol", "pro")):
        gateway("grant", customer, tier, "--reason", "test", "--config", today)

    told = gateway("diff", today, stricter, "--ledger")
    report = json.loads(gateway("diff", today, stricter, "--ledger", "--format", "json").stdout)

    assert told.exit_code == 1
    assert "2 customers lose it (0 of them pay), 0 gain it" in told.stdout
    assert report["somebody_loses"] is True
    assert [(one["losing"], one["gaining"]) for one in report["customers"]] == [(2, 0)]
    assert "customers" not in json.loads(gateway("diff", today, stricter, "--format", "json").stdout)


def test_diff_of_a_file_that_can_not_be_read_is_told_from_a_loss(tmp_path: Path) -> None:
    today = written(tmp_path)
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nroute: []\n")

    assert gateway("diff", today, broken).exit_code == 3
    assert gateway("diff", tmp_path / "none.yaml", today).exit_code == 3


def test_a_ledger_that_can_not_be_opened_is_said_in_a_sentence(tmp_path: Path) -> None:
    today = written(tmp_path)
    (tmp_path / "ledger.db").write_bytes(b"this is no database, and long enough to be taken for one" * 20)

    for words in (
        ("diff", today, today, "--ledger"),
        ("explain", "GET", "/v1/x", "--customer", "a", "--config", today),
    ):
        result = gateway(*words)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith("gateway: ")


def test_a_verb_whose_simulator_does_not_answer_says_whose_time_it_is_then(tmp_path: Path) -> None:
    billing = (
        "billing: {stripe: {secret_key: sk_test_simulator, webhook_secrets: whsec_x, api_base: 'http://127.0.0.1:9'}}"
    )
    config = written(tmp_path, more=billing)

    granted = gateway("grant", "alice", "pro", "--until", "30d", "--reason", "test", "-c", config)

    assert granted.exit_code == 0, granted.stderr
    assert "No Stripe simulator answers at http://127.0.0.1:9, so 'now' is this machine's time" in granted.stderr


def test_explain_asks_about_everybody_at_the_simulators_time(tmp_path: Path) -> None:
    with running_simulator() as simulator:
        simulator.http.post(f"{simulator.base}/_sim/clock/advance", json={"days": 100}).raise_for_status()
        billing = f'billing: {{stripe: {{secret_key: {SIMULATOR_KEY_PREFIX}x, api_base: "{simulator.base}"}}}}'
        config = written(tmp_path, more=billing)
        asked = [
            explained(config, "GET", "/v1/reports/7", *words)["at"]
            for words in (("--tier", "pro"), ("--customer", "alice"), ())
        ]

    now = time.time()
    assert all(at > now + 90 * 86_400 for at in asked), [at - now for at in asked]
