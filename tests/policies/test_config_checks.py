"""One rule of gateway.yaml at a time: what it refuses, what it only warns of, and what it must let pass."""

from __future__ import annotations

import pytest

from policies.diagnostics import render
from policies.load import Loaded, load

BASE = "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000']}}\n"
PUBLIC = BASE + "default: public\n"
SECRET = "0123456789abcdef0123456789abcdef"


def read_nothing(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def load_text(text: str, **environ: str) -> Loaded:
    loaded = load(text, file="gateway.yaml", environ=environ, read_file=read_nothing)
    assert (loaded.config is None) == bool(loaded.errors)
    return loaded


def codes(text: str, **environ: str) -> list[str]:
    return [found.code for found in load_text(text, **environ).diagnostics]


def issuer(**settings: str) -> str:
    given = {"issuer": "https://a.example.com/", "audience": "api", "algorithms": "[RS256]"} | settings
    if not {"jwks_url", "discovery", "public_key", "secret"} & given.keys():
        given["jwks_url"] = "https://a.example.com/jwks.json"
    return "    - {" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}\n"


def with_issuers(*issuers: str) -> str:
    return PUBLIC + "auth:\n  issuers:\n" + "".join(issuers)


# Listeners


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:8080", "[::1]:65535", "localhost:0", "gateway.internal:8080"])
def test_an_address_to_listen_on_is_host_and_port(listen: str) -> None:
    assert codes(f"{PUBLIC}server: {{listen: '{listen}', public_url: 'https://api.test'}}\n") == []


@pytest.mark.parametrize(
    "listen",
    [
        "8080",
        ":8080",
        "::1:8080",
        "[::1]",
        "[127.0.0.1]:1",
        "0.0.0.0:65536",
        "0.0.0.0:http",
        "a b:80",
        "1.2.3:80",
        "http://x:80",
        "x:-1",
        "",
    ],
)
def test_anything_else_is_no_address_to_listen_on(listen: str) -> None:
    assert codes(f"{PUBLIC}server: {{listen: '{listen}'}}\n") == ["bad-address"]


@pytest.mark.parametrize(
    ("listen", "operator", "expected"),
    [
        ("0.0.0.0:8081", "127.0.0.1:8081", ["same-address"]),
        ("127.0.0.1:8081", "[::]:8081", ["same-address"]),
        ("10.0.0.1:8081", "127.0.0.1:8081", []),
        ("127.0.0.1:0", "127.0.0.1:0", []),
    ],
)
def test_the_two_listeners_must_not_take_one_port(listen: str, operator: str, expected: list[str]) -> None:
    listeners = f"listen: '{listen}', operator: '{operator}'"
    assert codes(f"{PUBLIC}server: {{public_url: 'https://api.test', {listeners}}}\n") == expected


def test_the_default_of_one_listener_counts_against_the_other() -> None:
    assert codes(f"{PUBLIC}server: {{listen: '127.0.0.1:8081', public_url: 'https://api.test'}}\n") == ["same-address"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com", []),
        ("https://api.example.com/", []),
        ("http://[::1]:8080", []),
        ("https://api.example.com/v1", ["bad-url"]),
        ("https://api.example.com?", ["bad-url"]),
        ("https://api.example.com#", ["bad-url"]),
        ("https://u@api.example.com", ["bad-url"]),
        ("//api.example.com", ["bad-url"]),
        ("ftp://api.example.com", ["bad-url"]),
        ("https://api example.com", ["bad-url"]),
        ("https://exa_mple..com", ["bad-url"]),
        ("https://[::1", ["bad-url"]),
        ("https://x:0", ["bad-url"]),
        ("https://x:", ["bad-url"]),
    ],
)
def test_the_public_url_is_an_origin(url: str, expected: list[str]) -> None:
    assert codes(f"{PUBLIC}server: {{public_url: '{url}'}}\n") == expected


