"""Whose tokens are believed: one kind of key each, algorithms that fit it, and customers that can't be mistaken."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

from policies.addresses import HttpUrl, is_loopback, parse_http_url, parse_listen
from policies.crosschecks.customers import Ends, ends_of, is_template
from policies.crosschecks.upstreams import FRAMING, GATEWAY_OWN, TOKEN
from policies.diagnostics import LONGEST_QUOTE, listed, quoted

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft
    from policies.schema import Issuer

DEMO_TOKEN_SECRET: Final = "demo-secret-that-is-public-change-it-before-anyone-pays"
"""Stands in the README and in the root gateway.yaml, so anybody can sign with it."""

KEY_KINDS: Final = ("jwks_url", "discovery", "public_key", "secret")

_TAKEN: Final = frozenset({"authorization", "cookie", "origin", "accept", "content-type", "range", "forwarded"})
_TAKEN_PREFIXES: Final = ("x-gateway-", "x-forwarded-", "proxy-", "sec-", "access-control-", "content-")

SHORTEST_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: a key is at least as long as the hash it goes into."""


def _why_not_a_demo(draft: Draft) -> str | None:
    """What of the file says that others than its owner are served: then a secret of this repository opens the door."""
    server = draft.config.server
    listen = parse_listen(server.listen)
    if not isinstance(listen, str) and not listen.is_loopback and draft.is_whole("server", "listen"):
        return "'server.listen' is open to others"
    public = parse_http_url(server.public_url)
    # Behind a proxy of the same machine the gateway listens on loopback, and is on the net all the same.
    if not isinstance(public, str) and not is_loopback(public.host) and draft.is_whole("server", "public_url"):
        return "'server.public_url' is an address for others"
    if "_live_" in draft.config.billing.stripe.secret_key.get_secret_value()[:8]:
        return "the Stripe key takes real money"
    return None


def check(draft: Draft, findings: Findings) -> None:
    """`auth.issuers` and `auth.api_keys`; what tokens must be like is checked in `tokens`."""
    _key_header(draft, findings)
    seen: dict[str, int] = {}
    for index, issuer in enumerate(draft.config.auth.issuers):
        at = ("auth", "issuers", index)
        first = seen.setdefault(issuer.issuer, index)
        if first != index:
            line = draft.positions.value("auth", "issuers", first, "issuer").line
            findings.error(
                "duplicate-issuer",
                draft.positions.value(*at, "issuer"),
                f"the issuer {draft.shown(*at, 'issuer')} stands in line {line} already; one issuer may list several audiences",
            )
        _audience(draft, index, issuer, findings)
        _keys(draft, index, issuer, findings)
        _urls(draft, index, issuer, findings)
        _algorithms(draft, index, issuer, findings)
        _secret(draft, index, issuer, findings)
        _public_key(draft, index, issuer, findings)
    _customers(draft, findings)


def _key_header(draft: Draft, findings: Findings) -> None:
    header = draft.config.auth.api_keys.header
    location = ("auth", "api_keys", "header")
    lower = header.lower().replace("_", "-")
    if not TOKEN.fullmatch(header):
        what = "is no name of a header field; write one such as X-API-Key"
    elif lower in _TAKEN | FRAMING | GATEWAY_OWN or lower.startswith(_TAKEN_PREFIXES):
        what = "has a meaning of its own; write another, such as X-API-Key (Authorization is looked at anyway)"
    else:
        return
    findings.error(
        "bad-header", draft.positions.value(*location), f"'header', which reads {draft.shown(*location)}, {what}"
    )


