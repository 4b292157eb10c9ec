"""Who is trusted to say who is calling.

It decides, from gateway.yaml, which keys and claims make a token of an issuer a good one. It must never verify a token
with another issuer's keys: the token's `iss` picks the issuer before its signature is looked at, and nothing else of the
token picks anything (P8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from gateway.credentials.bearer import parse_sources
from gateway.credentials.claims import ClaimRules, check_claims
from gateway.credentials.compact import Compact, media_type
from gateway.credentials.customers import CustomerRule, claim_at, compile_customer
from gateway.credentials.keys import (
    MOST_CANDIDATES,
    SECRET_BYTES,
    KeySet,
    VerificationKey,
    key_from_jwk,
    key_from_pem,
    key_from_secret,
)
from gateway.credentials.outcomes import Awaited, Flaw, Source, Unauthenticated, invalid
from gateway.credentials.strict_json import parse_object
from policies import schema
from policies.caller import Caller
from policies.reasons import Reason
from policies.scopes import scopes_in, values_of

_verifier: Final = PyJWS()


class KeySource(Protocol):
    """Where the keys of one issuer come from."""

    def current(self, now: float) -> KeySet | None:
        """The keys to go by now, or None while there are none. A removed key is in no set from then on."""

    def seek(self, now: float) -> Awaited | None:
        """Ask for newer keys. What to wait for, or None when no fetch is under way and none may start yet."""


@dataclass(frozen=True, slots=True)
class StaticKeys:
    """Keys written in gateway.yaml."""

    keys: KeySet

    def current(self, now: float) -> KeySet:  # noqa: ARG002 - they don't age
        """The same keys at all times."""
        return self.keys

    def seek(self, now: float) -> None:
        """There are no newer ones."""


@dataclass(frozen=True, slots=True)
class IssuerProblem:
    """Why one entry of `auth.issuers` can't be used: its position, the key at fault, and a sentence."""

    index: int
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """One entry of `auth.issuers`, compiled. `keys` is None where they are fetched, `places` where any will do."""

    issuer: str
    claims: ClaimRules
    algorithms: frozenset[str]
    types: frozenset[str]
    places: frozenset[Source] | None
    customer: CustomerRule
    keys: KeySet | None = field(repr=False)


def compile_issuers(auth: schema.Auth) -> tuple[tuple[IssuerRules, ...], tuple[IssuerProblem, ...]]:
    """The rules of the issuers and every problem of every issuer. The rules are whole only where there is no problem."""
    problems: list[IssuerProblem] = []
    compiled: list[IssuerRules] = []
    for index, entry in enumerate(auth.issuers):
        keys = _configured_keys(entry)
        customer = compile_customer(entry.customer, entry.issuer)
        found = [("customer", f"The customer template {customer.clause}.")] if isinstance(customer, Flaw) else []
        found += [keys] if isinstance(keys, tuple) else []
        found += _audience_problems(entry)
        if any(entry.issuer == earlier.issuer for earlier in auth.issuers[:index]):
            found.append(("issuer", "This issuer is named twice; a token's issuer must lead to one set of keys."))
        problems += [IssuerProblem(index, key, message) for key, message in found]
        if not isinstance(keys, tuple) and isinstance(customer, CustomerRule):
            compiled.append(_rules(auth, entry, customer, keys))
    if not problems:
        problems += _overlaps(auth, compiled)
    return tuple(compiled), tuple(problems)


def _rules(auth: schema.Auth, entry: schema.Issuer, customer: CustomerRule, keys: KeySet | None) -> IssuerRules:
    takes_any = all(issuer.token_from is None for issuer in auth.issuers)
    return IssuerRules(
        issuer=entry.issuer,
        claims=ClaimRules(
            audiences=entry.audience,
            required=tuple((name, frozenset(values)) for name, values in entry.claims.items()),
            leeway_seconds=entry.leeway,
            max_age_seconds=entry.max_age,
        ),
        algorithms=frozenset(entry.algorithms),
        types=frozenset(map(media_type, entry.types)),
        places=None if takes_any else frozenset(parse_sources(entry.token_from or auth.token_from)),
        customer=customer,
        keys=keys,
    )


def issuer_problems(auth: schema.Auth) -> tuple[IssuerProblem, ...]:
    """What in `auth.issuers` keeps tokens from being verified, for `gateway check`, start and reload."""
    return compile_issuers(auth)[1]


def key_problems(auth: schema.Auth) -> Iterator[IssuerProblem]:
    """What is wrong with the keys themselves, in a file that has other errors: nothing else of it is looked at."""
    for index, entry in enumerate(auth.issuers):
        keys = _configured_keys(entry)
        if isinstance(keys, tuple) and keys[0] in {"public_key", "secret"}:
            yield IssuerProblem(index, *keys)


def _audience_problems(entry: schema.Issuer) -> list[tuple[str, str]]:
    if entry.audience and all(entry.audience):
        return []
    return [("audience", "An audience is needed; an empty one matches nothing.")]


