"""What crosses the gateway, name by name: no spelling gets an identity header through, no Connection takes one away."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.headers import (
    HeaderRules,
    TrustedProxies,
    identity_headers,
    inbound_response_headers,
    outbound_request_headers,
)
from policies.schema import Upstream

RULES = HeaderRules.of(Upstream(targets=("http://a",)))
IDENTITY = identity_headers("alice", tier="pro", features=["x"], status="active")

SPELLINGS = st.sampled_from(["customer", "tier", "features", "status", "anything"]).flatmap(
    lambda name: st.tuples(*(st.sampled_from(sorted({c, "_" if c == "-" else c})) for c in f"x-gateway-{name}")).map(
        "".join
    )
)
NAMES = st.one_of(
    SPELLINGS,
    st.sampled_from(["x-keep", "cookie", "host", "te", "proxy-x", "x-forwarded-for", "authorization", "accept"]),
)
CONNECTIONS = st.lists(NAMES, max_size=4).map(lambda names: ("connection", ", ".join(names)))
HEADERS = st.lists(st.one_of(st.tuples(NAMES, st.just("forged")), CONNECTIONS), max_size=12)


def outbound(headers: list[tuple[str, str]], **settings: object) -> list[tuple[str, str]]:
    arguments: dict[str, object] = {
        "rules": RULES,
        "peer": "10.0.0.1",
        "trusted": False,
        "scheme": "http",
        "request_id": "r1",
        "identity": IDENTITY,
        **settings,
    }
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    sent = outbound_request_headers(raw, **arguments)  # type: ignore[arg-type]
    return [(name.decode(), value.decode("latin-1")) for name, value in sent]


@settings(deadline=None)
@given(HEADERS)
def test_the_upstream_sees_the_gateways_identity_once_and_no_other(headers: list[tuple[str, str]]) -> None:
    sent = outbound(headers)
    about_identity = [header for header in sent if header[0].lower().replace("_", "-").startswith("x-gateway-")]
    assert about_identity == [(name.decode(), value.decode()) for name, value in IDENTITY]
    assert sent[-len(IDENTITY) :] == about_identity


@settings(deadline=None)
@given(HEADERS)
def test_where_no_identity_is_known_none_arrives(headers: list[tuple[str, str]]) -> None:
    assert not [name for name, _ in outbound(headers, identity=()) if "gateway" in name]


@settings(deadline=None)
@given(HEADERS)
def test_what_the_gateway_says_of_the_connection_stands_whatever_the_caller_names(
    headers: list[tuple[str, str]],
) -> None:
    sent = outbound(headers)
    for name, value in (("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "http"), ("x-request-id", "r1")):
        assert [text for key, text in sent if key == name] == [value]


@settings(deadline=None)
@given(HEADERS)
def test_no_identity_of_an_upstream_reaches_a_caller(headers: list[tuple[str, str]]) -> None:
    kept = inbound_response_headers([(name.title().encode(), value.encode()) for name, value in headers])
    assert not [name for name, _ in kept if b"gateway" in name.lower()]


@pytest.mark.parametrize(
    "alias", ["content_length", "transfer_encoding", "host_", "proxy_authorization", "x_request_id"]
)
def test_no_alias_of_a_header_that_frames_or_identifies_arrives(alias: str) -> None:
    assert alias not in dict(outbound([(alias, "chunked")])) or alias == "host_"
    assert "transfer-encoding" not in dict(outbound([(alias, "chunked")]))


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=255))
def test_a_customers_name_can_be_had_back_from_its_header(customer: str) -> None:
    (_, value), *_ = identity_headers(customer, tier=None, features=[], status=None)
    assert urllib.parse.unquote(value.decode("ascii"), errors="strict") == customer
    assert value.strip() == value
    assert all(33 <= octet <= 126 for octet in value)


def test_plain_names_arrive_as_they_are() -> None:
    assert identity_headers("auth0|5f7c@x.org/~a", tier="pro", features=["a", "b"], status="past_due") == [
        (b"x-gateway-customer", b"auth0|5f7c@x.org/~a"),
        (b"x-gateway-tier", b"pro"),
        (b"x-gateway-features", b"a,b"),
        (b"x-gateway-status", b"past_due"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "a\0"},
        {"X A": "a"},
        {"": "a"},
        {"X-A": "\u20ac"},
        {"X-\u00c4": "a"},
        {"Content-Length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "x"},
        {"X_Gateway-Tier": "pro"},
    ],
)
def test_a_configured_header_that_can_not_be_sent_is_an_error_at_load(headers: dict[str, str]) -> None:
    upstream = Upstream.model_validate({"targets": ("http://a",), "headers": headers})
    with pytest.raises(ValueError):
        HeaderRules.of(upstream)


@pytest.mark.parametrize(
    ("networks", "peer", "trusted"),
    [
        ([], "127.0.0.1", False),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "11.1.2.3", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8", "fd00::/8"], "fd00::1", True),
        (["0.0.0.0/0"], "a unix socket", False),
    ],
)
def test_only_named_networks_are_trusted(networks: list[str], peer: str, trusted: bool) -> None:
    assert TrustedProxies(networks).trusts(peer) is trusted


def test_seats_go_to_the_upstream_and_are_left_out_where_nothing_is_counted() -> None:
    seats = identity_headers("alice", tier="pro", features=[], status="active", quantity=12)
    assert seats[-1] == (b"x-gateway-quantity", b"12")
    assert b"x-gateway-quantity" not in dict(identity_headers("alice", tier="pro", features=[], status="active"))
