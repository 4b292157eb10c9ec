"""What a good gateway.yaml becomes, and that no input at all makes `load` raise."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.diagnostics import Severity, render
from policies.load import DEMO_TOKEN_SECRET, Loaded, load
from policies.schema import Auth, Billing, Cache, Config, Health, Server, Upstream

EXAMPLE = (Path(__file__).parents[2] / "docs" / "example.gateway.yaml").read_text(encoding="utf-8")
MINIMAL = "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000']}}\ndefault: public\n"
FILES = {"/run/secrets/key": "from a file\n", "/run/secrets/two": "a\n\n", "/run/secrets/crlf": "a\r\n", "/empty": ""}


def read_file(path: str) -> str:
    try:
        return FILES[path]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory", path) from None


def load_text(text: str | bytes, **environ: str) -> Loaded:
    return load(text, file="gateway.yaml", environ=environ, read_file=read_file)


def good(text: str, **environ: str) -> Config:
    loaded = load_text(text, **environ)
    assert loaded.config is not None, render(loaded.diagnostics)
    return loaded.config


def codes(text: str | bytes, **environ: str) -> list[str]:
    return [found.code for found in load_text(text, **environ).diagnostics]


# The example


def test_the_example_loads_in_an_empty_environment_without_a_word() -> None:
    loaded = load_text(EXAMPLE)
    assert render(loaded.diagnostics) == ""
    assert loaded.config is not None


def test_every_default_is_what_the_example_shows() -> None:
    config = good(EXAMPLE)
    assert config.server == Server()
    assert config.cache == Cache()
    assert config.billing == Billing()
    assert config.auth.token_from == Auth().token_from
    # Checks of health are off where no path is given, so the example gives one.
    assert config.upstreams["api"].health.interval == Health().interval
    api = config.upstreams["api"].model_copy(update={"health": Health()})
    assert api == Upstream(targets=("http://127.0.0.1:9000",))
    left_out = good(MINIMAL.replace("default: public", "routes: [{path: /, access: public}]"))
    assert (config.database, config.redis, config.default) == (left_out.database, left_out.redis, left_out.default)


def test_the_example_says_what_its_comments_say() -> None:
    config = good(EXAMPLE)
    assert [tier.name for tier in config.tiers] == ["free", "pro", "enterprise"]
    assert (config.billing.renewal_leeway, config.billing.past_due_grace) == (48 * 3600, 72 * 3600)
    assert config.billing.pay_link_ttl == 3600
    assert config.auth.issuers[0].audience == ("my-api",)
    assert config.routes[3].methods == ("POST",)
    assert config.routes[3].upstream == "api"


def test_the_example_takes_the_environment_names_people_already_have() -> None:
    config = good(
        EXAMPLE,
        DATABASE_URL="postgres://gateway:swordfish@db/gateway",
        REDIS_URL="redis://cache:6379/0",
        PUBLIC_URL="https://api.example.com/",
        STRIPE_SECRET_KEY="sk_test_x",
        STRIPE_WEBHOOK_SECRET="whsec_a,whsec_b",
    )
    assert config.database.get_secret_value() == "postgresql://gateway:swordfish@db/gateway"
    assert config.redis.get_secret_value() == "redis://cache:6379/0"
    assert config.server.public_url == "https://api.example.com"
    assert config.billing.stripe.webhook_secrets.get_secret_value() == "whsec_a,whsec_b"
    assert "swordfish" not in repr(config) + str(config)


# Substitution


def test_a_plain_substitution_becomes_a_number_where_one_is_wanted_and_text_elsewhere() -> None:
    text = MINIMAL + "redis: redis://localhost\nserver:\n  workers: ${WORKERS:-2}\n  operator_token: ${TOKEN}\n"
    config = good(text, TOKEN="0123456789012345")
    assert config.server.workers == 2
    assert config.server.operator_token.get_secret_value() == "0123456789012345"
    assert good(text, TOKEN="x" * 20, WORKERS="3").server.workers == 3


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${X}", "x"),
        ("'a ${X} b ${X}'", "a x b x"),
        ("${UNSET:-a:-b}", "a:-b"),
        ("${EMPTY:-d}", "d"),
        ("'${EMPTY}'", ""),
        ("${EMPTY:-}", ""),
        ("$${X}", "${X}"),
        ("$$$${X}", "$${X}"),
        ("$$${X}", "$x"),
        ("a$", "a$"),
        ("5$", "5$"),
        ("${NESTED}", "${X} $$"),
        ("${file:/run/secrets/key}", "from a file"),
        ("${file:/run/secrets/two}", "a\n"),
        ("${file:/run/secrets/crlf}", "a"),
        ("${file:/empty}", ""),
        ('"${file:/run/secrets/key}!"', "from a file!"),
    ],
)
def test_a_substitution_gives_exactly_what_it_names(written: str, value: str) -> None:
    text = f"{MINIMAL}billing:\n  stripe:\n    webhook_secrets: {written}\n"
    loaded = load_text(text, X="x", EMPTY="", NESTED="${X} $$")
    assert loaded.config is not None, render(loaded.diagnostics)
    assert loaded.config.billing.stripe.webhook_secrets.get_secret_value() == value


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@settings(deadline=None, max_examples=100)
@example(value="\nserver: {workers: 9}")
@example(value="${OTHER}")
@example(value="null")
@example(value="*alias")
def test_a_variable_adds_nothing_to_a_file_but_one_text(value: str) -> None:
    text = f"{MINIMAL}auth:\n  issuers:\n    - issuer: demo\n      audience: ${{X}}\n      algorithms: [HS256]\n      secret: {'s' * 32}\n"
    loaded = load_text(text, X=value)
    if value:
        assert loaded.config is not None, render(loaded.diagnostics)
        assert loaded.config.auth.issuers[0].audience == (value,)
    else:
        assert [found.code for found in loaded.errors] == ["empty"]


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@settings(deadline=None, max_examples=100)
@example(value="no")
@example(value="1.10")
@example(value="0o17")
@example(value="${X}")
def test_a_quoted_text_with_doubled_dollars_is_read_as_it_was(value: str) -> None:
    quoted = yaml.safe_dump(value.replace("$", "$$"), default_style='"', width=10_000).strip()
    text = f"{MINIMAL}auth:\n  issuers:\n    - issuer: demo\n      audience: {quoted}\n      algorithms: [HS256]\n      secret: {'s' * 32}\n"
    assert good(text).auth.issuers[0].audience == (value,)


@pytest.mark.parametrize(
    "word", ["no", "on", "yes", "off", "y", "true", "1.10", "0o17", "1_000", "12:30:45", "1e3", "2024-01-01", "010"]
)
def test_a_word_that_yaml_would_turn_into_something_else_stays_as_it_is_written(word: str) -> None:
    assert good(f"{MINIMAL}tiers: [{{name: free, features: [{word}]}}]\n").tiers[0].features == (word,)


EVERYWHERE = """
version: 1
server:
  listen: "${LEAK}"
  operator: "${LEAK}"
  operator_token: "${LEAK}"
  signing_key: "${LEAK}"
  public_url: "${LEAK}"
  trusted_proxies: ["${LEAK}"]
  cors_origins: ["${LEAK}"]
  drain: "${LEAK}"
  workers: ${LEAK}