def _configured_keys(entry: schema.Issuer) -> KeySet | tuple[str, str] | None:
    """The keys in the entry, None where they are fetched, or the setting at fault and a sentence."""
    given = [name for name in ("jwks_url", "public_key", "secret") if getattr(entry, name) is not None]
    given += ["discovery"] if entry.discovery else []
    if len(given) != 1:
        return "issuer", "Exactly one of jwks_url, discovery, public_key and secret says where the keys are."
    if entry.secret is not None:
        return _single("secret", key_from_secret(entry.secret.get_secret_value(), entry.algorithms), entry)
    if any(name in SECRET_BYTES for name in entry.algorithms):
        return "algorithms", "HS256, HS384 and HS512 need a secret; next to public keys they would let anyone sign."
    if entry.public_key is not None:
        return _single("public_key", _public_key(entry.public_key, entry.algorithms), entry)
    url = entry.issuer if entry.discovery else entry.jwks_url or ""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        has_password = "@" in parts.netloc
    except ValueError:
        is_web = has_password = False
    if not is_web:
        return given[0], "Keys are fetched over https (or http): this is not such a URL."
    # Public keys need none, and HTTP clients write URLs into their logs (P9).
    return (given[0], "A URL of keys holds no user name and no password.") if has_password else None


def _public_key(text: str, algorithms: Iterable[str]) -> VerificationKey | Flaw:
    if not text.lstrip().startswith("{"):
        return key_from_pem(text, algorithms)
    jwk = parse_object(text.strip().encode())
    if isinstance(jwk, Flaw):
        return jwk
    return Flaw("is a secret, not a public key") if jwk.get("kty") == "oct" else key_from_jwk(jwk, algorithms)


def _single(name: str, key: VerificationKey | Flaw, entry: schema.Issuer) -> KeySet | tuple[str, str]:
    if isinstance(key, Flaw):
        return name, f"The {name} {key.clause}."
    useless = [algorithm for algorithm in entry.algorithms if algorithm not in key.algorithms]
    if useless:
        return "algorithms", f"The {name} can't verify {', '.join(useless)}."
    return KeySet((key,))


def _overlaps(auth: schema.Auth, compiled: list[IssuerRules]) -> list[IssuerProblem]:
    """Two issuers' `sub: 42` are two people unless gateway.yaml says otherwise (docs/design.md, section 3)."""
    return [
        IssuerProblem(
            later,
            "customer",
            f"This and '{compiled[earlier].issuer}' could name one customer for two people: give each a prefix such "
            "as 'acme:{sub}' or '{iss}|{sub}', or say shared_customers: true.",
        )
        for earlier, later in combinations(range(len(compiled)), 2)
        if not (auth.issuers[earlier].shared_customers or auth.issuers[later].shared_customers)
        and compiled[earlier].customer.overlaps(compiled[later].customer)
    ]


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer's rules and the source of its keys. Of a token's claims those named by `kept_claims` are handed on."""

    rules: IssuerRules
    source: KeySource
    kept_claims: frozenset[str] = frozenset()

    def verify(self, token: Compact, claims: dict[str, Any], keys: KeySet, now: float) -> Caller | Unauthenticated:
        """Whose token this is, by these keys. `claims` are those of the token's own payload."""
        if token.kind not in self.rules.types:
            return invalid("The token's type ('typ') is not one that is taken of its issuer.")
        if token.algorithm not in self.rules.algorithms:
            return invalid("The token is signed with an algorithm that is not the issuer's.")
        if not keys.keys:
            sentence = "The token's issuer offers no key that could verify it."
            return Unauthenticated(Reason.KEYS_UNAVAILABLE, sentence, self.source.seek(now))
        candidates = keys.candidates(token.kid, token.algorithm)
        if len(candidates) > MOST_CANDIDATES:
            return invalid("The token names no key of its issuer, which has several.")
        if not any(signature_fits(token, key) for key in candidates):
            sentence = (
                "The token's signature is wrong." if candidates else "No key of the issuer fits the token's key id."
            )
            # A key id that we have can't be waited for; another one, or none, may be of a key that is newer than ours.
            known = token.kid is not None and keys.named(token.kid)
            return Unauthenticated(Reason.TOKEN_INVALID, sentence, None if known else self.source.seek(now))
        expires_at = check_claims(claims, self.rules.claims, now)
        if isinstance(expires_at, Unauthenticated):
            return expires_at
        customer = self.rules.customer.customer(claims)
        if isinstance(customer, Unauthenticated):
            return customer
        kept = tuple((name, values_of(claim_at(claims, name))) for name in sorted(self.kept_claims))
        return Caller(customer, self.rules.issuer, expires_at, scopes=scopes_in(claims), claims=kept)


def signature_fits(token: Compact, key: VerificationKey) -> bool:
    """Whether this key made the token's signature, with one of the algorithms pinned for it."""
    try:
        _verifier.decode(token.token, key.material, algorithms=sorted(key.algorithms))
    except PyJWTError:
        return False
    return True
