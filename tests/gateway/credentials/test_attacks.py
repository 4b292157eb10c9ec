"""Every token here is an attack or a mistake, and none of them passes (P8; checks A18 to A20 and A22)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.credentials import Authenticated, Authenticator, Unauthenticated
from gateway.credentials.compact import Compact, take_apart
from policies.reasons import Reason
from policies.schema import Auth, Issuer
from tests.support import tokens
from tests.support.tokens import NOW, b64, bearer, claims, forge, sign

HS_ISSUER = "https://hs.example.com/"
EC_ISSUER = "https://ec.example.com/"

GOOD_HEADER = {"alg": "HS256", "typ": "JWT"}


def authenticator(now: Callable[[], float] = lambda: NOW) -> Authenticator:
    """Three issuers: HS256 with a secret, RS256 with a PEM, ES256 with a JWK of key id 'ec-1'."""
    ec_jwk = json.dumps(tokens.public_jwk(tokens.ec_key(), "ec-1"))
    issuers = (
        Issuer(issuer=HS_ISSUER, audience=("my-api",), algorithms=("HS256",), secret=SecretStr(tokens.SECRET)),
        Issuer(
            issuer=tokens.ISSUER,
            audience=("my-api",),
            algorithms=("RS256",),
            public_key=tokens.public_pem(tokens.rsa_key()),
            customer="rs:{sub}",
        ),
        Issuer(
            issuer=EC_ISSUER,
            audience=("my-api", "other"),
            algorithms=("ES256",),
            public_key=ec_jwk,
            customer="ec:{sub}",
        ),
    )
    shared = tuple(issuer.model_copy(update={"shared_customers": True}) for issuer in issuers)
    return Authenticator(Auth(issuers=shared), now=now)


def hs(**changes: Any) -> dict[str, Any]:
    return claims(iss=HS_ISSUER, **changes)


def judged(token: str | bytes) -> Authenticated | Unauthenticated:
    return authenticator().authenticate(bearer(token))


def good_parts() -> list[str]:
    return sign(hs()).split(".")


def swap_last_character(token: str) -> str:
    """Another spelling of the same bytes: the unused low bits of the last character are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


def as_raw(payload: dict[str, Any], addition: str) -> str:
    """The payload as JSON with members added that a dict could not hold twice."""
    return json.dumps(payload)[:-1] + f", {addition}}}"


def unsigned(algorithm: str) -> str:
    return f"{b64({'alg': algorithm})}.{b64(hs())}."


def typed(kind: object) -> str:
    return sign(hs(), typ=kind)


