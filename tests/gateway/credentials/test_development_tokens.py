"""A token that `gateway token` makes is one that the gateway takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from gateway.credentials import Authenticated, Authenticator, MintProblem, mint_development_token
from policies.schema import Auth, Issuer
from tests.support import tokens
from tests.support.tokens import NOW, bearer


def issuer(**settings: Any) -> Issuer:
    given = {
        "issuer": tokens.ISSUER,
        "audience": ("my-api", "other"),
        "algorithms": ("HS256",),
        "secret": SecretStr(tokens.SECRET),
    }
    return Issuer(**{**given, **settings})


@pytest.mark.parametrize(
    ("setting", "customer"),
    [
        ("sub", "alice"),
        ("sub", "Jürgen, the 2nd"),
        ("org_id", "acme"),
        ("app.org.id", "acme"),
        ("https://example.com/org.id", "acme"),
        ("acme:{sub}", "acme:alice"),
        ("{iss}|{sub}", f"{tokens.ISSUER}|alice"),
        ("{org.id}/{org.team}/{sub}", "acme/blue/alice/b"),
    ],
)
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_token_names_the_customer(setting: str, customer: str, algorithm: str) -> None:
    entry = issuer(customer=setting, algorithms=(algorithm,))
    token = mint_development_token(entry, customer=customer, lifetime_seconds=60, now=NOW + 0.7)
    assert isinstance(token, str), token
    outcome = Authenticator(Auth(issuers=(entry,)), now=lambda: NOW + 1).authenticate(bearer(token))
    assert isinstance(outcome, Authenticated), outcome
    assert (outcome.caller.customer, outcome.caller.expires_at) == (customer, NOW + 60)


@pytest.mark.parametrize(
    ("settings", "customer", "lifetime", "detail"),
    [
        ({"secret": None, "algorithms": ("RS256",), "jwks_url": "https://a/jwks"}, "alice", 60, "only the issuer has"),
        ({"secret": SecretStr("short")}, "alice", 60, "32 or more are needed"),
        ({}, "", 60, "is empty"),
        ({}, "a\nb", 60, "can't be printed"),
        ({}, "a" * 256, 60, "longer than 255"),
        ({}, "alice", 0, "at least a second"),
        ({}, "alice", -5, "at least a second"),
        ({}, "alice", 10**12, "at most ten years"),
        ({"customer": "acme:{sub}"}, "alice", 60, "No token of"),
        ({"customer": "acme:{sub}"}, "acme:", 60, "No token of"),
        ({"customer": "{a}|{sub}"}, "|alice", 60, "would refuse it"),
        ({"customer": "sub.id"}, "alice", 60, "would refuse it"),
        ({"customer": "aud"}, "theirs", 60, "lead to another customer"),
    ],
)
def test_a_token_that_would_be_refused_is_not_made(
    settings: dict[str, Any], customer: str, lifetime: int, detail: str
) -> None:
    outcome = mint_development_token(issuer(**settings), customer=customer, lifetime_seconds=lifetime, now=NOW)
    assert isinstance(outcome, MintProblem)
    assert detail in outcome.detail
    assert "short" not in outcome.detail