def test_several_workers_need_redis_unless_redis_is_what_is_broken() -> None:
    assert codes(f"{PUBLIC}server: {{workers: 2}}\n") == ["workers-need-redis"]
    assert codes(f"{PUBLIC}server: {{workers: 2}}\nredis: redis://localhost\n") == []
    assert codes(f"{PUBLIC}server: {{workers: 2}}\nredis: ${{REDIS_URL}}\n") == ["unset-variable"]
    assert codes(f"{PUBLIC}server: {{workers: 0}}\n") == ["out-of-range"]
    assert codes(f"{PUBLIC}server: {{workers: 129}}\n") == ["out-of-range"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///gateway.db", []),
        ("sqlite:////var/lib/gateway.db", []),
        ("sqlite://", ["bad-url"]),
        ("sqlite:///", ["bad-url"]),
        ("sqlite:///:memory:", ["bad-url"]),
        ("sqlite:///file:x?mode=memory", ["bad-url"]),
        ("sqlite://gateway.db", ["bad-url"]),
        ("postgresql://u:p@h/d", []),
        ("postgres://u:p@h:5432/d?sslmode=require", []),
        ("postgresql:///d?host=/run/postgresql", []),
        ("postgresql+asyncpg://h/d", ["bad-url"]),
        ("postgresql://u:p/q@h:x/d", ["bad-url"]),
        ("postgresql://u:12/q@h/d", ["bad-url"]),
        ("postgresql://u:12#q@h/d", ["bad-url"]),
        ("gateway.db", ["bad-url"]),
        ("", ["bad-url"]),
    ],
)
def test_the_database_is_sqlite_or_postgresql(url: str, expected: list[str]) -> None:
    assert codes(f"{PUBLIC}database: '{url}'\n") == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", []),
        ("rediss://:p@h:6380/1", []),
        ("unix:///run/redis.sock", []),
        ("unix://u:p@/run/redis.sock?db=1", []),
        ("unix://redis.sock", ["bad-url"]),
        ("redis://h/1?protocol=3&client_name=a%20b", []),
        ("redis://h/?protocol=9", ["bad-url"]),
        ("redis://h/?socket_timeout=5", ["bad-url"]),
        ("redis://h/?db", ["bad-url"]),
        ("unix:///run/redis.sock?db=x", ["bad-url"]),
        ("rediss://h/?ssl_ca_certs=/etc/ca.pem", []),
        ("redis://h/?ssl_ca_certs=/etc/ca.pem", ["bad-url"]),
        ("redis://h/abc", ["bad-url"]),
        ("redis://h/1/2", ["bad-url"]),
        ("redis://", ["bad-url"]),
        ("redis://h:port", ["bad-url"]),
        ("redis://:12/q@h", ["bad-url"]),
        ("localhost:6379", ["bad-url"]),
    ],
)
def test_redis_is_a_redis_url(url: str, expected: list[str]) -> None:
    assert codes(f"{PUBLIC}redis: '{url}'\n") == expected