ALGORITHM_ATTACKS: dict[str, Callable[[], str]] = {
    **{
        f"alg {spelling!r} without a signature (CVE-2015-9235)": partial(unsigned, spelling)
        for spelling in ("none", "None", "NONE", "nOnE", " none", "")
    },
    "alg none with another's signature": lambda: f"{b64({'alg': 'none'})}.{b64(hs())}.{good_parts()[2]}",
    "no alg": lambda: forge({"typ": "JWT"}, hs()),
    "alg as a list": lambda: forge({"alg": ["HS256"]}, hs()),
    "alg null": lambda: forge({"alg": None}, hs()),
    "alg in lower case": lambda: forge({"alg": "hs256"}, hs()),
    "an algorithm of the right kind that is not pinned": lambda: sign(hs(), algorithm="HS512"),
    "PS256 where RS256 is pinned": lambda: sign(claims(), tokens.rsa_key(), "PS256"),
    "HS256 with the issuer's RSA public key as the secret (CVE-2016-5431, CVE-2022-29217)": lambda: forge_hmac(
        claims(), tokens.public_pem(tokens.rsa_key()).encode()
    ),
    "HS256 with another issuer's secret": lambda: sign(claims()),
    "RS256 with another key": lambda: sign(claims(), tokens.rsa_key("mallory"), "RS256"),
    "ES256 with another key of the same key id": lambda: sign(
        claims(iss=EC_ISSUER), tokens.ec_key("mallory"), "ES256", kid="ec-1"
    ),
    "RS256 in the header over an ES256 signature": lambda: forge({"alg": "RS256"}, claims(), tokens.ec_key(), "ES256"),
    "ES256 in the header over an RS256 signature": lambda: forge(
        {"alg": "ES256", "kid": "ec-1"}, claims(iss=EC_ISSUER), tokens.rsa_key(), "RS256"
    ),
    "an all-zero ECDSA signature (psychic signature, CVE-2022-21449)": lambda: (
        f"{b64({'alg': 'ES256', 'kid': 'ec-1'})}.{b64(claims(iss=EC_ISSUER))}.{b64(bytes(64))}"
    ),
    "ECDSA with r and s as the order of the curve (CVE-2022-21449)": lambda: (
        f"{b64({'alg': 'ES256', 'kid': 'ec-1'})}.{b64(claims(iss=EC_ISSUER))}.{b64(P256_ORDER.to_bytes(32, 'big') * 2)}"
    ),
    "an ECDSA signature in DER": lambda: as_der(sign(claims(iss=EC_ISSUER), tokens.ec_key(), "ES256", kid="ec-1")),
    "an ECDSA signature with a byte in front": lambda: longer(
        sign(claims(iss=EC_ISSUER), tokens.ec_key(), "ES256", kid="ec-1")
    ),
    "an RSA signature with a byte in front": lambda: longer(sign(claims(), tokens.rsa_key(), "RS256")),
    "HS256 with an empty secret (CVE-2019-20933)": lambda: forge_hmac(hs(), b""),
    "HS256 with the RSA public key less its last line feed": lambda: forge_hmac(
        claims(), tokens.public_pem(tokens.rsa_key()).strip().encode()
    ),
    "HS256 with the EC public key as the secret (CVE-2022-29217)": lambda: forge_hmac(
        claims(iss=EC_ISSUER), tokens.public_pem(tokens.ec_key()).encode()
    ),
    "ES256K where ES256 is pinned": lambda: forge(
        {"alg": "ES256K", "kid": "ec-1"}, claims(iss=EC_ISSUER), tokens.ec_key(), "ES256"
    ),
    "an issuer's good key under another issuer's name": lambda: sign(claims(iss=HS_ISSUER), tokens.rsa_key(), "RS256"),
}


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signature_of(token: str) -> tuple[str, bytes]:
    start, _, last = token.rpartition(".")
    return start, base64.urlsafe_b64decode(last + "==")


def as_der(token: str) -> str:
    start, signature = signature_of(token)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    return f"{start}.{b64(encode_dss_signature(r, s))}"


def longer(token: str) -> str:
    start, signature = signature_of(token)
    return f"{start}.{b64(bytes(1) + signature)}"


def forge_hmac(payload: dict[str, Any], secret: bytes) -> str:
    """PyJWT refuses to sign with a public key, so this one is made by hand."""
    import hashlib
    import hmac

    signing_input = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64(payload)}"
    return f"{signing_input}.{b64(hmac.new(secret, signing_input.encode(), hashlib.sha256).digest())}"


def spelled(change: Callable[[list[str]], str]) -> Callable[[], str]:
    return lambda: change(good_parts())


