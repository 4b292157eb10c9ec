"""Who is calling: from a request's headers to a verified caller.

It decides in one synchronous walk, without I/O: find the token, know it again, or take it apart, pick its issuer, verify,
check its claims, name the customer. It must never recognise a token by less than all its bytes (LiteLLM CVE-2026-35030
took the first twenty, which are the same for everybody), nor longer than its `exp` and the key set that verified it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import httpx

from gateway.credentials.api_keys import ApiKeys
from gateway.credentials.bearer import (
    HEADER,
    Headers,
    fields_read,
    find_token,
    key_source,
    parse_sources,
    without_token,
)
from gateway.credentials.claims import EXPIRED
from gateway.credentials.compact import LONGEST_TOKEN, take_apart
from gateway.credentials.issuers import IssuerRules, KeySource, StaticKeys, TrustedIssuer, compile_issuers
from gateway.credentials.jwks import Bounds, KeyHealth, KeyState, RemoteKeys, open_client
from gateway.credentials.key_documents import Place
from gateway.credentials.keys import KeySet
from gateway.credentials.outcomes import Authenticated, Flaw, Source, Unauthenticated, invalid
from gateway.credentials.strict_json import parse_object
from policies import schema
from policies.api_key import PREFIX
from policies.reasons import Reason

REMEMBERED_TOKENS: Final = 50_000
SETTLE_SECONDS: Final = 2.0

_KEY_PREFIX: Final = PREFIX.encode()
_NO_RECORDS: Final = Unauthenticated(Reason.KEYS_UNAVAILABLE, "API keys can't be looked up here.")
_NO_ISSUER: Final = invalid("The token is not of an issuer that this gateway trusts.")
_WRONG_PLACE: Final = invalid("A token of this issuer is not taken from where this one was sent ('token_from').")


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A verified token: what it came to, the keys that it stands and falls with, and where it may be sent."""

    outcome: Authenticated
    source: KeySource
    keys: KeySet
    places: frozenset[Source] | None


@dataclass(frozen=True, slots=True)
class Sought:
    """A credential that was found where `by` looks for one; `digest` is empty for an API key."""

    by: Authenticator = field(repr=False)
    token: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    places: tuple[Source, ...]


