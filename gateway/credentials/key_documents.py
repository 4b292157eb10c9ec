"""One visit to an issuer: its discovery document, if it is to be asked for, and its key set.

It decides what counts as a good answer. It must never follow a redirect, read without a bound, or take a key set from a
place that neither gateway.yaml nor the issuer it names points at.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx

from gateway.credentials.keys import KeySet, VerificationKey, key_from_jwk
from gateway.credentials.outcomes import Flaw
from gateway.credentials.strict_json import parse_object

LARGEST_DOCUMENT: Final = 1 << 20
MOST_KEYS: Final = 100
VISIT_SECONDS: Final = 10.0
"""For all of one visit, so that an answer that drips byte by byte ends, too."""

# Compressed bytes could unfold to any size, so none are asked for and none are taken.
_REQUEST_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})\"?(?=$|[\s,])", re.IGNORECASE | re.ASCII)


# `no-cache="Set-Cookie"` speaks of that field alone.
_NOT_KEPT: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?=$|[\s,])", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an issuer's keys are: at `jwks_url`, or where its discovery document says when that is None."""

    issuer: str
    jwks_url: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A good answer. `max_age` is how long the issuer says it holds; `unusable` says why keys were left out."""

    keys: KeySet
    max_age: int | None
    unusable: tuple[str, ...]


async def visit(client: httpx.AsyncClient, place: Place, algorithms: frozenset[str]) -> Fetched | Flaw:
    """The keys that the issuer offers now for the pinned algorithms, or what went wrong."""
    client.cookies.clear()  # every visit is a first one
    try:
        async with asyncio.timeout(VISIT_SECONDS):
            url = place.jwks_url
            if url is None:
                discovered = await _discover(client, place.issuer)
                if isinstance(discovered, Flaw):
                    return Flaw(f"discovery document {discovered.clause}")
                url = discovered
            answer = await _get(client, url)
    except TimeoutError:
        return Flaw(f"gave no whole answer within {VISIT_SECONDS:g} s")
    if isinstance(answer, Flaw):
        return Flaw(f"key set {answer.clause}")
    document, max_age = answer
    return _usable(document, max_age, algorithms)


async def _discover(client: httpx.AsyncClient, issuer: str) -> str | Flaw:
    """`jwks_uri` of the issuer's document (OpenID Connect Discovery 1.0, section 4)."""
    answer = await _get(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
    if isinstance(answer, Flaw):
        return answer
    document, _ = answer
    if document.get("issuer") != issuer:
        return Flaw(f"is not of '{issuer}': its 'issuer' must be the same to the letter (section 4.3)")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or not _is_safe(url, issuer):
        return Flaw("has no 'jwks_uri' that is an https URL")
    return url


def _is_safe(url: str, issuer: str) -> bool:
    """https; or http to this machine, or to the very origin that gateway.yaml already trusts over http."""
    try:
        parts, known = urlsplit(url), urlsplit(issuer)
        origins_equal = _origin(parts) == _origin(known)
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (origins_equal or _is_loopback(parts.hostname)))


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _get(client: httpx.AsyncClient, url: str) -> tuple[dict[str, Any], int | None] | Flaw:
    """The JSON object at `url` and how long it holds. Clauses name no URL: one may hold a password."""
    try:
        async with client.stream("GET", url, headers=_REQUEST_HEADERS, follow_redirects=False) as response:
            if response.status_code != httpx.codes.OK:
                return Flaw(f"was answered with {response.status_code}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                return Flaw("came compressed, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > LARGEST_DOCUMENT:
                    return Flaw(f"is larger than {LARGEST_DOCUMENT} bytes")
            max_age = _max_age(response.headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Flaw(f"could not be fetched ({type(error).__name__})")
    document = parse_object(bytes(body))
    return document if isinstance(document, Flaw) else (document, max_age)


def _max_age(headers: httpx.Headers) -> int | None:
    """How long the answer is fresh (RFC 9111, section 4.2.1): `max-age` before `Expires`, less what `Age` says is over.

    What may not be stored, or not be used without asking again, is fresh for no time; None where nothing is said.
    """
    control = headers.get("cache-control", "")
    if _NOT_KEPT.search(control):
        return 0
    found = _MAX_AGE.search(control)
    if found is not None:
        lifetime = int(found[1])
    elif "expires" in headers:
        # A date that can't be read is one in the past (section 5.3), and most say "0" on purpose.
        expires, date = _moment(headers["expires"]), _moment(headers.get("date", ""))
        lifetime = 0 if expires is None or date is None else int(expires - date)
    else:
        return None
    age = headers.get("age", "0")
    return max(0, lifetime - (int(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0))


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _usable(document: dict[str, Any], max_age: int | None, algorithms: frozenset[str]) -> Fetched | Flaw:
    """The keys of the set that can be used; RFC 7517, section 5 has the others ignored."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        return Flaw("key set has no list 'keys'")
    if len(listed) > MOST_KEYS:
        return Flaw(f"key set holds more than {MOST_KEYS} keys")
    keys: list[VerificationKey] = []
    unusable: list[str] = []
    for jwk in listed:
        key = _public_jwk(jwk, algorithms)
        if isinstance(key, Flaw):
            unusable.append(f"a key of it {key.clause}")
        else:
            keys.append(key)
    return Fetched(KeySet(tuple(keys)), max_age, tuple(dict.fromkeys(unusable)))


def _public_jwk(jwk: object, algorithms: frozenset[str]) -> VerificationKey | Flaw:
    if not isinstance(jwk, dict):
        return Flaw("is not a JSON object")
    if jwk.get("kty") == "oct":
        return Flaw("is a secret, and one that is published")
    return key_from_jwk(jwk, algorithms)