SHAPE_ATTACKS: dict[str, Callable[[], str]] = {
    "the signature is cut off with its dot": spelled(lambda p: f"{p[0]}.{p[1]}"),
    "the signature is empty": spelled(lambda p: f"{p[0]}.{p[1]}."),
    "the signature is half": spelled(lambda p: f"{p[0]}.{p[1]}.{p[2][:20]}"),
    "the payload is empty": spelled(lambda p: f"{p[0]}..{p[2]}"),
    "one part": spelled(lambda p: p[0]),
    "four parts": spelled(lambda p: ".".join([*p, "e30"])),
    "a dot at the end": spelled(lambda p: ".".join([*p, ""])),
    "five parts (JWE)": spelled(lambda p: ".".join([*p, "e30", "e30"])),
    "padding '=' at the end": spelled(lambda p: ".".join(p) + "="),
    "padding '==' at the end": spelled(lambda p: ".".join(p) + "=="),
    "padding in the payload": spelled(lambda p: f"{p[0]}.{p[1]}=.{p[2]}"),
    "a line feed at the end": spelled(lambda p: ".".join(p) + "\n"),
    "a carriage return and line feed inside": spelled(".\r\n".join),
    "a blank inside": spelled(lambda p: f"{p[0]}. {p[1]}.{p[2]}"),
    "NUL at the end": spelled(lambda p: ".".join(p) + "\0"),
    "unused bits of the signature set": spelled(lambda p: swap_last_character(".".join(p))),
    "unused bits of the header set": lambda: ".".join(
        [swap_last_character(b64('{"alg":"HS256" }')), *good_parts()[1:]]
    ),
    "standard base64 in place of base64url": lambda: (
        forge(GOOD_HEADER, hs(sub="alice", name="???>>>~~~")).replace("-", "+").replace("_", "/") + "+/"
    ),
    "JSON serialization": spelled(
        lambda p: json.dumps({"protected": p[0], "payload": p[1], "signature": p[2]}, separators=(",", ":"))
    ),
    "64 KiB of token": lambda: sign(hs(filler="x" * 65536)),
    "a token one byte too long": lambda: "x" * (16 * 1024 + 1),
    "two tokens joined by a comma": lambda: f"{sign(hs())},{sign(hs())}",
    "umlauts": lambda: "ä.ö.ü",
}

HEADER_ATTACKS: dict[str, Callable[[], str]] = {
    "crit (CVE-2026-32597, CVE-2025-59420)": lambda: sign(hs(), crit=["exp"], exp=NOW),
    "an empty crit": lambda: sign(hs(), crit=[]),
    "b64 false": lambda: sign(hs(), b64=False),
    "b64 true": lambda: sign(hs(), b64=True),
    "b64 false declared critical": lambda: sign(hs(), b64=False, crit=["b64"]),
    "jwk with the attacker's own key (CVE-2018-0114)": lambda: sign(
        claims(), tokens.rsa_key("mallory"), "RS256", jwk=tokens.public_jwk(tokens.rsa_key("mallory"))
    ),
    "jku on a good token": lambda: sign(hs(), jku="http://127.0.0.1:9/jwks"),
    "x5u on a good token": lambda: sign(hs(), x5u="http://127.0.0.1:9/cert"),
    "x5c on a good token": lambda: sign(hs(), x5c=["AAAA"]),
    "kid with a path": lambda: sign(claims(iss=EC_ISSUER), tokens.ec_key(), "ES256", kid="../../x"),
    "kid with SQL": lambda: sign(claims(iss=EC_ISSUER), tokens.ec_key(), "ES256", kid="' OR '1'='1"),
    "kid of 10 KiB": lambda: sign(claims(iss=EC_ISSUER), tokens.ec_key(), "ES256", kid="k" * 10240),
    "kid as a list": lambda: sign(hs(), kid=["ec-1"]),  # type: ignore[arg-type]
    "kid as a number": lambda: sign(hs(), kid=7),  # type: ignore[arg-type]
    "alg named twice": lambda: forge('{"alg":"none","alg":"HS256"}', hs()),
    "a header with a byte order mark": lambda: forge("\ufeff" + json.dumps(GOOD_HEADER), hs()),
    "a header in UTF-16": lambda: forge(json.dumps(GOOD_HEADER).encode("utf-16"), hs()),
    "a header that is a list": lambda: forge('["HS256"]', hs()),
    "a header nested without end": lambda: forge('{"alg":' + "[" * 5000 + "]" * 5000 + "}", "e30"),
    **{
        f"typ {kind!r}": partial(typed, kind)
        for kind in ("logout+jwt", "id+jwt", "JWE", "secevent+jwt", "dpop+jwt", "", 7, ["JWT"])
    },
}

