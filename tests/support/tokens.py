"""Tokens for tests: good ones of every algorithm, and raw forgeries that no library would make."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Key: TypeAlias = PrivateKey | bytes

ISSUER = "https://login.example.com/"
AUDIENCE = "my-api"
SECRET = "a-development-secret-of-64-bytes-and-more-0123456789-0123456789-0123"
SECRET_KEY = SECRET.encode()
NOW = 1_800_000_000

_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def rsa_key(name: str = "first", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The test run's RSA key of that name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str = "first", algorithm: str = "ES256") -> ec.EllipticCurvePrivateKey:
    """The test run's EC key of that name, on the algorithm's curve."""
    return ec.generate_private_key(_CURVES[algorithm])


@cache
def ed25519_key(name: str = "first") -> ed25519.Ed25519PrivateKey:
    """The test run's Ed25519 key of that name."""
    return ed25519.Ed25519PrivateKey.generate()


def key_for(algorithm: str, name: str = "first") -> Key:
    """A key that fits the algorithm; the HMAC ones get `SECRET`."""
    if algorithm.startswith("HS"):
        return SECRET_KEY
    if algorithm.startswith("ES"):
        return ec_key(name, algorithm)
    return ed25519_key(name) if algorithm == "EdDSA" else rsa_key(name)


def public_pem(key: PrivateKey) -> str:
    """The public half, as gateway.yaml takes it under `public_key`."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_jwk(key: PrivateKey, kid: str | None = None, **members: Any) -> dict[str, Any]:
    """The public half as a JWK; `members` are added or, when None, taken away."""
    if isinstance(key, rsa.RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    given = {"kid": kid, **members}
    return {name: value for name, value in {**jwk, **given}.items() if value is not None}


def b64(data: bytes | str | Mapping[str, Any]) -> str:
    """base64url without padding, of bytes, of text, or of an object as JSON."""
    if isinstance(data, Mapping):
        data = json.dumps(data, separators=(",", ":"))
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token at `NOW`, with changes; a claim that is changed to None is left out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW, "exp": NOW + 3600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signature(signing_input: str, key: Key, algorithm: str) -> str:
    """What the algorithm makes of the text, whatever the header says."""
    maker = get_default_algorithms()[algorithm]
    return b64(maker.sign(signing_input.encode(), maker.prepare_key(key)))


def forge(
    header: bytes | str | Mapping[str, Any],
    payload: bytes | str | Mapping[str, Any],
    key: Key = SECRET_KEY,
    algorithm: str = "HS256",
) -> str:
    """A token of exactly these bytes, signed with the key by the algorithm, whatever the header says."""
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{signature(signing_input, key, algorithm)}"


def sign(
    payload: Mapping[str, Any],
    key: Key = SECRET_KEY,
    algorithm: str = "HS256",
    *,
    kid: str | None = None,
    **header: Any,
) -> str:
    """A token such as an issuer makes."""
    named = {"alg": algorithm, "typ": "JWT", "kid": kid, **header}
    return forge({name: value for name, value in named.items() if value is not None}, payload, key, algorithm)


def bearer(token: str | bytes) -> list[tuple[bytes, bytes]]:
    """Request headers that carry the token."""
    return [(b"host", b"api.example.com"), (b"authorization", b"Bearer " + _bytes(token))]


def _bytes(token: str | bytes) -> bytes:
    return token.encode() if isinstance(token, str) else token
