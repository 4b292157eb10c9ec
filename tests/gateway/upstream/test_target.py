"""What a target may look like."""

from __future__ import annotations

import ssl

import pytest

from gateway.upstream.target import parse_target


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("http://127.0.0.1:9000", "127.0.0.1", 9000, b"127.0.0.1:9000"),
        ("http://api.internal", "api.internal", 80, b"api.internal"),
        ("http://api.internal:80/", "api.internal", 80, b"api.internal"),
        ("http://[::1]:9000", "::1", 9000, b"[::1]:9000"),
        ("http://b\u00fccher.example", "xn--bcher-kva.example", 80, b"xn--bcher-kva.example"),
    ],
)
def test_a_target_names_where_to_connect_and_what_host_to_say(url: str, host: str, port: int, authority: bytes) -> None:
    target = parse_target(url, None)
    assert (target.host, target.port, target.authority, target.tls) == (host, port, authority, None)


def test_a_target_with_tls_has_its_context_and_default_port() -> None:
    tls = ssl.create_default_context()
    target = parse_target("https://api.example", tls)
    assert (target.port, target.authority, target.tls) == (443, b"api.example", tls)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api:9000",
        "ftp://a",
        "http://",
        "http://a/path",
        "http://a?q",
        "http://u:p@a",
        "http://a:99999",
        "https://a",
    ],
)
def test_anything_else_is_not_a_target(url: str) -> None:
    with pytest.raises(ValueError):
        parse_target(url, None)