PAYLOAD_ATTACKS: dict[str, Callable[[], str]] = {
    "no exp": lambda: sign(hs(exp=None)),
    "exp NaN": lambda: forge(GOOD_HEADER, as_raw(hs(exp=None), '"exp": NaN')),
    "exp Infinity": lambda: forge(GOOD_HEADER, as_raw(hs(exp=None), '"exp": Infinity')),
    "exp 1e400": lambda: forge(GOOD_HEADER, as_raw(hs(exp=None), '"exp": 1e400')),
    "exp null": lambda: forge(GOOD_HEADER, as_raw(hs(exp=None), '"exp": null')),
    "exp as a string": lambda: sign(hs(exp=str(NOW + 60))),
    "exp true": lambda: sign(hs(exp=True)),
    "exp as a list": lambda: sign(hs(exp=[NOW + 60])),
    "exp 10^30": lambda: sign(hs(exp=10**30)),
    "exp of 5000 digits": lambda: forge(GOOD_HEADER, as_raw(hs(exp=None), f'"exp": {"9" * 5000}')),
    "exp in milliseconds": lambda: sign(hs(exp=(NOW + 60) * 1000)),
    "exp eleven years ahead": lambda: sign(hs(exp=NOW + 11 * 366 * 86400)),
    "exp named twice": lambda: forge(GOOD_HEADER, as_raw(hs(exp=NOW - 60), f'"exp": {NOW + 60}')),
    "nbf ahead": lambda: sign(hs(nbf=NOW + 61)),
    "nbf as a string": lambda: sign(hs(nbf=str(NOW))),
    "nbf null": lambda: forge(GOOD_HEADER, as_raw(hs(), '"nbf": null')),
    "iat ahead": lambda: sign(hs(iat=NOW + 61)),
    "iat as a string": lambda: sign(hs(iat="now")),
    "no aud": lambda: sign(hs(aud=None)),
    "another aud": lambda: sign(hs(aud="their-api")),
    "aud in another case": lambda: sign(hs(aud="My-Api")),
    "aud that begins with ours": lambda: sign(hs(aud="my-api.evil")),
    "an empty list of aud": lambda: sign(hs(aud=[])),
    "a list of other auds": lambda: sign(hs(aud=["a", "b"])),
    "ours among auds that are no strings": lambda: sign(hs(aud=["my-api", 7])),
    "aud as an object": lambda: sign(hs(aud={"my-api": True})),
    "aud named twice": lambda: forge(GOOD_HEADER, as_raw(hs(aud="their-api"), '"aud": "my-api"')),
    "no iss": lambda: sign(claims(iss=None)),
    "a foreign iss": lambda: sign(claims(iss="https://evil.example.com/")),
    "iss without its slash": lambda: sign(claims(iss=HS_ISSUER.rstrip("/"))),
    "iss that begins with ours (GHSA-75c5-xw7c-p5pm)": lambda: sign(claims(iss=HS_ISSUER + ".evil")),
    "iss as a list": lambda: sign(claims(iss=[HS_ISSUER])),
    "iss as an object": lambda: sign(claims(iss={"a": 1})),
    "iss named twice": lambda: forge(
        GOOD_HEADER, as_raw(claims(iss="https://evil.example.com/"), f'"iss": "{HS_ISSUER}"')
    ),
    "no sub": lambda: sign(hs(sub=None)),
    "an empty sub": lambda: sign(hs(sub="")),
    "sub with NUL": lambda: sign(hs(sub="alice\0admin")),
    "sub with a line feed": lambda: sign(hs(sub="alice\r\nX-Gateway-Tier: enterprise")),
    "sub with a bidirectional override": lambda: sign(hs(sub="alice\u202e")),
    "sub with half a surrogate pair": lambda: forge(GOOD_HEADER, as_raw(hs(sub=None), '"sub": "\\ud800"')),
    "sub of 256 characters": lambda: sign(hs(sub="a" * 256)),
    "sub as a number": lambda: sign(hs(sub=42)),
    "sub true": lambda: sign(hs(sub=True)),
    "sub as a list": lambda: sign(hs(sub=["alice"])),
    "sub named twice": lambda: forge(GOOD_HEADER, as_raw(hs(), '"sub": "admin"')),
    "sub named twice, once escaped": lambda: forge(GOOD_HEADER, as_raw(hs(), '"\\u0073ub": "admin"')),
    "a name twice further inside": lambda: forge(GOOD_HEADER, as_raw(hs(), '"app": {"org": "a", "org": "b"}')),
    "a payload with a byte order mark": lambda: forge(GOOD_HEADER, "\ufeff" + json.dumps(hs())),
    "a payload in UTF-16": lambda: forge(GOOD_HEADER, json.dumps(hs()).encode("utf-16")),
    "a payload in UTF-32": lambda: forge(GOOD_HEADER, json.dumps(hs()).encode("utf-32-be")),
    "a payload in Latin-1": lambda: forge(
        GOOD_HEADER, json.dumps(hs(sub="j\u00fcrgen"), ensure_ascii=False).encode("latin-1")
    ),
    "a payload that is a list": lambda: forge(GOOD_HEADER, "[1]"),
    "a payload that is a string": lambda: forge(GOOD_HEADER, '"alice"'),
    "a payload that is not JSON": lambda: forge(GOOD_HEADER, "alice"),
    "a payload nested without end": lambda: forge(GOOD_HEADER, as_raw(hs(), '"x": ' + "[" * 5000 + "]" * 5000)),
    "a payload nested below a hundred levels": lambda: forge(
        GOOD_HEADER, as_raw(hs(), '"x": ' + "[" * 100 + "]" * 100)
    ),
    "a token inside a token": lambda: forge({**GOOD_HEADER, "cty": "JWT"}, sign(hs())),
}

