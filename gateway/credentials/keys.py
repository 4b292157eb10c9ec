"""Which key may verify which algorithm.

It decides what can be made of a secret, a PEM or a JWK under the algorithms that gateway.yaml pins for an issuer. It must
never let a key serve an algorithm of another kind (RSA as an HMAC secret: CVE-2016-5431, CVE-2022-29217), serve another
use than verifying signatures, or be weaker than RFC 7518 and NIST SP 800-131A ask.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509 import load_der_x509_certificate
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from gateway.credentials.outcomes import Flaw

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: a secret is at least as long as the hash, since one token is enough to guess at it offline."""

RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
RSA_BITS: Final = range(2048, 16384 + 1)
"""Below it is guessable (RFC 7518, section 3.3); above it one verification takes long enough to be a weapon."""

MOST_CANDIDATES: Final = 4
"""Keys tried for one token. Only a token without `kid`, or a set with equal ones, has more than one."""

_NUMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key with the pinned algorithms that it fits. Two with equal fingerprints are one key."""

    kid: str | None
    algorithms: frozenset[str]
    fingerprint: bytes = field(repr=False)
    material: bytes | PublicKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer at one time; a `kid` is looked up in it and never read as anything else."""

    keys: tuple[VerificationKey, ...]

    def named(self, kid: str) -> bool:
        """Whether some key goes by this id."""
        return any(key.kid == kid for key in self.keys)

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys that may have signed: those of that id, else those without one; without an id, all that fit."""
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is None:
            return tuple(fitting)
        return tuple([key for key in fitting if key.kid == kid] or [key for key in fitting if key.kid is None])


def key_from_secret(secret: str, pinned: Iterable[str], kid: str | None = None) -> VerificationKey | Flaw:
    """An HMAC key of the UTF-8 bytes of `secret`."""
    return _symmetric(secret.encode(), pinned, kid)


def key_from_pem(pem: str, pinned: Iterable[str]) -> VerificationKey | Flaw:
    """A public key of a PEM block."""
    if "PRIVATE KEY" in pem:
        return Flaw("is a private key; only the issuer may have that one")
    try:
        loaded = load_pem_public_key(pem.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        return Flaw("is not a public key in PEM ('-----BEGIN PUBLIC KEY-----') or a JWK in JSON")
    if not isinstance(loaded, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey):
        return Flaw("is of a kind that signs no tokens")
    return _public(loaded, pinned, None)


def key_from_jwk(jwk: dict[str, Any], pinned: Iterable[str]) -> VerificationKey | Flaw:
    """A key of a JWK (RFC 7517) that is there for verifying and fits one of the pinned algorithms."""
    flaw = _jwk_flaw(jwk)
    if flaw is not None:
        return flaw
    named = jwk.get("alg")
    allowed = frozenset(pinned) if named is None else frozenset(pinned) & {named}
    if not allowed:
        return Flaw("is for an algorithm that is not pinned for this issuer")
    try:
        match jwk["kty"]:
            case "RSA":
                loaded: object = RSAAlgorithm.from_jwk(jwk)
            case "EC":
                loaded = ECAlgorithm.from_jwk(jwk)
            case "OKP":
                loaded = OKPAlgorithm.from_jwk(jwk)
            case _:
                loaded = HMACAlgorithm.from_jwk(jwk)
    except (PyJWTError, ValueError, UnsupportedAlgorithm):
        return Flaw("holds numbers that make no key of its kind")
    if isinstance(loaded, bytes):
        return _symmetric(loaded, allowed, jwk.get("kid"))
    if isinstance(loaded, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey):
        return _public(loaded, allowed, jwk.get("kid"))
    return Flaw("is of a kind that signs no tokens")


def _jwk_flaw(jwk: dict[str, Any]) -> Flaw | None:
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _NUMBERS:
        return Flaw("is of a kind ('kty') that signs no tokens")
    if not all(isinstance(jwk.get(name), str) for name in _NUMBERS[kind]):
        return Flaw(f"lacks a member that a key of kind {kind} has")
    if kind != "oct" and "d" in jwk:
        return Flaw("is a private key; only the issuer may have that one")
    if jwk.get("use", "sig") != "sig":
        return Flaw("is not there for signatures ('use')")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return Flaw("is not there for verifying ('key_ops')")
    for name in ("kid", "alg"):
        if not isinstance(jwk.get(name, ""), str):
            return Flaw(f"has a '{name}' that is not a string")
    return None


def _symmetric(secret: bytes, pinned: Iterable[str], kid: str | None) -> VerificationKey | Flaw:
    pinned = frozenset(pinned)
    wanted = [SECRET_BYTES[name] for name in sorted(pinned) if name in SECRET_BYTES]
    if not wanted:
        return Flaw("is a secret, which fits the algorithms HS256, HS384 and HS512 alone")
    if len(secret) < max(wanted):
        return Flaw(f"is {len(secret)} bytes long; {max(wanted)} or more are needed (RFC 7518, section 3.2)")
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        is_public = _is_public_der(secret)
    except PyJWTError:
        is_public = True
    if is_public:
        return Flaw("is a public key, a certificate or a JWK; as a secret it would let anyone sign")
    fitting = frozenset(name for name in pinned if name in SECRET_BYTES)
    return VerificationKey(kid, fitting, hashlib.sha256(b"secret" + secret).digest(), secret)


def _is_public_der(secret: bytes) -> bool:
    """Whether this is a public key or certificate without PEM's first and last line, as providers' pages show them."""
    try:
        der = base64.b64decode(b"".join(secret.split()), validate=True)
    except ValueError:
        return False
    for load in (load_der_public_key, load_der_x509_certificate):
        try:
            load(der)
        except (ValueError, UnsupportedAlgorithm):
            continue
        return True
    return False


def _public(key: PublicKey, pinned: Iterable[str], kid: str | None) -> VerificationKey | Flaw:
    match key:
        case RSAPublicKey():
            if key.key_size not in RSA_BITS:
                return Flaw(f"is an RSA key of {key.key_size} bits; {RSA_BITS[0]} to {RSA_BITS[-1]} are accepted")
            kind, fits = "RSA", RSA_ALGORITHMS
        case EllipticCurvePublicKey():
            kind, fits = key.curve.name, frozenset({CURVE_ALGORITHMS.get(key.curve.name, "")})
        case _:
            kind, fits = "EdDSA", frozenset({"EdDSA"})
    fitting = fits & frozenset(pinned)
    if not fitting:
        return Flaw(f"is a key of kind {kind}, which fits none of the issuer's algorithms")
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerificationKey(kid, fitting, hashlib.sha256(encoded).digest(), key)