database: "${LEAK}"
redis: "${LEAK}"
cache: {max_ttl: "${LEAK}", max_entries: "${LEAK}"}
upstreams:
  api: {targets: ["${LEAK}", "${LEAK}"], host: "${LEAK}", headers: {X-Key: "${LEAK}"}, forward_token: "${LEAK}"}
  two: {targets: ["http://10.0.0.1"]}
auth:
  token_from: ["${LEAK}", "${LEAK}"]
  issuers:
    - {issuer: "${LEAK}", audience: "${LEAK}", algorithms: [RS256], jwks_url: "${LEAK}", customer: "${LEAK}"}
    - {issuer: "${LEAK}", audience: [a], algorithms: ["${LEAK}", RS256], discovery: true, secret: "${LEAK}"}
    - {issuer: b, audience: [a], algorithms: [HS512], secret: "${LEAK}", public_key: "${LEAK}", customer: "${LEAK}"}
tiers:
  - {name: first, prices: ["${LEAK}"]}
  - {name: "${LEAK}", prices: ["${LEAK}"], features: ["${LEAK}", "${LEAK}"]}
  - {name: "${LEAK}", products: ["${LEAK}"], features: ["${LEAK}"]}
billing:
  stripe: {secret_key: "${LEAK}", webhook_secrets: "${LEAK}", api_base: "${LEAK}"}
  renewal_leeway: "${LEAK}"
  success_url: "${LEAK}"
routes:
  - {path: "${LEAK}", methods: ["${LEAK}", "${LEAK}"], host: "${LEAK}", tier: "${LEAK}", spelling: "${LEAK}"}
  - {path: /a, features: ["${LEAK}", "${LEAK}"], upstream: "${LEAK}"}
  - {path: "${LEAK}", access: "${LEAK}"}
  - {path: "${LEAK}", access: public}
