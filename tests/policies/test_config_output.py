"""How problems are rendered, and what `gateway check --print` shows of a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from policies.diagnostics import Diagnostic, Findings, Mark, Severity, listed, nearest, render
from policies.effective import effective, effective_yaml
from policies.load import load
from policies.schema import Config, Upstream

EXAMPLE = (Path(__file__).parents[2] / "docs" / "example.gateway.yaml").read_text(encoding="utf-8")
SECRETS = {
    "GATEWAY_OPERATOR_TOKEN": "swordfish-operator",
    "GATEWAY_SIGNING_KEY": "swordfish-signing-key-of-32-bytes",
    "DATABASE_URL": "postgresql://gateway:swordfish-database@db/gateway?sslpassword=swordfish-ssl",
    "REDIS_URL": "rediss://:swordfish-redis@cache:6379/0",
    "STRIPE_SECRET_KEY": "sk_test_swordfish",
    "STRIPE_WEBHOOK_SECRET": "whsec_swordfish",
    "UPSTREAM_KEY": "swordfish-upstream",
}


def read_nothing(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def config_of(text: str, environ: dict[str, str]) -> Config:
    loaded = load(text, file="gateway.yaml", environ=environ, read_file=read_nothing)
    assert loaded.config is not None, render(loaded.diagnostics)
    return loaded.config


def full_of_secrets() -> Config:
    issuer = "    - {issuer: other, audience: a, algorithms: [HS256], secret: swordfish-0123456789abcdef0123456789, customer: 'o:{sub}'}\n"
    text = EXAMPLE.replace("headers: {} ", 'headers: {Authorization: "Bearer ${UPSTREAM_KEY}"} ')
    text = text.replace("      customer: sub ", "      customer: 'l:{sub}' ").replace(
        "\n  token_from:", f"\n{issuer}  token_from:"
    )
    return config_of(text, SECRETS)


def test_no_secret_shows_in_a_repr_a_dump_or_what_is_printed() -> None:
    config = full_of_secrets()
    for shown in (
        repr(config),
        str(config),
        effective_yaml(config),
        json.dumps(effective(config)),
        config.model_dump_json(),
    ):
        assert "swordfish" not in shown
    assert config.upstreams["api"].headers["Authorization"].get_secret_value() == "Bearer swordfish-upstream"


def test_what_is_printed_names_the_database_without_its_password() -> None:
    shown = effective(full_of_secrets())
    assert shown["database"] == "postgresql://gateway:********@db/gateway?********"
    assert shown["redis"] == "rediss://:********@cache:6379/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:sword@fish@db/x", "postgresql://u:********@db/x"),
        ("postgresql://u:12/sword@db/x", "postgresql://u:********@db/x"),
        ("postgresql://u:1?sword#fish@db/x", "postgresql://u:********@db/x"),
        ("postgresql://swordfish@db/x", "postgresql://********@db/x"),
        ("postgresql://db/x", "postgresql://db/x"),
        ("sqlite:///gateway.db", "sqlite:///gateway.db"),
    ],
)
def test_a_password_is_masked_to_its_end(url: str, shown: str) -> None:
    config = Config(version=1, upstreams={"api": Upstream(targets=("http://127.0.0.1",))}, database=SecretStr(url))
    assert effective(config)["database"] == shown


def test_what_is_printed_holds_every_setting_and_loads_again_to_the_same() -> None:
    config = config_of(EXAMPLE + "# a dollar and a default\n", {"PUBLIC_URL": "https://api.example.com"})
    printed = effective_yaml(config)
    assert config_of(printed, {}) == config
    assert set(yaml.safe_load(printed)) == set(Config.model_fields)
    dollar = config_of(EXAMPLE.replace("audience: my-api", "audience: a$$b"), {})
    assert config_of(effective_yaml(dollar), {}) == dollar


def test_durations_are_printed_as_they_are_written() -> None:
    shown = effective(config_of(EXAMPLE, {}))
    assert shown["server"]["drain"] == "30s"
    assert shown["upstreams"]["api"]["timeouts"] == {"connect": "2s", "response": "1m", "idle": "5m"}


def test_a_diagnostic_reads_as_editors_and_compilers_write_them() -> None:
    found = Diagnostic("gateway.yaml", 7, 5, Severity.ERROR, "unknown-key", "'tire' is not a key of a route")
    assert str(found) == "gateway.yaml:7:5: error[unknown-key]: 'tire' is not a key of a route"
    assert json.loads(json.dumps(found.as_dict())) == {
        "file": "gateway.yaml",
        "line": 7,
        "column": 5,
        "severity": "error",
        "code": "unknown-key",
        "message": "'tire' is not a key of a route",
    }


def test_an_annotation_escapes_what_would_end_it() -> None:
    found = Diagnostic("a,b:c.yaml", 1, 2, Severity.WARNING, "lone-dollar", "100 %\nof it: yes, all")
    assert (
        found.as_github_annotation()
        == "::warning file=a%2Cb%3Ac.yaml,line=1,col=2,title=lone-dollar::100 %25%0Aof it: yes, all"
    )


def test_problems_come_in_the_order_of_the_file_and_once() -> None:
    findings = Findings("f")
    findings.warning("b", Mark(10, 1), "later")
    findings.error("a", Mark(9, 20), "right")
    findings.error("a", Mark(9, 3), "left")
    findings.error("a", Mark(9, 3), "left")
    assert render(findings.in_order()) == "f:9:3: error[a]: left\nf:9:20: error[a]: right\nf:10:1: warning[b]: later\n"
    assert findings.has_errors


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_alternatives_are_listed_as_people_say_them(words: list[str], text: str) -> None:
    assert listed(words) == text


def test_a_suggestion_is_made_only_where_one_is_near() -> None:
    assert nearest("TIRE", ["tier", "path"]) == "; did you mean 'tier'?"
    assert nearest("colour", ["tier", "path"]) == ""
    assert nearest("x" * 1_000_000, ["x" * 80]) != ""
    assert nearest("x", []) == ""
