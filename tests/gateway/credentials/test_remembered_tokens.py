"""A verified token is known again, but by all its bytes, not for longer than it lives, and not without bound."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from gateway.credentials import Authenticated, Authenticator, Unauthenticated
from gateway.credentials import issuers as issuers_module
from gateway.credentials.compact import Compact
from gateway.credentials.keys import VerificationKey
from policies.reasons import Reason
from policies.schema import Auth, Issuer
from tests.support import tokens
from tests.support.fetched_keys import Clock
from tests.support.tokens import NOW, bearer, claims, sign


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The tokens whose signature was computed, in order."""
    seen: list[bytes] = []
    real = issuers_module.signature_fits

    def counting(token: Compact, key: VerificationKey) -> bool:
        seen.append(token.token)
        return real(token, key)

    monkeypatch.setattr(issuers_module, "signature_fits", counting)
    return seen


def authenticator(clock: Clock, *, remembered_tokens: int = 100) -> Authenticator:
    entry = Issuer(issuer=tokens.ISSUER, audience=("my-api",), algorithms=("HS256",), secret=SecretStr(tokens.SECRET))
    auth = Auth(issuers=(entry,), token_from=("header", "cookie:session"))
    return Authenticator(auth, now=clock, remembered_tokens=remembered_tokens)


def test_a_token_is_verified_once(clock: Clock, verifications: list[bytes]) -> None:
    subject = authenticator(clock)
    token = sign(claims())
    outcomes = [subject.authenticate(bearer(token)) for _ in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert isinstance(outcomes[0], Authenticated)
    assert len(verifications) == 1


def test_a_remembered_token_expires_to_the_second(clock: Clock) -> None:
    subject = authenticator(clock)
    headers = bearer(sign(claims(exp=NOW + 60)))
    assert isinstance(subject.authenticate(headers), Authenticated)
    clock.at = NOW + 59.999
    assert isinstance(subject.authenticate(headers), Authenticated)
    clock.at = NOW + 60
    for _ in range(2):
        outcome = subject.authenticate(headers)
        assert isinstance(outcome, Unauthenticated)
        assert outcome.reason is Reason.TOKEN_EXPIRED
    assert not subject._remembered


def test_a_refused_token_is_not_remembered(clock: Clock) -> None:
    subject = authenticator(clock)
    subject.authenticate(bearer(sign(claims(aud="theirs"))))
    subject.authenticate(bearer(sign(claims(), tokens.SECRET_KEY[::-1])))
    assert not subject._remembered


def test_another_spelling_of_a_remembered_token_is_another_token(clock: Clock) -> None:
    subject = authenticator(clock)
    token = sign(claims())
    assert isinstance(subject.authenticate(bearer(token)), Authenticated)
    for other in (token + "=", token + "==", token + ".", token[:-1], token.upper()):
        assert isinstance(subject.authenticate(bearer(other)), Unauthenticated)


def test_the_place_is_that_of_this_request_and_not_of_the_first(clock: Clock, verifications: list[bytes]) -> None:
    subject = authenticator(clock)
    token = sign(claims())
    in_header = subject.authenticate(bearer(token))
    in_cookie = subject.authenticate([(b"cookie", b"session=" + token.encode())])
    assert isinstance(in_header, Authenticated)
    assert isinstance(in_cookie, Authenticated)
    assert (in_header.source.kind, in_cookie.source.kind) == ("header", "cookie")
    assert in_header.caller == in_cookie.caller
    assert len(verifications) == 1


def test_the_tokens_used_longest_ago_are_forgotten_first(clock: Clock, verifications: list[bytes]) -> None:
    subject = authenticator(clock, remembered_tokens=2)
    one, two, three = (sign(claims(sub=name)) for name in ("one", "two", "three"))
    for token in (one, two, one, three, one, two):
        assert isinstance(subject.authenticate(bearer(token)), Authenticated)
    assert verifications == [token.encode() for token in (one, two, three, two)]
    assert len(subject._remembered) == 2


def test_no_token_is_held_in_memory(clock: Clock) -> None:
    subject = authenticator(clock)
    token = sign(claims())
    subject.authenticate(bearer(token))
    held = repr(subject._remembered)
    assert all(part not in held for part in token.split("."))
    assert [len(digest) for digest in subject._remembered] == [32]


def test_without_issuers_no_token_is_trusted(clock: Clock) -> None:
    subject = Authenticator(Auth(), now=clock)
    outcome = subject.authenticate(bearer(sign(claims())))
    assert isinstance(outcome, Unauthenticated)
    assert outcome.reason is Reason.TOKEN_INVALID
    assert subject.health() == ()
