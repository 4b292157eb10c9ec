"""Whether a webhook's body was signed by Stripe, just now, with one of our secrets.

It decides on the raw bytes alone, and must never decode or parse them first, nor raise on anything a stranger can send.
The SDK's own check does both, takes one secret, and believes a signature from tomorrow.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

TOLERANCE_SECONDS: Final = 300
LONGEST_HEADER: Final = 4096
MOST_SIGNATURES: Final = 16
"""Stripe sends one per secret that is being rolled; each costs a comparison with each of our secrets."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The body is Stripe's. `skew_seconds` is how far behind our clock it was signed; negative means ahead."""

    skew_seconds: float


@dataclass(frozen=True, slots=True)
class NotSigned:
    """The body is nobody's that we know. `detail` is safe to show and to log."""

    detail: str


def split_secrets(webhook_secrets: str) -> tuple[bytes, ...]:
    """The secrets in the setting, comma-separated while one is rolled."""
    return tuple(secret.strip().encode() for secret in webhook_secrets.split(",") if secret.strip())


def check_signature(body: bytes, header: str | None, secrets: tuple[bytes, ...], wall_now: float) -> Signed | NotSigned:
    """Verify `Stripe-Signature: t=…,v1=…` over ``{t}.{body}``. Only `v1` counts: `v0` is a decoy scheme."""
    if not header:
        return NotSigned("the Stripe-Signature header is missing")
    if len(header) > LONGEST_HEADER:
        return NotSigned("the Stripe-Signature header is too long")
    timestamps: list[str] = []
    signatures: list[bytes] = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            timestamps.append(value)
        elif name == "v1":
            signatures.append(value.encode("utf-8", "surrogatepass"))
    if len(timestamps) != 1 or not (timestamps[0].isascii() and timestamps[0].isdigit() and len(timestamps[0]) <= 12):
        return NotSigned("the Stripe-Signature header has no usable timestamp")
    if not signatures:
        return NotSigned("the Stripe-Signature header has no v1 signature")
    if len(signatures) > MOST_SIGNATURES:
        return NotSigned("the Stripe-Signature header has too many signatures")
    signed = timestamps[0].encode() + b"." + body
    # Every pair is compared, in constant time each: neither which secret fits nor how far it fits can be timed.
    matches = 0
    for secret in secrets:
        expected = hmac.new(secret, signed, sha256).hexdigest().encode()
        matches += sum(hmac.compare_digest(expected, signature) for signature in signatures)
    if not matches:
        return NotSigned("no configured webhook secret fits the signature")
    skew = wall_now - int(timestamps[0])
    if abs(skew) > TOLERANCE_SECONDS:
        return NotSigned(f"signed {abs(skew):.0f} s {'ago' if skew > 0 else 'ahead'}: more than {TOLERANCE_SECONDS} s")
    return Signed(skew)
