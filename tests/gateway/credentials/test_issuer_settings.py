"""Which keys and rules an issuer may have in gateway.yaml."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from gateway.credentials import Authenticated, Authenticator, issuer_problems
from gateway.credentials.keys import VerificationKey, key_from_jwk
from policies.schema import Algorithm, Auth, Issuer
from tests.support import tokens
from tests.support.tokens import NOW, bearer, claims, sign

ALL_ALGORITHMS: tuple[str, ...] = Algorithm.__args__  # type: ignore[attr-defined]


def issuer(**settings: Any) -> Issuer:
    if "secret" in settings:
        settings["secret"] = SecretStr(settings["secret"])
    return Issuer(**{"issuer": tokens.ISSUER, "audience": ("my-api",), "algorithms": ("RS256",), **settings})


def problem_keys(*issuers: Issuer) -> list[str]:
    return [problem.key for problem in issuer_problems(Auth(issuers=issuers))]


RSA_PEM = tokens.public_pem(tokens.rsa_key())
RSA_BODY = "".join(line for line in RSA_PEM.splitlines(keepends=True) if "-----" not in line)


def certificate_body() -> str:
    """The base64 of a certificate, as JWKs have it under `x5c` and providers show it for copying."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "login.example.com")])
    key, day = tokens.ec_key(), datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = built.serial_number(1).not_valid_before(day).not_valid_after(day + timedelta(days=1))
    return base64.b64encode(dated.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)).decode()


CERTIFICATE_BODY = certificate_body()


@pytest.mark.parametrize("algorithm", ALL_ALGORITHMS)
def test_every_algorithm_verifies_with_its_key_and_no_other_key(algorithm: str) -> None:
    if algorithm.startswith("HS"):
        entry = issuer(algorithms=(algorithm,), secret=tokens.SECRET)
    else:
        key = tokens.key_for(algorithm)
        assert not isinstance(key, bytes)
        entry = issuer(algorithms=(algorithm,), public_key=tokens.public_pem(key))
    subject = Authenticator(Auth(issuers=(entry,)), now=lambda: NOW)
    good = sign(claims(), tokens.key_for(algorithm), algorithm)
    assert isinstance(subject.authenticate(bearer(good)), Authenticated)
    for other in ALL_ALGORITHMS:
        if other != algorithm:
            token = sign(claims(), tokens.key_for(other), other)
            assert not isinstance(subject.authenticate(bearer(token)), Authenticated)
            relabelled = sign(claims(), tokens.key_for(other), other, alg=algorithm)
            # One RSA key serves six algorithms: the label decides which, and then the signature is of another one.
            assert not isinstance(subject.authenticate(bearer(relabelled)), Authenticated)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "issuer"),
        ({"secret": tokens.SECRET, "public_key": RSA_PEM}, "issuer"),
        ({"jwks_url": "https://a/jwks", "discovery": True}, "issuer"),
        ({"algorithms": ("HS256",), "secret": "short"}, "secret"),
        ({"algorithms": ("HS512",), "secret": "x" * 63}, "secret"),
        ({"algorithms": ("HS256", "HS512"), "secret": "x" * 63}, "secret"),
        ({"algorithms": ("HS256",), "secret": RSA_PEM}, "secret"),
        ({"algorithms": ("HS256",), "secret": json.dumps(tokens.public_jwk(tokens.rsa_key()))}, "secret"),
        ({"algorithms": ("HS256",), "secret": RSA_BODY}, "secret"),
        ({"algorithms": ("HS256",), "secret": RSA_BODY.replace("\n", "")}, "secret"),
        ({"algorithms": ("HS256",), "secret": CERTIFICATE_BODY}, "secret"),
        ({"algorithms": ("RS256",), "secret": tokens.SECRET}, "secret"),
        ({"algorithms": ("RS256", "HS256"), "public_key": RSA_PEM}, "algorithms"),
        ({"algorithms": ("HS256",), "jwks_url": "https://a/jwks"}, "algorithms"),
        ({"algorithms": ("HS256", "RS256"), "secret": tokens.SECRET}, "algorithms"),
        ({"algorithms": ("ES256",), "public_key": RSA_PEM}, "public_key"),
        ({"algorithms": ("RS256", "ES256"), "public_key": RSA_PEM}, "algorithms"),
        ({"algorithms": ("ES384",), "public_key": tokens.public_pem(tokens.ec_key())}, "public_key"),
        ({"algorithms": ("EdDSA",), "public_key": tokens.public_pem(tokens.ec_key())}, "public_key"),
        ({"public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, "public_key"),
        ({"public_key": ""}, "public_key"),
        ({"public_key": "{"}, "public_key"),
        ({"public_key": '{"kty": "oct", "k": "AAAA"}'}, "public_key"),
        ({"public_key": tokens.public_pem(tokens.rsa_key("small", 1024))}, "public_key"),
        ({"jwks_url": "file:///etc/passwd"}, "jwks_url"),
        ({"jwks_url": "jwks.json"}, "jwks_url"),
        ({"jwks_url": "https://user:password@keys.example.com/jwks"}, "jwks_url"),
        ({"jwks_url": "https://[::1"}, "jwks_url"),
        ({"issuer": "accounts.example.com", "discovery": True}, "discovery"),
        ({"public_key": RSA_PEM, "audience": ()}, "audience"),
        ({"public_key": RSA_PEM, "audience": ("",)}, "audience"),
        ({"public_key": RSA_PEM, "customer": "{a}{b}"}, "customer"),
    ],
)
def test_a_setting_that_could_not_verify_safely_is_named(settings: dict[str, Any], key: str) -> None:
    assert problem_keys(issuer(**settings)) == [key]