# Issuers


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"jwks_url": "http://127.0.0.1:9/jwks"}, []),
        ({"jwks_url": "http://localhost/jwks"}, []),
        ({"jwks_url": "http://keys.internal/jwks"}, ["bad-url"]),
        ({"jwks_url": "''"}, ["bad-url"]),
        ({"jwks_url": "https://u:p@keys/jwks"}, ["bad-url"]),
        ({"discovery": "true"}, []),
        ({"discovery": "false"}, ["no-key"]),
        ({"discovery": "true", "issuer": "accounts.example.com"}, ["bad-url"]),
        ({"discovery": "true", "issuer": "http://accounts.example.com"}, ["bad-url"]),
        ({"discovery": "true", "secret": SECRET, "algorithms": "[HS256]"}, ["several-keys"]),
        ({"discovery": "false", "jwks_url": "https://a/jwks"}, []),
        ({"secret": SECRET, "algorithms": "[HS256]"}, []),
        ({"secret": SECRET, "algorithms": "[HS256, HS384]"}, ["weak-secret"]),
        ({"secret": SECRET * 2, "algorithms": "[HS256, HS512]"}, []),
        ({"secret": SECRET[:-1], "algorithms": "[HS256]"}, ["weak-secret"]),
        ({"secret": "é" * 16, "algorithms": "[HS256]"}, []),
        ({"secret": "''", "algorithms": "[HS256]"}, ["weak-secret"]),
        ({"secret": SECRET, "algorithms": "[ES256]"}, ["algorithm-misfit"]),
        ({"algorithms": "[HS256]"}, ["algorithm-misfit"]),
        ({"algorithms": "[RS256, RS256]"}, ["duplicate-entry"]),
        ({"algorithms": "[]"}, ["empty"]),
        ({"algorithms": "[none]"}, ["bad-value"]),
        ({"audience": "[a, b]"}, []),
        ({"audience": "[a, '']"}, ["empty"]),
        ({"public_key": "'-----BEGIN PUBLIC KEY-----'"}, []),
        ({"public_key": "keys/public.pem"}, ["bad-key"]),
        ({"customer": "app.org_id"}, []),
        ({"customer": "https://example.com/org"}, []),
        ({"customer": "'{org}|{sub}'"}, []),
        ({"customer": "'{org}{sub}'"}, ["bad-customer"]),
        ({"customer": "'{iss}'"}, ["bad-customer"]),
        ({"customer": "'{sub'"}, ["bad-customer"]),
        ({"customer": "'{}'"}, ["bad-customer"]),
        ({"customer": "''"}, ["bad-customer"]),
    ],
)
def test_an_issuer_has_one_kind_of_key_and_algorithms_that_fit(settings: dict[str, str], expected: list[str]) -> None:
    assert codes(with_issuers(issuer(**settings))) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, ["ambiguous-customer", "ambiguous-customer"]),
        ({"customer": "'{iss}|{sub}'"}, {"customer": "'{iss}|{sub}'"}, []),
        ({"customer": "'a:{sub}'"}, {"customer": "'b:{sub}'"}, []),
        ({"customer": "'a:{sub}'"}, {"customer": "'a:{sub}'"}, ["ambiguous-customer"]),
        ({"customer": "'a:{sub}'"}, {"customer": "'a:b:{sub}'"}, ["ambiguous-customer"]),
        ({"customer": "'{sub}|{iss}'"}, {"customer": "'{sub}|{iss}'"}, []),
        ({"customer": "'a:{sub}'"}, {"customer": "'{sub}'"}, ["ambiguous-customer"]),
        ({"shared_customers": "true"}, {"shared_customers": "true"}, []),
        ({"shared_customers": "true"}, {}, ["ambiguous-customer"]),
        ({"shared_customers": "true"}, {"customer": "'b:{sub}'"}, []),
        ({"shared_customers": "maybe"}, {"shared_customers": "true"}, ["bad-value"]),
        ({"customer": "${UNSET}"}, {"customer": "'b:{sub}'"}, ["unset-variable"]),
    ],
)
def test_two_issuers_never_name_one_customer_by_accident(
    first: dict[str, str], second: dict[str, str], expected: list[str]
) -> None:
    quoted = {key: f'"{value}"' if "$" in value else value for key, value in first.items()}
    assert codes(with_issuers(issuer(**quoted), issuer(issuer="https://b.example.com/", **second))) == expected


def test_one_issuer_with_an_issuer_prefix_inside_the_other_is_told_apart_by_what_parts_them() -> None:
    text = with_issuers(
        issuer(issuer="https://x/", customer="'{iss}{sub}'"), issuer(issuer="https://x/y", customer="'{iss}{sub}'")
    )
    assert codes(text) == ["ambiguous-customer"]


def test_an_issuer_named_twice_is_an_error_at_the_second() -> None:
    text = with_issuers(issuer(customer="'{iss}|{sub}'"), issuer(customer="'{iss}|{sub}'", audience="other"))
    (found,) = load_text(text).diagnostics
    assert (found.code, found.line) == ("duplicate-issuer", 7)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ("[header, 'cookie:session', 'query:access_token']", []),
        ("[]", ["empty"]),
        ("[Header]", ["bad-token-source"]),
        ("['header:X-Token']", ["bad-token-source"]),
        ("['cookie:']", ["bad-token-source"]),
        ("['cookie:a;b']", ["bad-token-source"]),
        ("['cookie:a', 'cookie:a']", ["duplicate-entry"]),
    ],
)
def test_a_token_is_looked_for_in_known_places(places: str, expected: list[str]) -> None:
    assert codes(f"{PUBLIC}auth: {{token_from: {places}}}\n") == expected


# Tiers and routes