ATTACKS = {**ALGORITHM_ATTACKS, **SHAPE_ATTACKS, **HEADER_ATTACKS, **PAYLOAD_ATTACKS}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_passes(attack: str) -> None:
    token = ATTACKS[attack]()
    outcome = judged(token)
    assert isinstance(outcome, Unauthenticated)
    assert outcome.reason is Reason.TOKEN_INVALID
    assert outcome.error == "invalid_token"


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_answer_repeats_any_of_the_token(attack: str) -> None:
    token = ATTACKS[attack]()
    outcome = judged(token)
    assert isinstance(outcome, Unauthenticated)
    shown = f"{outcome!r} {outcome.detail}"
    assert outcome.detail.endswith(".")
    assert not [part for part in token.split(".") if len(part) > 8 and part in shown]
    assert "evil" not in shown
    assert "admin" not in shown


@pytest.mark.parametrize(
    ("token", "customer"),
    [
        (sign(hs()), "alice"),
        (sign(hs(), typ=None), "alice"),
        (sign(hs(), typ="at+jwt"), "alice"),
        (sign(hs(), typ="application/AT+JWT"), "alice"),
        (sign(hs(), typ="jwt"), "alice"),
        (sign(hs(), kid="whatever"), "alice"),
        (sign(hs(exp=NOW + 0.5 + 60)), "alice"),
        (sign(hs(exp=NOW + 10 * 366 * 86400)), "alice"),
        (sign(hs(nbf=NOW + 60, iat=NOW + 60)), "alice"),
        (sign(hs(aud=["other", "my-api"])), "alice"),
        (sign(hs(sub="a" * 255)), "a" * 255),
        (sign(hs(sub="Jürgen von Ω|x")), "Jürgen von Ω|x"),
        (forge('{ "alg" : "HS256" }', json.dumps(hs(), indent=2)), "alice"),
    ],
)
def test_a_good_token_of_a_secret_passes(token: str, customer: str) -> None:
    outcome = judged(token)
    assert isinstance(outcome, Authenticated), outcome
    assert outcome.caller.customer == customer
    assert outcome.caller.issuer == HS_ISSUER


def test_a_token_is_bound_to_the_issuer_whose_key_verified_it() -> None:
    rsa_token = judged(sign(claims(), tokens.rsa_key(), "RS256"))
    ec_token = judged(sign(claims(iss=EC_ISSUER), tokens.ec_key(), "ES256", kid="ec-1"))
    without_kid = judged(sign(claims(iss=EC_ISSUER, aud="other"), tokens.ec_key(), "ES256"))
    assert isinstance(rsa_token, Authenticated)
    assert isinstance(ec_token, Authenticated)
    assert isinstance(without_kid, Authenticated)
    assert (rsa_token.caller.customer, rsa_token.caller.issuer) == ("rs:alice", tokens.ISSUER)
    assert (ec_token.caller.customer, ec_token.caller.issuer) == ("ec:alice", EC_ISSUER)


