"""What gateway.yaml says of one issuer's tokens: their types, age, claims and places, each for that issuer alone."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from gateway.credentials import Authenticated, Authenticator, MintProblem, Unauthenticated, mint_development_token
from policies.reasons import Reason
from policies.schema import Auth, Issuer
from tests.support import tokens
from tests.support.fetched_keys import Clock
from tests.support.tokens import NOW, bearer, claims, sign

OTHER = "https://other.example.com/"


def issuer(name: str = tokens.ISSUER, **settings: Any) -> Issuer:
    secret = SecretStr(tokens.SECRET)
    return Issuer(
        issuer=name, audience=("my-api",), algorithms=("HS256",), secret=secret, shared_customers=True, **settings
    )


def authenticator(*issuers: Issuer, token_from: tuple[str, ...] = ("header",), now: Any = lambda: NOW) -> Authenticator:
    return Authenticator(Auth(issuers=issuers, token_from=token_from), now=now)


def refusal(outcome: Authenticated | Unauthenticated) -> str:
    assert isinstance(outcome, Unauthenticated), outcome
    assert outcome.reason is Reason.TOKEN_INVALID
    return outcome.detail


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_a_type_is_compared_as_media_types_are(typ: str) -> None:
    subject = authenticator(issuer(types=("application/at+jwt",)))
    assert isinstance(subject.authenticate(bearer(sign(claims(), typ=typ))), Authenticated)


@pytest.mark.parametrize("typ", ["JWT", None, "id+jwt", "", "application/", "at+jwt ", "at%2bjwt"])
def test_where_access_tokens_are_asked_for_no_other_type_will_do_and_none_is_jwt(typ: str | None) -> None:
    subject = authenticator(issuer(types=("at+jwt",)))
    assert "type" in refusal(subject.authenticate(bearer(sign(claims(), typ=typ))))


def test_a_type_of_ones_own_can_be_asked_for() -> None:
    subject = authenticator(issuer(types=("entitlement+jwt",)), issuer(OTHER))
    assert isinstance(subject.authenticate(bearer(sign(claims(), typ="entitlement+jwt"))), Authenticated)
    refusal(subject.authenticate(bearer(sign(claims(iss=OTHER), typ="entitlement+jwt"))))


def test_a_token_older_than_max_age_has_expired_whatever_its_exp() -> None:
    subject = authenticator(issuer(max_age=3600.0))
    young = subject.authenticate(bearer(sign(claims(iat=NOW - 3599, exp=NOW + 86400))))
    old = subject.authenticate(bearer(sign(claims(iat=NOW - 3600, exp=NOW + 86400))))
    assert isinstance(young, Authenticated)
    assert isinstance(old, Unauthenticated)
    assert old.reason is Reason.TOKEN_EXPIRED


def test_a_remembered_token_ends_with_its_max_age_and_not_with_its_exp() -> None:
    clock = Clock()
    subject = authenticator(issuer(max_age=600.0), now=clock)
    headers = bearer(sign(claims(iat=NOW - 60, exp=NOW + 86400)))
    first = subject.authenticate(headers)
    assert isinstance(first, Authenticated)
    assert first.caller.expires_at == NOW + 540
    clock.at = NOW + 539.9
    assert isinstance(subject.authenticate(headers), Authenticated)
    clock.at = NOW + 540
    for _ in range(2):
        outcome = subject.authenticate(headers)
        assert isinstance(outcome, Unauthenticated)
        assert outcome.reason is Reason.TOKEN_EXPIRED


def test_an_exp_before_max_age_still_ends_the_token() -> None:
    outcome = authenticator(issuer(max_age=3600.0)).authenticate(bearer(sign(claims(exp=NOW + 5))))
    assert isinstance(outcome, Authenticated)
    assert outcome.caller.expires_at == NOW + 5


@pytest.mark.parametrize("iat", [None, NOW + 61, str(NOW), True, -(10**20)])
def test_with_max_age_a_token_that_hides_its_age_is_refused(iat: object) -> None:
    outcome = authenticator(issuer(max_age=3600.0)).authenticate(bearer(sign(claims(iat=iat, nbf=NOW))))
    assert isinstance(outcome, Unauthenticated)


@pytest.mark.parametrize(
    ("leeway", "ahead", "passes"), [(0.0, 0, True), (0.0, 1, False), (300.0, 300, True), (300.0, 301, False)]
)
@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_leeway_is_how_far_a_clock_may_be_ahead(name: str, leeway: float, ahead: int, passes: bool) -> None:
    subject = authenticator(issuer(leeway=leeway))
    outcome = subject.authenticate(bearer(sign(claims(**{name: NOW + ahead}))))
    assert isinstance(outcome, Authenticated) is passes


def test_leeway_never_makes_a_token_last_longer() -> None:
    outcome = authenticator(issuer(leeway=600.0)).authenticate(bearer(sign(claims(exp=NOW))))
    assert isinstance(outcome, Unauthenticated)
    assert outcome.reason is Reason.TOKEN_EXPIRED


ASKED = {"tid": ("acme", "7"), "email_verified": ("true",), "app.roles": ("caller",)}
HELD = {"tid": "acme", "email_verified": True, "app": {"roles": ["other", "caller"]}}


@pytest.mark.parametrize(
    "change", [{}, {"tid": 7}, {"tid": ["x", "acme"]}, {"email_verified": "true"}, {"app.roles": "caller"}]
)
def test_a_token_that_holds_what_is_asked_of_its_issuer_passes(change: dict[str, Any]) -> None:
    token = sign(claims(**{**HELD, **change}))
    assert isinstance(authenticator(issuer(claims=ASKED)).authenticate(bearer(token)), Authenticated)


@pytest.mark.parametrize(
    "change",
    [
        {"tid": None}, {"tid": "Acme"}, {"tid": "acme "}, {"tid": "acme,7"}, {"tid": []}, {"tid": {"acme": 1}}, {"tid": 7.0},
        {"email_verified": False}, {"email_verified": 1}, {"email_verified": None},
        {"app": {}}, {"app": "caller"}, {"app": {"roles": [["caller"]]}}, {"app.roles": "other"},
    ],
)  # fmt: skip
def test_a_token_that_lacks_what_is_asked_of_its_issuer_is_refused(change: dict[str, Any]) -> None:
    """Entra signs for every tenant with one set of keys, Google for every domain: `iss` and `aud` don't tell them apart."""
    token = sign(claims(**{**HELD, **change}))
    detail = refusal(authenticator(issuer(claims=ASKED)).authenticate(bearer(token)))
    assert "claim '" in detail
    assert "acme" not in detail.lower()