def test_the_first_tier_may_sell_nothing_and_a_later_one_is_warned_of() -> None:
    assert codes(f"{PUBLIC}tiers: [{{name: free}}, {{name: pro, products: [prod_1]}}]\n") == []
    assert codes(f"{PUBLIC}tiers: [{{name: pro, lookup_keys: [pro]}}, {{name: staff}}]\n") == ["unsold-tier"]
    assert codes(f'{PUBLIC}tiers: [{{name: free}}, {{name: pro, prices: ["${{PRICE}}"]}}]\n') == ["unset-variable"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("price_a: {interval: year, amount: 100, currency: eur}", []),
        ("prod_b: {interval: month, interval_count: 3}", []),
        ("team: {}", []),
        ("price_x: {interval: year}", ["unknown-price"]),
        ("price_a: {interval: fortnight}", ["bad-value"]),
        ("price_a: {amount: -1}", ["out-of-range"]),
        ("price_a: {interval_count: 0}", ["out-of-range"]),
        ("price_a: {currency: EUR}", ["bad-value"]),
        ("price_a: {intervall: year}", ["unknown-key"]),
    ],
)
def test_the_simulator_is_told_only_of_what_the_tiers_sell(entry: str, expected: list[str]) -> None:
    tiers = "tiers: [{name: pro, prices: [price_a], products: [prod_b], lookup_keys: [team]}]\n"
    assert codes(f"{PUBLIC}{tiers}simulator: {{prices: {{{entry}}}}}\n") == expected


def test_a_lost_tier_makes_no_other_name_undefined() -> None:
    text = (
        with_issuers(issuer()) + "tiers: [{nam: pro, features: [x]}]\nroutes: [{path: /a, tier: pro, features: [x]}]\n"
    )
    assert codes(text) == ["missing-key", "unknown-key"]


def test_a_route_that_needs_a_token_needs_someone_who_signs_it() -> None:
    assert codes(BASE + "default: authenticated\n") == ["no-issuers"]
    assert codes(BASE + "routes: [{path: /a, access: public}]\n") == []
    assert codes(BASE + "auth: {issuers: [{}]}\ndefault: authenticated\n") == ["missing-key"] * 3 + ["no-key"]


def test_the_default_may_be_a_tier() -> None:
    tiers = "tiers: [{name: free}]\n"
    assert codes(with_issuers(issuer()).replace("default: public", "default: free") + tiers) == []
    assert codes(with_issuers(issuer()).replace("default: public", "default: fre") + tiers) == ["unknown-tier"]


def test_with_several_upstreams_every_route_names_its_own() -> None:
    two = BASE.replace("}}\n", "}, b: {targets: ['http://127.0.0.1:9001']}}\n")
    assert (
        codes(two + "routes: [{path: /a, access: public, upstream: api}, {path: /b, access: public, upstream: b}]\n")
        == []
    )
    assert codes(two + "routes: [{path: /a, access: public, upstream: api}]\n") == ["unused-upstream"]
    assert codes(two + "routes: [{path: /a, access: public}]\ndefault: public\n").count("which-upstream") == 2


def test_a_refused_misspelling_of_tier_is_not_also_called_a_route_without_rules() -> None:
    base = with_issuers(issuer()) + "tiers: [{name: pro, prices: [price_1]}]\n"
    assert codes(base + "routes: [{path: /a, tire: pro}]\n") == ["unknown-key"]
    assert codes(base + "routes: [{path: /a, methds: [GET]}]\n") == ["who-may", "unknown-key"]


def test_no_value_is_never_taken_for_a_laxer_rule() -> None:
    base = with_issuers(issuer()) + "tiers: [{name: pro, prices: [price_1]}]\n"
    for key in ("tier", "features", "methods", "host", "access"):
        assert "no-value" in codes(
            f"{base}routes:\n  - path: /a\n    tier: pro\n    {key}:\n".replace("    tier: pro\n    tier:", "    tier:")
        )


@pytest.mark.parametrize(
    ("host", "is_good"),
    [("api.example.com", True), ("[::1]", True), ("a.b:80", False), ("::1", False), ("", False), ("a/b", False)],
)
def test_the_host_of_a_route_is_a_name_alone(host: str, is_good: bool) -> None:
    assert codes(f"{BASE}routes: [{{path: /a, access: public, host: '{host}'}}]\n") == ([] if is_good else ["bad-host"])