def _audience(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    location = ("auth", "issuers", index, "audience")
    if (not issuer.audience or not all(issuer.audience)) and not draft.has_losses(*location):
        findings.error(
            "empty",
            draft.positions.value(*location),
            "'audience' is empty; name what tokens for this API carry as 'aud'",
        )


def _keys(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    at = ("auth", "issuers", index)
    given = [
        kind
        for kind in KEY_KINDS
        if draft.is_given(*at, kind)
        and not (kind == "discovery" and not (issuer.discovery or draft.is_lost(*at, "discovery")))
    ]
    if not given:
        findings.error(
            "no-key",
            draft.positions.value(*at),
            f"the issuer {draft.shown(*at, 'issuer')} has no key; give one of {listed(KEY_KINDS)}",
        )
    elif len(given) > 1:
        names = listed(map(quoted, given), "and")
        findings.error(
            "several-keys", draft.positions.key(*at, given[1]), f"{names} are given; an issuer has one source of keys"
        )


def _urls(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    at = ("auth", "issuers", index)
    for key, text in (("jwks_url", issuer.jwks_url), ("issuer", issuer.issuer if issuer.discovery else None)):
        if text is None:
            continue
        url = parse_http_url(text)
        purpose = "'jwks_url'" if key == "jwks_url" else "'issuer', where discovery looks,"
        if not isinstance(url, HttpUrl):
            problem = url
        elif url.has_userinfo:
            problem = "has a user or password"
        elif url.has_fragment:
            problem = "has a fragment"
        elif url.scheme != "https" and not is_loopback(url.host):
            problem = "is http, so anyone on the way could put in a key of their own; write https"
        else:
            continue
        findings.error("bad-url", draft.positions.value(*at, key), f"{purpose} {problem}")


def _algorithms(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    at = ("auth", "issuers", index)
    has_secret = draft.is_given(*at, "secret")
    has_other = any(draft.is_given(*at, kind) for kind in ("jwks_url", "public_key")) or issuer.discovery
    seen: set[str] = set()
    for position, algorithm in enumerate(issuer.algorithms):
        mark = draft.positions.value(*at, "algorithms", position)
        if algorithm in seen:
            findings.error("duplicate-entry", mark, f"{quoted(algorithm)} is listed twice")
        elif has_secret and not has_other and not algorithm.startswith("HS"):
            findings.error(
                "algorithm-misfit",
                mark,
                f"{quoted(algorithm)} needs a public key; with 'secret' only HS256, HS384 and HS512 can be verified",
            )
        elif has_other and not has_secret and algorithm.startswith("HS"):
            # CVE-2022-29217 and its kin: the public key, which everybody has, taken for the shared secret.
            findings.error(
                "algorithm-misfit",
                mark,
                f"{quoted(algorithm)} needs 'secret'; a public key used as a shared secret lets anybody sign",
            )
        seen.add(algorithm)


def _secret(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    if issuer.secret is None:
        return
    mark = draft.positions.value("auth", "issuers", index, "secret")
    secret = issuer.secret.get_secret_value()
    if secret == DEMO_TOKEN_SECRET:
        why = _why_not_a_demo(draft)
        if why is not None:
            findings.error(
                "demo-secret",
                mark,
                f"'secret' is the demo's, which everybody knows, and {why}: "
                "set GATEWAY_TOKEN_SECRET to a secret of your own, or use your identity provider",
            )
        return
    needed = [(SHORTEST_SECRET_BYTES[name], name) for name in issuer.algorithms if name in SHORTEST_SECRET_BYTES]
    if needed and len(secret.encode()) < max(needed)[0]:
        least, algorithm = max(needed)
        findings.error(
            "weak-secret",
            mark,
            f"'secret' is shorter than the {least} bytes that {algorithm} needs (RFC 7518); make one with: openssl rand -hex {least}",
        )


def _public_key(draft: Draft, index: int, issuer: Issuer, findings: Findings) -> None:
    if issuer.public_key is None:
        return
    mark = draft.positions.value("auth", "issuers", index, "public_key")
    text = issuer.public_key.strip()
    if "PRIVATE KEY" in text:
        findings.error(
            "private-key",
            mark,
            "'public_key' holds a private key; verifying needs the public one only, and a private key must not lie here",
        )
    elif not text.startswith(("-----BEGIN ", "{")):
        findings.error(
            "bad-key", mark, "'public_key' is neither PEM nor a JWK; write it out, or ${file:/path/to/key.pem}"
        )


def _customers(draft: Draft, findings: Findings) -> None:
    issuers = draft.config.auth.issuers
    ends: dict[int, Ends] = {}
    several = len(issuers) > 1
    for index, issuer in enumerate(issuers):
        at: tuple[str | int, ...] = ("auth", "issuers", index)
        location = (*at, "customer")
        mark, shown = draft.positions.value(*location), draft.shown(*location)
        found = ends_of(issuer.customer, issuer.issuer)
        if isinstance(found, str):
            findings.error("bad-customer", mark, f"'customer', which reads {shown}, {found}")
        elif several and not issuer.shared_customers and not draft.lost_keys(*at) & {"customer", "shared_customers"}:
            if not is_template(issuer.customer):
                is_showable = draft.is_literal(*location) or not draft.is_given(*location)
                claim = issuer.customer if is_showable and len(issuer.customer) <= LONGEST_QUOTE else "claim"
                findings.error(
                    "ambiguous-customer",
                    mark,
                    f"with several issuers, one {quoted(claim)} of two of them may be two people; write customer: '{{iss}}|{{{claim}}}', "
                    "or a fixed text before it, or shared_customers: true if they are the same people",
                )
            else:
                ends[index] = found
    for (first, its_ends), (second, other_ends) in combinations(ends.items(), 2):
        if its_ends.may_meet(other_ends) and issuers[first].issuer != issuers[second].issuer:
            line = draft.positions.value("auth", "issuers", first, "customer").line
            findings.error(
                "ambiguous-customer",
                draft.positions.value("auth", "issuers", second, "customer"),
                f"{draft.shown('auth', 'issuers', second, 'customer')} could name a customer of the issuer in line {line}; "
                "begin each with a text that the other doesn't begin with, or put {iss} first",
            )
