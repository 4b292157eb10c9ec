"""What gateway.yaml may say of the connections to an upstream, of TLS and of active checks."""

from __future__ import annotations

import pytest

from policies.load import load


def codes(upstream: str, target: str = "https://api.internal") -> list[str]:
    text = f"version: 1\nupstreams: {{api: {{targets: ['{target}'], {upstream}}}}}\ndefault: public\n"
    loaded = load(text, file="gateway.yaml", environ={}, read_file=str)
    assert (loaded.config is None) == bool(loaded.errors)
    return [found.code for found in loaded.diagnostics]


@pytest.mark.parametrize(
    "upstream",
    [
        "max_connections: 1, queue: 0, keepalive: 0s",
        "keepalive: 1m",
        "tls: {ca: ca.pem, certificate: own.pem, key: own.key, server_name: api.example.com}",
        "tls: {certificate: both.pem}",
        "tls: {server_name: under_score.internal}",
        "health: {path: '/healthz?deep=1', interval: 100ms}",
        "health: {path: /}",
    ],
)
def test_these_can_be_used(upstream: str) -> None:
    assert codes(upstream) == []


@pytest.mark.parametrize(
    ("upstream", "code"),
    [
        ("max_connections: 0", "out-of-range"),
        ("queue: -1", "out-of-range"),
        ("keepalive: 2m", "out-of-range"),
        ("tls: {key: own.key}", "missing-key"),
        ("tls: {ca: ''}", "missing-value"),
        ("tls: {server_name: 'a b'}", "bad-name"),
        ("tls: {server_name: ''}", "bad-name"),
        ("tls: {server_name: 'https://a'}", "bad-name"),
        ("health: {path: healthz}", "bad-path"),
        ("health: {path: '/a b'}", "bad-path"),
        ('health: {path: "/a\\r\\nX: 1"}', "bad-path"),
        ("health: {path: '/a#b'}", "bad-path"),
        ("health: {path: /, interval: 50ms}", "out-of-range"),
        ("health: {path: /, interval: 0s}", "out-of-range"),
    ],
)
def test_these_are_errors(upstream: str, code: str) -> None:
    assert code in codes(upstream)


def test_verification_is_not_off_without_a_warning_each_time_the_file_is_read() -> None:
    assert codes("tls: {verify: false}") == ["tls-not-verified"]
    assert codes("tls: {verify: false, ca: ca.pem}") == ["tls-not-verified", "contradiction"]


def test_settings_without_an_effect_are_warned_of() -> None:
    assert codes("tls: {ca: ca.pem}", target="http://127.0.0.1:9000") == ["no-effect"]
    assert codes("health: {interval: 2s}") == ["no-effect"]