# Upstreams


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("Authorization", "Bearer x", []),
        ("X-Empty", "", []),
        ("Connection", "close", ["reserved-header"]),
        ("CONTENT-LENGTH", "0", ["reserved-header"]),
        ("Expect", "100-continue", ["reserved-header"]),
        ("X-Request-Id", "1", ["reserved-header"]),
        ("X_Gateway-Status", "active", ["reserved-header"]),
        ("X-A", "a\\r\\nX-B: b", ["bad-header"]),
        ("X-A", "a\\nX-B: b", ["bad-header"]),
        ("X-A", "a\\0", ["bad-header"]),
        ("X-A", " a", ["bad-header"]),
        ("X-A", "€", ["bad-header"]),
        ("X A", "a", ["bad-header"]),
        ("X-A:", "a", ["bad-header"]),
        ("", "a", ["bad-header"]),
    ],
)
def test_a_header_set_on_requests_can_neither_frame_nor_identify(header: str, value: str, expected: list[str]) -> None:
    text = BASE.replace("9000']", f'9000\'], headers: {{"{header}": "{value}"}}') + "default: public\n"
    loaded = load_text(text)
    assert [found.code for found in loaded.diagnostics] == expected
    assert not value or value not in render(loaded.diagnostics) or len(value) < 3


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://api.internal", []),
        ("http://[::1]:9000/", []),
        ("http://127.0.0.1:8080", ["target-is-gateway"]),
        ("http://localhost:8081", ["target-is-gateway"]),
        ("http://10.0.0.1:8080", []),
        ("unix:///run/api.sock", ["bad-target"]),
        ("http://api.internal:9000/v1", ["bad-target"]),
        ("http://a,b", ["bad-target"]),
        ("http://a\\\\b", ["bad-target"]),
        ("", ["bad-target"]),
    ],
)
def test_a_target_is_an_origin_and_not_the_gateway_itself(target: str, expected: list[str]) -> None:
    assert codes(PUBLIC.replace("'http://127.0.0.1:9000'", f'"{target}"')) == expected


@pytest.mark.parametrize("name", ["my api", "", "-api", "a/b", "é"])
def test_an_upstream_is_named_by_a_plain_word(name: str) -> None:
    assert codes(PUBLIC.replace("{api:", f"{{'{name}':")) == ["bad-name"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("connect: 10m", []),
        ("connect: 11m", ["out-of-range"]),
        ("response: 0s", ["out-of-range"]),
        ("idle: 0.0ms", ["out-of-range"]),
    ],
)
def test_every_timeout_leaves_some_time(settings: str, expected: list[str]) -> None:
    assert codes(PUBLIC.replace("9000']", f"9000'], timeouts: {{{settings}}}")) == expected


def test_nothing_is_remembered_longer_than_something_only_with_a_warning() -> None:
    assert codes(f"{PUBLIC}cache: {{max_ttl: 1s, negative_ttl: 2s}}\n") == ["out-of-range"]
    assert codes(f"{PUBLIC}cache: {{max_ttl: 0s, negative_ttl: 2s}}\n") == ["out-of-range"]
    assert codes(f"{PUBLIC}cache: {{max_ttl: 2s, negative_ttl: 2s, max_stale: 0s}}\n") == []


def test_an_empty_text_is_no_path_and_no_issuer() -> None:
    assert codes(f"{PUBLIC}routes: [{{path: '', access: public}}]\n") == ["bad-value"]
    assert codes(with_issuers(issuer(issuer="''"))) == ["bad-value"]


# Billing


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("secret_key: sk_test_1", []),
        ("secret_key: rk_live_1, api_base: 'http://127.0.0.1:12111'", []),
        ("secret_key: sk_live_1, api_base: 'http://stripe.internal'", ["bad-url"]),
        ("secret_key: sk_test_1, api_base: 'http://stripe.internal'", []),
        ("secret_key: whsec_1", ["bad-stripe-key"]),
        ("secret_key: pk_live_1", ["bad-stripe-key"]),
        ("webhook_secrets: whsec_1", ["no-stripe-key"]),
        ("secret_key: sk_test_1, webhook_secrets: 'whsec_1, whsec_2,'", []),
        ("secret_key: sk_test_1, webhook_secrets: sk_test_1", ["bad-webhook-secret"]),
    ],
)
def test_the_stripe_keys_are_what_their_names_say(settings: str, expected: list[str]) -> None:
    assert codes(f"{PUBLIC}billing: {{stripe: {{{settings}}}}}\n") == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("renewal_leeway: 0s, past_due_grace: 0s", []),
        ("renewal_leeway: 32d", ["out-of-range"]),
        ("renewal_leeway: 99999999999999999999d", ["bad-value"]),
        ("pay_link_ttl: 59s", ["out-of-range"]),
        ("pay_link_ttl: 31d", ["out-of-range"]),
        ("success_url: 'https://example.com/done?session={CHECKOUT_SESSION_ID}'", []),
        ("success_url: 'javascript:alert(1)'", ["bad-url"]),
    ],
)
def test_lateness_and_links_have_sane_bounds(settings: str, expected: list[str]) -> None:
    assert codes(f"{PUBLIC}billing: {{{settings}}}\n") == expected
