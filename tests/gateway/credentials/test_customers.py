"""Which customer a token names, and that no two sets of claims name the same one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.credentials.customers import CustomerRule, compile_customer
from gateway.credentials.outcomes import Flaw, Unauthenticated

ISSUER = "https://login.example.com/"


def rule(setting: str, issuer: str = ISSUER) -> CustomerRule:
    compiled = compile_customer(setting, issuer)
    assert isinstance(compiled, CustomerRule), compiled
    return compiled


@pytest.mark.parametrize(
    ("setting", "claims", "customer"),
    [
        ("sub", {"sub": "alice"}, "alice"),
        ("org_id", {"sub": "alice", "org_id": "acme"}, "acme"),
        ("app.org.id", {"app": {"org": {"id": "acme"}}}, "acme"),
        ("app.org.id", {"app.org.id": "literal", "app": {"org": {"id": "nested"}}}, "literal"),
        ("https://acme.com/org", {"https://acme.com/org": "acme"}, "acme"),
        ("{iss}|{sub}", {"sub": "alice"}, f"{ISSUER}|alice"),
        ("{sub}", {"sub": "alice"}, "alice"),
        ("acme:{sub}", {"sub": "alice"}, "acme:alice"),
        ("{sub}@{iss}", {"sub": "alice@home"}, f"alice@home@{ISSUER}"),
        ("{app.org}/{sub}", {"app": {"org": "acme"}, "sub": "a/b"}, "acme/a/b"),
        ("{sub}-{sub}", {"sub": "a"}, "a-a"),
    ],
)
def test_a_claim_or_a_template_names_the_customer(setting: str, claims: dict[str, Any], customer: str) -> None:
    assert rule(setting).customer(claims) == customer
    inverse = rule(setting).claims_for(customer)
    assert inverse is not None
    assert rule(setting).customer(inverse) == customer


@pytest.mark.parametrize(
    ("setting", "claims"),
    [
        ("sub", {}),
        ("sub", {"sub": None}),
        ("sub", {"sub": 42}),
        ("sub", {"sub": ""}),
        ("sub", {"sub": {"a": "b"}}),
        ("app.org", {"app": "acme"}),
        ("app.org", {"app": ["org"]}),
        ("app.org", {"app": {}}),
        ("app.org", {"app": {"org": {"id": "deeper"}}}),
        ("acme:{sub}", {"sub": ""}),
        ("acme:{sub}", {"sub": "a" * 251}),
        ("{org}|{sub}", {"org": "a|b", "sub": "c"}),
        ("{org}|{sub}", {"org": "a"}),
        ("{org}||{sub}", {"org": "a|", "sub": "b"}),
    ],
)
def test_claims_that_name_nobody_are_refused(setting: str, claims: dict[str, Any]) -> None:
    assert isinstance(rule(setting).customer(claims), Unauthenticated)


@pytest.mark.parametrize(
    "setting", ["{", "}", "{}", "{sub", "sub}", "a{sub}}", "{{sub}}", "{a}{b}", "iss", "{iss}", "x{iss}y"]
)
def test_a_template_that_can_not_tell_people_apart_is_a_flaw(setting: str) -> None:
    assert isinstance(compile_customer(setting, ISSUER), Flaw)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (rule("sub"), rule("sub"), True),
        (rule("acme:{sub}"), rule("sub"), True),
        (rule("acme:{sub}"), rule("beta:{sub}"), False),
        (rule("a:{sub}"), rule("a:b:{sub}"), True),
        (rule("{iss}|{sub}", "https://a/"), rule("{iss}|{sub}", "https://b/"), False),
        (rule("{iss}|{sub}", "https://a"), rule("{iss}|{sub}", "https://a/b"), False),
        (rule("{sub}@{iss}", "https://a"), rule("{sub}@{iss}", "https://b"), False),
        (rule("{sub}@a"), rule("x:{sub}"), True),
    ],
)
def test_rules_that_could_name_one_customer_for_two_people_are_known(
    one: CustomerRule, other: CustomerRule, overlap: bool
) -> None:
    assert one.overlaps(other) is overlap
    assert other.overlaps(one) is overlap


words = st.text(alphabet="ab|", min_size=1, max_size=5)


@given(words, words, words, words, st.sampled_from(["{a}|{b}", "{a}||{b}", "{a}|a|{b}", "|{a}|{b}|"]))
def test_different_claims_never_name_one_customer(a1: str, b1: str, a2: str, b2: str, template: str) -> None:
    compiled = rule(template)
    first = compiled.customer({"a": a1, "b": b1})
    second = compiled.customer({"a": a2, "b": b2})
    if isinstance(first, str) and first == second:
        assert (a1, b1) == (a2, b2)
        assert compiled.claims_for(first) == {"a": a1, "b": b1}


@pytest.mark.parametrize(
    ("setting", "customer"), [("acme:{sub}", "beta:alice"), ("ab{sub}bc", "abc"), ("{a}|{b}", "a"), ("{a}-{a}", "a-b")]
)
def test_a_customer_that_no_token_could_name_has_no_claims(setting: str, customer: str) -> None:
    assert rule(setting).claims_for(customer) is None
