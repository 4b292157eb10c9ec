"""Signed links: a payment link bound to a customer and tier, and a return address bound to a customer.

HMAC-SHA256 over a compact JSON payload, both base64url. The purpose is inside what is signed, so a link of one kind
never serves as the other. Making one calls nobody and changes nothing. Time is an argument, in UTC seconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LONGEST_LINK: Final = 4096


class Purpose(StrEnum):
    """What a link is good for."""

    PAY = "pay"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a valid link says. `tier` is empty on a return address."""

    purpose: Purpose
    customer: str
    tier: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class LinkInvalid:
    """Not one of ours, or changed on its way."""


@dataclass(frozen=True, slots=True)
class LinkExpired:
    """Ours once, but its time is over."""


def sign(key: bytes, claim: Claim) -> str:
    """The link's last path segment."""
    fields = {"c": claim.customer, "p": claim.purpose.value, "t": claim.tier, "x": claim.expires_at}
    payload = _encode(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode())
    return f"{payload}.{_encode(_mac(key, payload))}"


def verify(key: bytes, purpose: Purpose, link: str, now: float) -> Claim | LinkInvalid | LinkExpired:
    """The claim in `link`, if it was signed with `key` for `purpose` and `now` is before its end."""
    payload, dot, signature = link.partition(".")
    if not dot or len(link) > LONGEST_LINK or not link.isascii():
        return LinkInvalid()
    if not hmac.compare_digest(_encode(_mac(key, payload)), signature):
        return LinkInvalid()
    try:
        fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        claim = Claim(Purpose(fields["p"]), str(fields["c"]), str(fields["t"]), int(fields["x"]))
    except (ValueError, KeyError, TypeError, binascii.Error):
        # Signed with our key and yet unreadable: another version made it.
        return LinkInvalid()
    if claim.purpose is not purpose:
        return LinkInvalid()
    return claim if now < claim.expires_at else LinkExpired()


def _mac(key: bytes, payload: str) -> bytes:
    return hmac.digest(key, payload.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