def test_what_one_issuer_is_asked_is_not_asked_of_another() -> None:
    subject = authenticator(issuer(claims=ASKED), issuer(OTHER))
    assert isinstance(subject.authenticate(bearer(sign(claims(iss=OTHER)))), Authenticated)


class TestPlaces:
    """`token_from` of an issuer: a token that the web app keeps in a cookie isn't a bearer token, nor the reverse."""

    AUTH = (
        issuer(token_from=("cookie:session",)),
        issuer(OTHER),
        issuer("https://q.example.com/", token_from=("query:t", "header")),
    )

    @staticmethod
    def ask(subject: Authenticator, token: str, *places: str) -> Authenticated | Unauthenticated:
        headers = bearer(token) if "header" in places else []
        headers += [(b"cookie", b"session=" + token.encode())] if "cookie" in places else []
        return subject.authenticate(headers, b"t=" + token.encode() if "query" in places else b"")

    @pytest.mark.parametrize(
        ("name", "places", "taken_from"),
        [
            (tokens.ISSUER, ["cookie"], "cookie"),
            (tokens.ISSUER, ["header"], None),
            (tokens.ISSUER, ["query"], None),
            (tokens.ISSUER, ["header", "cookie"], "cookie"),
            (OTHER, ["header"], "header"),
            (OTHER, ["cookie"], None),
            (OTHER, ["query"], None),
            ("https://q.example.com/", ["query"], "query"),
            ("https://q.example.com/", ["query", "header"], "header"),
            ("https://q.example.com/", ["cookie"], None),
        ],
    )
    def test_a_token_is_taken_from_its_issuers_places_only(
        self, name: str, places: list[str], taken_from: str | None
    ) -> None:
        subject = authenticator(*self.AUTH)
        for _ in range(2):  # the second time it is remembered
            outcome = self.ask(subject, sign(claims(iss=name)), *places)
            if taken_from is None:
                assert "token_from" in refusal(outcome)
            else:
                assert isinstance(outcome, Authenticated)
                assert outcome.source.kind == taken_from

    def test_a_token_remembered_from_its_place_is_not_taken_from_another(self) -> None:
        subject = authenticator(*self.AUTH)
        token = sign(claims())
        assert isinstance(self.ask(subject, token, "cookie"), Authenticated)
        refusal(self.ask(subject, token, "header"))
        assert isinstance(self.ask(subject, token, "cookie"), Authenticated)

    def test_two_tokens_in_places_of_different_issuers_are_still_two_credentials(self) -> None:
        headers = [*bearer(sign(claims(iss=OTHER))), (b"cookie", b"session=" + sign(claims()).encode())]
        outcome = authenticator(*self.AUTH).authenticate(headers)
        assert isinstance(outcome, Unauthenticated)
        assert outcome.reason is Reason.BAD_REQUEST


def test_a_development_token_meets_what_is_asked_of_its_issuer() -> None:
    entry = issuer(claims=ASKED, types=("at+jwt",), max_age=600.0, token_from=("cookie:session",))
    token = mint_development_token(entry, customer="alice", lifetime_seconds=3600, now=NOW)
    assert not isinstance(token, MintProblem)
    outcome = authenticator(entry).authenticate([(b"cookie", b"session=" + token.encode())])
    assert isinstance(outcome, Authenticated)
    assert outcome.caller.customer == "alice"


@pytest.mark.parametrize("sub", ["", "a\0b", "x" * 256, 7, None, ["a"]])
def test_where_another_claim_names_the_customer_a_sub_that_names_nobody_is_refused_all_the_same(sub: object) -> None:
    subject = authenticator(issuer(customer="org_id"))
    token = tokens.forge({"alg": "HS256"}, {**claims(org_id="acme"), "sub": sub})
    assert "'sub'" in refusal(subject.authenticate(bearer(token)))
    assert isinstance(subject.authenticate(bearer(sign(claims(org_id="acme", sub=None)))), Authenticated)