class Authenticator:
    """Everything of `auth` in gateway.yaml, ready for requests.

    `kept_claims` are those that routes ask for: `policies.scopes.asked_claims`.

    Raises ValueError where `issuer_problems(auth)` would have named a problem: ask that first.
    """

    def __init__(
        self,
        auth: schema.Auth,
        *,
        now: Callable[[], float],
        api_keys: ApiKeys | None = None,
        kept_claims: frozenset[str] = frozenset(),
        bounds: Bounds | None = None,
        remembered_tokens: int = REMEMBERED_TOKENS,
        client: Callable[[], httpx.AsyncClient] = open_client,
    ) -> None:
        compiled, problems = compile_issuers(auth)
        if problems:
            raise ValueError(" ".join(f"auth.issuers[{one.index}]: {one.message}" for one in problems))
        words = [*auth.token_from, *(word for entry in auth.issuers for word in entry.token_from or ())]
        self.sources = parse_sources(words)
        self.telltale_places = tuple(place for place in self.sources if place.kind in {"cookie", "query"})
        self._takes_keys = auth.api_keys.enabled
        self._takes_bearer_keys = self._takes_keys and "header" in auth.token_from
        if self._takes_keys:
            self.sources += (key_source(auth.api_keys.header),)
        self._fields_read = fields_read(self.sources)
        self._api_keys = api_keys
        self._now = now
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._most_remembered = remembered_tokens
        self._remote: list[RemoteKeys] = []
        self._issuers: dict[str, TrustedIssuer] = {}
        for entry, rules in zip(auth.issuers, compiled, strict=True):
            source = self._key_source(entry, rules, bounds or Bounds(), client)
            self._issuers[rules.issuer] = TrustedIssuer(rules, source, kept_claims)

    def _key_source(
        self, entry: schema.Issuer, rules: IssuerRules, bounds: Bounds, client: Callable[[], httpx.AsyncClient]
    ) -> KeySource:
        if rules.keys is not None:
            return StaticKeys(rules.keys)
        place = Place(rules.issuer, None if entry.discovery else entry.jwks_url)
        remote = RemoteKeys(place, rules.algorithms, now=self._now, bounds=bounds, client=client)
        self._remote.append(remote)
        return remote

    def authenticate(self, headers: Headers, query: bytes = b"") -> Authenticated | Unauthenticated:
        """Who sent this request. Header names are in lower case, as ASGI has them. Never waits and calls nobody."""
        found = find_token(self.sources, headers, query)
        if isinstance(found, Unauthenticated):
            return found
        token, places = found
        if len(token) > LONGEST_TOKEN:
            return invalid(f"The token is longer than {LONGEST_TOKEN} bytes.")
        first = places[0]
        if self._is_key(token, first):
            return _NO_RECORDS if self._api_keys is None else self._api_keys.recognise(token, first)
        now = self._now()
        digest = sha256(token).digest()
        known = self._known(digest, places, now)
        if known is not None:
            return known
        return self._verify(token, digest, places, now)

    def seek(self, headers: Headers, query: bytes = b"") -> Sought | None:
        """The one credential of a request, for `recall`; None where `authenticate` has something to say."""
        found = find_token(self.sources, headers, query)
        if isinstance(found, Unauthenticated):
            return None
        token, places = found
        if len(token) > LONGEST_TOKEN:
            return None
        is_key = self._is_key(token, places[0])
        return Sought(self, token, b"" if is_key else sha256(token).digest(), places)

    def reads(self, name: bytes) -> bool:
        """Whether what is found may depend on a field of this name, which is of letters, digits and hyphens."""
        return name in self._fields_read

    def recall(self, sought: Sought) -> Authenticated | None:
        """Whose credential that is, where it is known from before; None where `authenticate` has to look into it."""
        if not sought.digest:
            known = None if self._api_keys is None else self._api_keys.recognise(sought.token, sought.places[0])
        else:
            known = self._known(sought.digest, sought.places, self._now())
        return known if isinstance(known, Authenticated) else None

    def _is_key(self, token: bytes, place: Source) -> bool:
        return place.kind == "key" or (self._takes_bearer_keys and place is HEADER and token.startswith(_KEY_PREFIX))

    def _known(self, digest: bytes, places: tuple[Source, ...], now: float) -> Authenticated | Unauthenticated | None:
        """What a token that was verified before comes to now; None where it has to be verified."""
        remembered = self._remembered.get(digest)
        if remembered is None:
            return None
        if remembered.source.current(now) is not remembered.keys:
            del self._remembered[digest]
            return None
        if now >= remembered.outcome.caller.expires_at:
            del self._remembered[digest]
            return EXPIRED
        self._remembered.move_to_end(digest)
        outcome = remembered.outcome
        place = places[0] if remembered.places is None else _allowed(places, remembered.places)
        if place is None:
            return _WRONG_PLACE
        return outcome if outcome.source is place else Authenticated(outcome.caller, place)

    async def settle(
        self, outcome: Authenticated | Unauthenticated, headers: Headers, query: bytes = b""
    ) -> Authenticated | Unauthenticated:
        """The outcome once the key fetch that it hangs on has ended, after two seconds at most; else at once as it is."""
        if isinstance(outcome, Authenticated) or outcome.awaited is None:
            return outcome
        await outcome.awaited.landed(SETTLE_SECONDS)
        return self.authenticate(headers, query)

    def without_token(self, headers: Headers, query: bytes) -> tuple[Headers, bytes]:
        """The request without the credential, for upstreams with `forward_token: false`."""
        return without_token(self.sources, headers, query)

    def without_telltale(self, headers: Headers, query: bytes) -> tuple[Headers, bytes]:
        """The request without a credential in a cookie or the query, where logs, caches and links would repeat it."""
        return without_token(self.telltale_places, headers, query)

    def inherit_keys(self, previous: Authenticator) -> None:
        """Begin with the keys that an earlier configuration fetched, so that a reload in an outage loses none (P10)."""
        for remote in self._remote:
            for earlier in previous._remote:
                remote.inherit(earlier)

    async def start(self) -> None:
        """Begin to fetch keys in the background; returns at once, whatever the issuers do."""
        for remote in self._remote:
            await remote.start()

    async def stop(self) -> None:
        """End the background work and close its connections."""
        await asyncio.gather(*(remote.stop() for remote in self._remote))

    def health(self) -> tuple[KeyHealth, ...]:
        """The state of every issuer's keys, in the order of gateway.yaml."""
        now = self._now()
        states: list[KeyHealth] = []
        for issuer in self._issuers.values():
            if isinstance(issuer.source, RemoteKeys):
                states.append(issuer.source.health(now))
            else:
                keys = issuer.rules.keys
                states.append(KeyHealth(issuer.rules.issuer, KeyState.OK, len(keys.keys) if keys else 0))
        return tuple(states)

    def _verify(
        self, token: bytes, digest: bytes, places: tuple[Source, ...], now: float
    ) -> Authenticated | Unauthenticated:
        parts = take_apart(token)
        if isinstance(parts, Unauthenticated):
            return parts
        claims = parse_object(parts.payload)
        if isinstance(claims, Flaw):
            return invalid(f"The token's payload {claims.clause}.")
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            return _NO_ISSUER
        allowed = issuer.rules.places
        place = places[0] if allowed is None else _allowed(places, allowed)
        if place is None:
            return _WRONG_PLACE
        keys = issuer.source.current(now)
        if keys is None:
            awaited = issuer.source.seek(now)
            return Unauthenticated(Reason.KEYS_UNAVAILABLE, "The keys of the token's issuer are out of reach.", awaited)
        caller = issuer.verify(parts, claims, keys, now)
        if isinstance(caller, Unauthenticated):
            return caller
        outcome = Authenticated(caller, place)
        self._remember(digest, _Remembered(outcome, issuer.source, keys, allowed))
        return outcome

    def _remember(self, digest: bytes, entry: _Remembered) -> None:
        self._remembered[digest] = entry
        while len(self._remembered) > self._most_remembered:
            self._remembered.popitem(last=False)


def _allowed(places: tuple[Source, ...], allowed: frozenset[Source]) -> Source | None:
    """The first of the places that held the token from which it may be taken."""
    return next((place for place in places if place in allowed), None)
