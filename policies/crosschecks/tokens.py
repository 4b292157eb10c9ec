"""Which tokens of an issuer are taken: from where, of which types and age, and with which claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.crosschecks.upstreams import TOKEN
from policies.diagnostics import quoted

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft
    from policies.schema import Issuer

LONGEST_LEEWAY_SECONDS: Final = 600.0
OWN_CLAIMS: Final = {
    "iss": "'issuer' says it",
    "aud": "'audience' says it",
    "exp": "every token has an end; 'max_age' shortens it",
    "nbf": "it is looked at anyway",
    "iat": "'max_age' looks at it",
}


def check(draft: Draft, findings: Findings) -> None:
    """`auth.token_from`, and what each issuer says of its tokens."""
    _places(draft, draft.config.auth.token_from, ("auth", "token_from"), findings)
    for index, issuer in enumerate(draft.config.auth.issuers):
        at = ("auth", "issuers", index)
        if issuer.token_from is not None:
            _places(draft, issuer.token_from, (*at, "token_from"), findings)
        _types(draft, index, issuer, findings)
        _ages(draft, index, issuer, findings)
        _claims(draft, index, issuer, findings)


def _places(draft: Draft, places: tuple[str, ...], at: tuple[str | int, ...], findings: Findings) -> None:
    seen: set[str] = set()
    for index, place in enumerate(places):
        mark, shown = draft.positions.value(*at, index), draft.shown(*at, index)
        kind, separator, name = place.partition(":")
        if place in seen:
            findings.error("duplicate-entry", mark, f"{shown} is listed twice")
        elif place != "header" and not (kind in {"cookie", "query"} and separator and TOKEN.fullmatch(name)):
            findings.error(
                "bad-token-source", mark, f"{shown} is no place for a token; write header, cookie:NAME or query:NAME"
            )
        seen.add(place)
    if not places and draft.is_whole(*(step for step in at if isinstance(step, str))):
        findings.error(
            "empty",
            draft.positions.value(*at),
            "'token_from' is empty, so no token would ever be found; write [header]",
        )


def _types(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    location = ("auth", "issuers", index, "types")
    if not issuer.types and not draft.has_losses(*location):
        findings.error(
            "empty", draft.positions.value(*location), "'types' is empty, so no token would do; write [JWT, at+jwt]"
        )
    for position, written in enumerate(issuer.types):
        if not TOKEN.fullmatch(written.removeprefix("application/")):
            findings.error(
                "bad-type",
                draft.positions.value(*location, position),
                f"{draft.shown(*location, position)} is no type of a token ('typ'); write one such as at+jwt",
            )


def _ages(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    at = ("auth", "issuers", index)
    if issuer.max_age is not None and issuer.max_age < 1:
        findings.error(
            "out-of-range",
            draft.positions.value(*at, "max_age"),
            "'max_age' is shorter than a second; no token is so new",
        )
    if issuer.leeway > LONGEST_LEEWAY_SECONDS:
        findings.error(
            "out-of-range",
            draft.positions.value(*at, "leeway"),
            "'leeway' is longer than 10m; a clock that wrong needs setting, not waiting for",
        )


def _claims(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    location = ("auth", "issuers", index, "claims")
    for name, values in issuer.claims.items():
        mark = draft.positions.value(*location, name)
        if not name:
            findings.error("bad-claim", mark, "a claim's name is empty")
        elif name in OWN_CLAIMS:
            findings.error(
                "bad-claim", draft.positions.key(*location, name), f"{quoted(name)} is out: {OWN_CLAIMS[name]}"
            )
        elif not values and not draft.has_losses(*location, name):
            findings.error("empty", mark, f"the claim {quoted(name)} has no value that would do; list at least one")