@pytest.mark.parametrize("expiry", [NOW, NOW - 1, NOW + 0.9, 0, -1, -(10**18)])
def test_an_expired_token_is_said_to_be_expired(expiry: float) -> None:
    outcome = judged(sign(hs(exp=expiry)))
    assert isinstance(outcome, Unauthenticated)
    assert (outcome.reason, outcome.error) == (Reason.TOKEN_EXPIRED, "invalid_token")


def test_a_forged_token_that_has_expired_is_invalid_and_not_expired() -> None:
    outcome = judged(sign(hs(exp=NOW - 60), b"another secret that is long enough for HS256"))
    assert isinstance(outcome, Unauthenticated)
    assert outcome.reason is Reason.TOKEN_INVALID


def test_tokens_with_equal_beginnings_are_judged_each_for_itself() -> None:
    """LiteLLM CVE-2026-35030 took tokens for one another whose first bytes were equal (A22)."""
    one = sign(hs(filler="x" * 400, zub="1", sub="alice"))
    subject = authenticator()
    long_start = {"iss": HS_ISSUER, "filler": "x" * 400, "aud": "my-api", "exp": NOW + 60}
    alice = sign({**long_start, "sub": "alice"})
    bob = sign({**long_start, "sub": "bob"})
    assert alice[:200] == bob[:200]
    forged = alice[:-10] + ("A" * 10)
    outcomes = [subject.authenticate(bearer(token)) for token in (one, alice, bob, alice, forged)]
    customers = [outcome.caller.customer for outcome in outcomes if isinstance(outcome, Authenticated)]
    assert customers == ["alice", "alice", "bob", "alice"]
    assert isinstance(outcomes[4], Unauthenticated)


def test_the_library_itself_makes_tokens_that_pass() -> None:
    assert isinstance(judged(jwt.encode(hs(), tokens.SECRET, algorithm="HS256")), Authenticated)


@pytest.mark.parametrize("segment", ["header", "payload", "signature"])
def test_one_token_has_one_spelling(segment: str) -> None:
    """Whatever the library does: another spelling of equal bytes is no token at all."""
    parts = {"header": b64('{"alg":"HS256" }'), "payload": b64('{"a": 1}'), "signature": b64(bytes(32))}
    assert isinstance(take_apart(".".join(parts.values()).encode()), Compact)
    other = {**parts, segment: swap_last_character(parts[segment])}
    assert other != parts
    outcome = take_apart(".".join(other.values()).encode())
    assert isinstance(outcome, Unauthenticated)
    assert outcome.detail == "The token is not spelled as base64url spells it."


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_gateway(noise: bytes) -> None:
    for token in (noise, b64(noise).encode() + b"." + b64(noise).encode() + b".AAAA"):
        assert isinstance(judged(token), Unauthenticated)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub"]), json_values)
def test_no_claim_of_another_type_upsets_the_gateway(name: str, value: object) -> None:
    outcome = judged(forge(GOOD_HEADER, json.dumps({**hs(), name: value})))
    if isinstance(outcome, Authenticated):
        assert name in {"exp", "nbf", "iat", "sub"}
        assert isinstance(value, str if name == "sub" else int | float)


@given(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "cty"]), json_values)
def test_no_header_of_another_type_upsets_the_gateway(name: str, value: object) -> None:
    outcome = judged(forge(json.dumps({**GOOD_HEADER, name: value}), hs()))
    assert isinstance(outcome, Unauthenticated) or name in {"kid", "cty"}


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_good_token_with_one_byte_changed_is_refused(position: int, change: int) -> None:
    token = bytearray(sign(hs()).encode())
    token[position % len(token)] ^= change
    assert isinstance(judged(bytes(token)), Unauthenticated)