def test_a_private_key_does_not_belong_in_the_file() -> None:
    private = tokens.rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (problem,) = issuer_problems(Auth(issuers=(issuer(public_key=private),)))
    assert problem.key == "public_key"
    assert "private key" in problem.message
    assert "MII" not in problem.message


def test_no_problem_repeats_a_secret() -> None:
    (problem,) = issuer_problems(Auth(issuers=(issuer(algorithms=("HS256",), secret="hunter2"),)))
    assert "hunter2" not in repr(problem)


def test_two_issuers_whose_customers_could_be_confused_are_named_unless_that_is_meant() -> None:
    first = issuer(public_key=RSA_PEM)
    second = issuer(issuer="https://other.example.com/", public_key=RSA_PEM)
    assert problem_keys(first, second) == ["customer"]
    assert problem_keys(first, second.model_copy(update={"shared_customers": True})) == []
    prefixed = [one.model_copy(update={"customer": "{iss}|{sub}"}) for one in (first, second)]
    assert problem_keys(*prefixed) == []


def test_an_issuer_that_is_named_twice_is_a_problem() -> None:
    entry = issuer(public_key=RSA_PEM, shared_customers=True)
    assert problem_keys(entry, entry) == ["issuer"]


def test_the_authenticator_refuses_settings_with_problems() -> None:
    with pytest.raises(ValueError, match=r"auth.issuers\[0\]: The secret is 5 bytes long"):
        Authenticator(Auth(issuers=(issuer(algorithms=("HS256",), secret="short"),)), now=lambda: NOW)


def test_no_repr_shows_a_secret() -> None:
    key = key_from_jwk({"kty": "oct", "k": tokens.b64("s" * 32)}, ["HS256"])
    assert isinstance(key, VerificationKey)
    assert "ssss" not in repr(key)


RSA_JWK = tokens.public_jwk(tokens.rsa_key(), "k")
EC_JWK = tokens.public_jwk(tokens.ec_key(), "k")


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {**RSA_JWK, "kty": "rsa"},
        {**RSA_JWK, "kty": ["RSA"]},
        {**RSA_JWK, "use": "enc"},
        {**RSA_JWK, "use": None},
        {**RSA_JWK, "key_ops": ["encrypt"]},
        {**RSA_JWK, "key_ops": "verify"},
        {**RSA_JWK, "key_ops": []},
        {**RSA_JWK, "alg": "RS512"},
        {**RSA_JWK, "alg": "RSA-OAEP"},
        {**RSA_JWK, "alg": 7},
        {**RSA_JWK, "alg": ["RS256"]},
        {**RSA_JWK, "kid": 7},
        {**RSA_JWK, "d": "AQAB"},
        {**RSA_JWK, "n": 7},
        {**RSA_JWK, "n": ""},
        {**RSA_JWK, "n": "!!!"},
        {**RSA_JWK, "e": "AA"},
        {**RSA_JWK, "e": "Ag"},
        {**EC_JWK, "crv": "P-384"},
        {**EC_JWK, "crv": "secp256k1"},
        {**EC_JWK, "y": EC_JWK["x"]},
        {**EC_JWK, "alg": "ES384"},
        {"kty": "OKP", "crv": "X25519", "x": tokens.b64(bytes(32))},
        {"kty": "OKP", "crv": "Ed25519", "x": tokens.b64(bytes(31))},
        {"kty": "oct", "k": tokens.b64("s" * 31)},
        tokens.public_jwk(tokens.rsa_key("small", 1024)),
    ],
)
def test_a_jwk_that_is_not_there_for_this_is_no_key(jwk: dict[str, Any]) -> None:
    assert not isinstance(key_from_jwk(jwk, ["RS256", "ES256", "EdDSA", "HS256"]), VerificationKey)


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (RSA_JWK, {"RS256", "PS256"}),
        ({**RSA_JWK, "alg": "PS256", "use": "sig", "key_ops": ["verify", "sign"]}, {"PS256"}),
        (EC_JWK, {"ES256"}),
        (tokens.public_jwk(tokens.ec_key(algorithm="ES512")), {"ES512"}),
        (tokens.public_jwk(tokens.ed25519_key()), {"EdDSA"}),
    ],
)
def test_a_key_verifies_the_pinned_algorithms_of_its_kind_only(jwk: dict[str, Any], algorithms: set[str]) -> None:
    key = key_from_jwk(jwk, ["HS256", "RS256", "PS256", "ES256", "ES512", "EdDSA"])
    assert isinstance(key, VerificationKey)
    assert key.algorithms == algorithms
