"""Whether the claims of a verified token hold here and now.

It decides what `iss`, `aud`, `exp`, `nbf`, `iat` and `sub` must say. It must never take a claim by its looks: PyJWT 2.15
accepts an `exp` that is a string or lies in the year 10^22, so every claim is checked for its type as well. An expired
token is expired: `exp` has no leeway. `nbf` and `iat` have 60 s, because a new token is used at once and clocks differ.
"""

from __future__ import annotations

import math
from typing import Any, Final

from gateway.credentials.outcomes import Unauthenticated, invalid
from policies.reasons import Reason

CLOCK_SKEW_SECONDS: Final = 60
LONGEST_LIFETIME_SECONDS: Final = 10 * 366 * 86400
"""Ten years: a later `exp` is milliseconds taken for seconds, or a token without an end."""

EXPIRED: Final = Unauthenticated(Reason.TOKEN_EXPIRED, "The token has expired; ask its issuer for a new one.")


def check_claims(claims: dict[str, Any], audiences: tuple[str, ...], now: float) -> int | Unauthenticated:
    """When the token ends, in UTC seconds, or why it doesn't hold. Who issued it is settled by then."""
    subject = claims.get("sub", "")
    if not isinstance(subject, str):
        return invalid("The token's 'sub' is not a string.")
    if not _names_an_audience(claims.get("aud"), audiences):
        wanted = " or ".join(f"'{audience}'" for audience in audiences)
        return invalid(f"The token's audience is not {wanted}.")
    for name in ("nbf", "iat"):
        if name in claims:
            moment = _numeric_date(claims[name])
            if moment is None:
                return invalid(f"The token's '{name}' is not a time in seconds.")
            if moment > now + CLOCK_SKEW_SECONDS:
                return invalid(f"The token is not valid yet: its '{name}' lies in the future.")
    return _check_end(claims, now)


def _check_end(claims: dict[str, Any], now: float) -> int | Unauthenticated:
    if "exp" not in claims:
        return invalid("The token has no end ('exp').")
    end = _numeric_date(claims["exp"])
    if end is None:
        return invalid("The token's 'exp' is not a time in seconds.")
    if end > now + LONGEST_LIFETIME_SECONDS:
        return invalid("The token's 'exp' lies more than ten years ahead.")
    return end if end > now else EXPIRED


def _numeric_date(value: object) -> int | None:
    """A NumericDate of RFC 7519, section 2, in whole seconds: JSON numbers only, and no NaN or infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return math.floor(value) if math.isfinite(value) else None


def _names_an_audience(claim: object, audiences: tuple[str, ...]) -> bool:
    """Whether `aud`, a string or a list of nothing but strings, names one of `audiences`."""
    named = [claim] if isinstance(claim, str) else claim
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        return False
    return any(audience in named for audience in audiences)
