"""The shape of a signed token: three parts, one spelling (RFC 7515, section 7.1).

It decides whether the bytes are a compact JWS whose header asks for nothing special. It must never accept two spellings
of one token (padding, unused bits, white space), because whoever blocks or remembers one of them would miss the other;
and it never follows what a header points at (`jku`, `x5u`, `jwk`): keys come from gateway.yaml alone.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.credentials.outcomes import Flaw, Unauthenticated, invalid
from gateway.credentials.strict_json import parse_object

LONGEST_TOKEN: Final = 16 * 1024
"""Bytes. Identity providers stay under the 8 KiB that common servers allow for a whole header field."""

_SEGMENTS: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)")
_FIVE_SEGMENTS: Final = re.compile(rb"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){4}")

# `crit` and `b64` change what is signed (CVE-2026-32597, RFC 7797); the others bring their own key (CVE-2018-0114).
_REFUSED_PARAMETERS: Final = ("crit", "b64", "jwk", "jku", "x5u", "x5c")

WITHOUT_TYPE: Final = "jwt"
"""What a token without `typ` is taken for (RFC 7519, section 5.1)."""


@dataclass(frozen=True, slots=True, repr=False)
class Compact:
    """A token taken apart and not yet verified.

    `token` is what was signed and the signature, as sent; `kind` its `typ` as `media_type` reads it.
    """

    token: bytes
    algorithm: str
    kid: str | None
    payload: bytes
    kind: str


def _decoded(segment: bytes) -> bytes | None:
    """The bytes in a base64url segment, or None when another segment would decode to the same ones."""
    if len(segment) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    return data if base64.urlsafe_b64encode(data).rstrip(b"=") == segment else None


def take_apart(token: bytes) -> Compact | Unauthenticated:
    """The token's parts, or why it isn't one. Nothing in them may be believed before a key of the issuer verified them."""
    if len(token) > LONGEST_TOKEN:
        return invalid(f"The token is longer than {LONGEST_TOKEN} bytes.")
    match = _SEGMENTS.fullmatch(token)
    if match is None:
        if _FIVE_SEGMENTS.fullmatch(token):
            return invalid("The token is encrypted (JWE); this gateway takes signed tokens.")
        return invalid("The token is not a signed JWT: three parts of base64url without padding, joined by dots.")
    if not match[3]:
        return invalid("The token is not signed.")
    header_bytes, payload, signature = map(_decoded, match.groups())
    if header_bytes is None or payload is None or signature is None:
        return invalid("The token is not spelled as base64url spells it.")
    header = parse_object(header_bytes)
    if isinstance(header, Flaw):
        return invalid(f"The token's header {header.clause}.")
    return _checked(token, header, payload)


def _checked(token: bytes, header: dict[str, Any], payload: bytes) -> Compact | Unauthenticated:
    for name in _REFUSED_PARAMETERS:
        if name in header:
            return invalid(f"The token's header holds '{name}', which this gateway doesn't follow.")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        return invalid("The token's header names no algorithm.")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        return invalid("The token's key id is not a string.")
    kind = header.get("typ", WITHOUT_TYPE)
    if not isinstance(kind, str):
        return invalid("The token's type ('typ') is not a string.")
    return Compact(token, algorithm, kid, payload, media_type(kind))


def media_type(typ: str) -> str:
    """`typ` as it is compared: in any case, and with or without `application/` (RFC 7515, section 4.1.9)."""
    return typ.lower().removeprefix("application/")
