"""What nobody could ever meet, and what is written as if it were a bound and is none.

Each setting may be right by itself: what is wrong is that no request passes, or that all do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from policies.addresses import HttpUrl, parse_http_url
from policies.diagnostics import listed

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft
    from policies.schema import Issuer, Route

_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
_WITH_BODIES: Final = frozenset({"POST", "PUT", "PATCH"})


def check(draft: Draft, findings: Findings) -> None:
    """`auth.issuers` and `routes`."""
    for index, issuer in enumerate(draft.config.auth.issuers):
        if "issuer" not in draft.lost_keys("auth", "issuers", index):
            _issuer(draft, index, issuer, findings)
        _ages(draft, index, issuer, findings)
    for index, route in enumerate(draft.config.routes):
        _claims(draft, index, route, findings)
        _body(draft, index, route, findings)


def _issuer(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    """A token's `iss` is a StringOrURI (RFC 7519, section 2), compared as it stands."""
    at = ("auth", "issuers", index, "issuer")
    mark, shown, name = draft.positions.value(*at), draft.shown(*at), issuer.issuer
    if _UNPRINTABLE.search(name):
        findings.error("bad-issuer", mark, f"{shown} holds a space or control character, which no 'iss' does")
    elif re.match("https?:", name, re.IGNORECASE):
        if not issuer.discovery and not isinstance(parse_http_url(name), HttpUrl):
            findings.error(
                "bad-issuer", mark, f"{shown} is not a whole URL; write what tokens carry as 'iss', letter by letter"
            )
    elif ":" not in name and not issuer.discovery:
        findings.warning(
            "bare-issuer",
            mark,
            f"{shown} is no URL, and what a provider writes into 'iss' mostly is; it is compared letter by letter, with any final '/'",
        )


def _ages(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    if issuer.max_age is not None and 1 <= issuer.max_age <= issuer.leeway:
        findings.warning(
            "loose-limit",
            draft.positions.value("auth", "issuers", index, "max_age"),
            "'max_age' is no longer than 'leeway', which is added to it: tokens are taken for more than twice as long as it says",
        )


def _claims(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    """A token has one `iss`, that of an issuer; keys of the gateway's own making have no claims at all."""
    auth = draft.config.auth
    if not route.claims or not draft.is_whole("auth", "issuers"):
        return
    if not auth.issuers and auth.api_keys.enabled:
        findings.error(
            "unmeetable",
            draft.positions.key("routes", index, "claims"),
            "nobody could be let in: there are API keys only, and these have no claims; ask for 'scopes'",
        )
    known = [issuer.issuer for issuer in auth.issuers]
    asked = route.claims.get("iss", ())
    if known and asked and not set(asked) & set(known):
        shown = [draft.shown("auth", "issuers", index, "issuer") for index in range(len(known))]
        findings.error(
            "unmeetable",
            draft.positions.value("routes", index, "claims", "iss"),
            f"nobody could be let in: tokens are taken from {listed(shown, 'and')} only",
        )


def _body(draft: Draft, index: int, route: Route, findings: Findings) -> None:
    if route.max_body == 0 and route.methods and set(route.methods) <= _WITH_BODIES:
        findings.warning(
            "unmeetable",
            draft.positions.value("routes", index, "max_body"),
            f"every {listed(route.methods)} with a body is a 413 body_too_large: 'max_body' leaves room for none",
        )