default: "${LEAK}"
"""


@pytest.mark.parametrize(
    "value",
    [
        "swordfish", "SWORDFISH!", "/swordfish/{swordfish}/{swordfish}", "/:swordfish", "http://swordfish/swordfish?swordfish",
        "https://SWORDFISH:443", "swordfish://u:swordfish@h", "127.0.0.1:swordfish", "swordfish:80", "{swordfish", "{iss}|{swordfish}",
        "fd00::dead:beef/8", "cookie:swordfish ", "pk_swordfish", "prod_swordfish", "swordfish\r\n", "x" * 500 + "swordfish", "authenticatedd",
    ],
)  # fmt: skip
def test_no_message_takes_apart_what_a_variable_holds(value: str) -> None:
    loaded = load_text(EVERYWHERE, LEAK=value)
    assert len(loaded.errors) > 10
    rendered = render(loaded.diagnostics).lower()
    for part in ("swordfish", "dead:beef", "fd00::/8", "authenticatedd", "did you mean"):
        assert part not in rendered or (part == "fd00::/8" and "such as" in rendered)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (FileNotFoundError(2, "No such file or directory"), "can't be read: No such file or directory"),
        (PermissionError(13, "Permission denied"), "can't be read: Permission denied"),
        (OSError(), "can't be read: OSError"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "can't be read: it is not UTF-8"),
        (ValueError("embedded null byte"), "can't be read: this is not the name of a file"),
    ],
)
def test_a_secret_file_that_cant_be_read_is_a_problem_like_any_other(problem: Exception, told: str) -> None:
    def fail(path: str) -> str:
        raise problem

    loaded = load(MINIMAL + "database: ${file:/run/secrets/x}\n", file="f", environ={}, read_file=fail)
    (found,) = loaded.diagnostics
    assert (found.line, found.column, found.code) == (4, 11, "unreadable-file")
    assert told in found.message


# Anything at all


def check_is_an_answer(loaded: Loaded, text: str | bytes) -> None:
    has_error = any(found.severity is Severity.ERROR for found in loaded.diagnostics)
    assert (loaded.config is None) == has_error
    lines = len(text.splitlines()) + 1
    for found in loaded.diagnostics:
        assert 1 <= found.line <= lines + 1
        assert found.column >= 1
        assert "\n" not in str(found)
        found.as_github_annotation().encode()
        str(found).encode()
    assert list(loaded.diagnostics) == sorted(loaded.diagnostics)


@given(text=st.text())
@settings(deadline=None, max_examples=300)
@example(text="\ud800")
@example(text='a: "\\ud800"')
@example(text='"\\ud800": a')
@example(text='a: "\\UFFFFFFFF"')
@example(text="%YAML " + "1" * 5000 + ".1\n---\na: b")
@example(text="\x00")
@example(text="? [a]\n: b")
@example(text="? {a: b}\n: *x\n")
@example(text="[" * 20_000)
@example(text="{a: " * 20_000)
@example(text="- " * 5_000)
@example(text="a: &a [*a]")
@example(text="!<x> a: b")
@example(text="upstreams: {upstreams: {upstreams: {}}}")
def test_no_text_makes_it_raise(text: str) -> None:
    check_is_an_answer(load_text(text), text)


@given(data=st.binary())
@settings(deadline=None, max_examples=200)
@example(data=b"\xff\xfe\x00")
@example(data=b"a: \xc3")
def test_no_bytes_make_it_raise(data: bytes) -> None:
    check_is_an_answer(load_text(data), data)


KEYS = [*Config.model_fields, *Server.model_fields, "api", "targets", "headers", "timeouts", "issuers", "issuer", "audience",
        "algorithms", "secret", "jwks_url", "customer", "name", "prices", "features", "path", "tier", "access", "methods", "stripe"]  # fmt: skip
WORDS = ["1", "true", "no", "", "~", "pro", "/a/{b}", "/**", "GET", "get", "public", "30s", "-1s", "http://127.0.0.1:9000", "${X}",
         "${X:-y}", "${", "$$", "{iss}|{sub}", "RS256", "HS256", "0.0.0.0:1", "[::1]:65536", "http://[", "sqlite://x", "redis://[", "é\u2028"]  # fmt: skip
TREES = st.recursive(
    st.sampled_from(WORDS) | st.none() | st.booleans() | st.integers() | st.floats() | st.dates(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.sampled_from(KEYS), children, max_size=6),
    max_leaves=30,
)


@given(
    tree=st.dictionaries(st.sampled_from(list(Config.model_fields)), TREES, max_size=11), value=st.sampled_from(WORDS)
)
@settings(deadline=None, max_examples=300)
def test_no_tree_of_known_keys_makes_it_raise(tree: dict[str, Any], value: str) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    check_is_an_answer(load_text(text, X=value), text)


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_no_mutilation_of_the_example_makes_it_raise_or_is_loaded_in_part(seed: int) -> None:
    choose = random.Random(seed)
    lines = EXAMPLE.splitlines(keepends=True)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(lines))
        match choose.randrange(4):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, choose.choice(lines))
            case 2:
                cut = choose.randrange(len(lines[at]))
                lines[at] = lines[at][:cut] + choose.choice(string.printable) + lines[at][cut + 1 :]
            case _:
                lines[at] = "  " * choose.randint(0, 3) + lines[at].lstrip()
    text = "".join(lines)
    check_is_an_answer(load_text(text), text)


def test_text_and_its_utf_8_are_read_alike() -> None:
    for text in (EXAMPLE, EXAMPLE.replace("\n", "\r\n"), MINIMAL + "# é\nx: ü\n"):
        assert load_text(text).diagnostics == load_text(text.encode()).diagnostics


def test_a_file_of_ten_thousand_routes_is_within_its_bounds() -> None:
    routes = "".join(f"  - {{path: '/things{number}/{{id}}', access: public}}\n" for number in range(10_000))
    config = good(MINIMAL.replace("default: public\n", "") + "routes:\n" + routes)
    assert len(config.routes) == 10_000


def test_a_file_too_large_to_be_meant_is_refused_unread() -> None:
    assert codes("#" * (4 << 20) + "\n") == ["too-large"]


@pytest.mark.parametrize(
    "line",
    [
        "cache: {max_ttl: " + "9" * 1_500_000 + "s}",
        "cache: {max_entries: " + "9" * 1_000_000 + "}",
        "server: {listen: 'a:" + "9" * 1_000_000 + "'}",
        "server: {public_url: 'http://" + "a." * 500_000 + "'}",
        "server: {public_url: 'http://h:" + "9" * 1_000_000 + "'}",
        "server: {trusted_proxies: ['" + "1" * 1_000_000 + "', '1.1.1.1/" + "1" * 100_000 + "']}",
        "database: 'postgresql://h:" + "9" * 1_000_000 + "/x'",
        "redis: 'redis://h:" + "9" * 1_000_000 + "/x'",
        "routes: [{access: public, path: '" + "/{a}" * 250_000 + "'}]",
    ],
    ids=lambda line: line[:28],
)
def test_one_enormous_value_is_refused_in_a_line_that_can_be_read(line: str) -> None:
    loaded = load_text(f"version: 1\nupstreams: {{api: {{targets: ['http://127.0.0.1:9000']}}}}\n{line}\n")
    assert loaded.errors
    assert all(len(str(found)) < 400 for found in loaded.diagnostics)


def test_a_thousandfold_alias_is_not_followed() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    assert {"alias", "anchor"} <= set(codes(bomb))


def test_problems_found_later_can_be_put_at_their_line() -> None:
    loaded = load_text(EXAMPLE)
    lines = EXAMPLE.splitlines()
    mark = loaded.positions.value("routes", 2, "tier")
    assert lines[mark.line - 1][mark.column - 1 :].startswith("pro")
    assert lines[loaded.positions.key("routes", 2, "tier").line - 1].lstrip().startswith("tier:")
    assert loaded.positions.value("routes", 99).line == loaded.positions.value("routes").line


def test_the_demo_secret_is_accepted_where_nobody_else_can_come() -> None:
    issuer = (
        "auth:\n  issuers:\n    - {issuer: 'https://demo.example/', audience: demo, algorithms: [HS256], "
        f"secret: {DEMO_TOKEN_SECRET}}}\n"
    )
    assert codes(MINIMAL + issuer) == ["demo-secret"]
    assert codes(MINIMAL + issuer + "server: {listen: '127.0.0.1:8080'}\n") == []
    assert codes(MINIMAL + issuer + "server: {listen: '[::1]:8080'}\n") == []
    assert codes(MINIMAL + issuer + "server: {listen: '10.0.0.1:8080'}\n") == ["demo-secret"]
