"""The tokens of the comparison: an issuer with an RSA and an EC key, and as many customers as are asked for."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER: Final = "https://login.example.com/"
AUDIENCE: Final = "my-api"


class Issuer:
    """Signs with `RS256` or `ES256`."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
        }
        self._expires_at = int(time.time()) + 24 * 3600

    def token(self, customer: str, algorithm: str = "RS256", number: int = 0) -> str:
        """`number` tells tokens of one customer apart."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": customer, "exp": self._expires_at, "jti": str(number)}
        return jwt.encode(claims, self._keys[algorithm], algorithm, headers={"kid": algorithm})

    def public_pem(self, algorithm: str = "RS256") -> str:
        """For the configurations."""
        public = self._keys[algorithm].public_key()
        pem: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return pem.decode()

    def jwks(self) -> str:
        """The RSA key as Envoy wants it."""
        key = jwt.algorithms.RSAAlgorithm.to_jwk(self._keys["RS256"].public_key(), as_dict=True)
        return json.dumps({"keys": [{**key, "kid": "RS256", "alg": "RS256", "use": "sig"}]})
