"""Whether the claims of a verified token hold here and now.

It decides what `aud`, `exp`, `nbf`, `iat`, `sub` and the claims that gateway.yaml asks of the issuer must say. It must
never take a claim by its looks: PyJWT 2.15 accepts an `exp` that is a string or lies in the year 10^22, so every claim is
checked for its type as well. An expired token is expired: `exp` has no leeway. `nbf` and `iat` have one, because a new
token is used at once and clocks differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from gateway.credentials.customers import claim_at
from gateway.credentials.outcomes import Unauthenticated, invalid
from policies.caller import customer_problem
from policies.reasons import Reason
from policies.scopes import values_of

LONGEST_LIFETIME_SECONDS: Final = 10 * 366 * 86400
"""Ten years: a later `exp` is milliseconds taken for seconds, or a token without an end."""

EXPIRED: Final = Unauthenticated(Reason.TOKEN_EXPIRED, "The token has expired; ask its issuer for a new one.")
_TOO_OLD: Final = Unauthenticated(
    Reason.TOKEN_EXPIRED, "The token is older than its issuer's tokens may be here; ask its issuer for a new one."
)


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What an issuer's claims must say. Of each of `required` the token has one of the values, or a list that holds one."""

    audiences: tuple[str, ...]
    required: tuple[tuple[str, frozenset[str]], ...] = ()
    leeway_seconds: float = 60.0
    max_age_seconds: float | None = None


def check_claims(claims: dict[str, Any], rules: ClaimRules, now: float) -> int | Unauthenticated:
    """When the token ends, in UTC seconds, or why it doesn't hold. Who issued it is settled by then."""
    # It may be missing where another claim names the customer, but not be of a kind that names nobody.
    subject = customer_problem(claims["sub"]) if "sub" in claims else None
    if subject is not None:
        return invalid(f"The token's 'sub' {subject}.")
    if not _names_an_audience(claims.get("aud"), rules.audiences):
        wanted = " or ".join(f"'{audience}'" for audience in rules.audiences)
        return invalid(f"The token's audience is not {wanted}.")
    for name, values in rules.required:
        if values.isdisjoint(values_of(claim_at(claims, name))):
            return invalid(f"The token's claim '{name}' is not what is asked of its issuer's tokens here.")
    issued_at: int | None = None
    for name in ("nbf", "iat"):
        if name in claims:
            moment = _numeric_date(claims[name])
            if moment is None:
                return invalid(f"The token's '{name}' is not a time in seconds.")
            if moment > now + rules.leeway_seconds:
                return invalid(f"The token is not valid yet: its '{name}' lies in the future.")
            issued_at = moment if name == "iat" else None
    end = _check_end(claims, now)
    if rules.max_age_seconds is None or isinstance(end, Unauthenticated):
        return end
    if issued_at is None:
        return invalid("The token doesn't say when it was made ('iat'), and only new ones are taken.")
    oldest = math.floor(issued_at + rules.max_age_seconds)
    return min(end, oldest) if oldest > now else _TOO_OLD


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
