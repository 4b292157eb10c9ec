"""What a credential itself must hold for a route: scopes and claims, whatever its customer pays.

It decides what is missing, in an order that doesn't depend on the credential. It must never take a claim for another by
its looks: a scope is one whole word of `scope` (RFC 8693, section 4.2), `scp` or `scopes`, and a claim has one of the
values that the route lists, or is a list that holds one of them. An API key holds the scopes it was made with, no
others, and no claims: one that was made without any holds none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.caller import Caller
from policies.requirement import Requirement
from policies.schema import Config

SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, section 3.3; so it can stand in a challenge between quotes as it is."""

SCOPE_CLAIMS: Final = ("scope", "scp", "scopes")


@dataclass(frozen=True, slots=True)
class Missing:
    """What the credential lacks; one of the two is not empty."""

    scopes: tuple[str, ...]
    claims: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        """``the scope 'reports:write' and the claim 'org_role' as 'admin' or 'owner'``."""
        return " and ".join(
            [
                *(f"the scope '{scope}'" for scope in self.scopes),
                *(f"the claim '{name}' as {' or '.join(map(repr, values))}" for name, values in self.claims),
            ]
        )


def missing_of(requirement: Requirement, caller: Caller) -> Missing | None:
    """What keeps this credential from being enough, or None."""
    if caller.is_made_up or not (requirement.scopes or requirement.claims):
        return None
    held, claims = frozenset(caller.scopes or ()), dict(caller.claims)
    scopes = tuple(scope for scope in requirement.scopes if scope not in held)
    unmet = tuple((name, values) for name, values in requirement.claims if not set(values) & set(claims.get(name, ())))
    return Missing(scopes, unmet) if scopes or unmet else None


def challenge_of(requirement: Requirement, missing: Missing) -> bytes:
    """The challenge of RFC 6750, section 3.1: `scope` names all that the route needs, not only what is missing."""
    needed = f', scope="{" ".join(requirement.scopes)}"' if missing.scopes else ""
    return f'Bearer realm="gateway", error="insufficient_scope"{needed}'.encode("ascii")


def asked_claims(config: Config) -> frozenset[str]:
    """The names of the claims that some route asks for: only these are kept of a token."""
    return frozenset(name for route in config.routes for name in route.claims)


def scopes_in(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Every scope that a verified token was granted."""
    found: dict[str, None] = {}
    for name in SCOPE_CLAIMS:
        value = claims.get(name)
        found |= dict.fromkeys(value.split(" ") if isinstance(value, str) else _words(value))
    found.pop("", None)
    return tuple(found)


def values_of(claim: object) -> tuple[str, ...]:
    """A claim's value, or those of its list, as gateway.yaml writes them: texts, whole numbers, true and false."""
    return tuple(_written(one) for one in (claim if isinstance(claim, list) else [claim]) if _is_comparable(one))


def _words(value: object) -> Iterable[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _is_comparable(value: object) -> bool:
    return isinstance(value, str | int)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
