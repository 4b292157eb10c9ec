"""Where the token is in a request.

It decides which bytes of the request are the credential (`auth.token_from`). It must never choose between two different
ones: the gateway would judge by one and the upstream by the other (Kong's JWT plugin refuses them for that reason).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.credentials.outcomes import Source, Unauthenticated
from policies.reasons import Reason

Headers = list[tuple[bytes, bytes]]

HEADER: Final = Source("header", "authorization")
_OWS: Final = b" \t"
_NO_ALPHANUMERIC: Final = re.compile(rb"[^A-Za-z0-9]")

_MANY: Final = Unauthenticated(Reason.BAD_REQUEST, "The request holds more than one credential.")
_MISSING: Final = Unauthenticated(Reason.TOKEN_MISSING, "The request holds no token.")
_OTHER_SCHEME: Final = Unauthenticated(
    Reason.TOKEN_MISSING, "The Authorization header holds no token: 'Bearer TOKEN' is expected."
)


def parse_sources(token_from: Iterable[str]) -> tuple[Source, ...]:
    """The places that `header`, `cookie:NAME` and `query:NAME` spell, the header first. Raises ValueError on another word.

    The header comes first because a token that is there as well as in a cookie was not put there by a foreign page.
    """
    found: list[Source] = []
    for word in token_from:
        kind, _, name = word.partition(":")
        if word == "header":
            found.insert(0, HEADER)
        elif kind == "cookie" and name:
            found.append(Source("cookie", name))
        elif kind == "query" and name:
            found.append(Source("query", name))
        else:
            raise ValueError(f"{word!r} is not header, cookie:NAME or query:NAME")
    return tuple(dict.fromkeys(found))


def key_source(header: str) -> Source:
    """The header of its own in which API keys are looked for."""
    return Source("key", header.lower())


def fields_read(sources: tuple[Source, ...]) -> frozenset[bytes]:
    """The fields that `find_token` looks into, of all whose names are of letters, digits and hyphens."""
    names = {"header": "authorization", "cookie": "cookie"}
    return frozenset(
        _NO_ALPHANUMERIC.sub(b"-", names.get(source.kind, source.name).encode())
        for source in sources
        if source.kind != "query"
    )


def find_token(
    sources: tuple[Source, ...], headers: Headers, query: bytes
) -> tuple[bytes, tuple[Source, ...]] | Unauthenticated:
    """The one credential in the request and those of `sources` that hold it, in their order."""
    credential: bytes | None = None
    places: tuple[Source, ...] = ()
    missing = _MISSING
    for source in sources:
        if source.kind == "header":
            inside = _in_header(headers)
            if isinstance(inside, Unauthenticated):
                if inside is _MANY:
                    return inside
                missing = inside
                continue
            tokens = [inside]
        elif source.kind == "key":
            tokens = _in_key_header(headers, source.name)
            if len(tokens) > 1:
                return _MANY
        else:
            tokens = _in_cookies(headers, source.name) if source.kind == "cookie" else _in_query(query, source.name)
        for token in tokens:
            if credential is None:
                credential = token
            elif credential != token:
                return _MANY
        if tokens:
            places += (source,)
    return missing if credential is None else (credential, places)


def _in_header(headers: Headers) -> bytes | Unauthenticated:
    value: bytes | None = None
    for name, content in headers:
        if name == b"authorization":
            if value is not None:
                return _MANY  # a field of which there is one (RFC 9110, section 11.6.2), even when both say the same
            value = content
    if value is None:
        return _MISSING
    scheme, _, token = value.strip(_OWS).partition(b" ")
    token = token.lstrip(b" ")
    return token if token and scheme.lower() == b"bearer" else _OTHER_SCHEME


def _in_key_header(headers: Headers, wanted: str) -> list[bytes]:
    length = len(wanted)  # compared first: this looks at every header of every request
    found = [value.strip(_OWS) for name, value in headers if len(name) == length and _is_spelling(name, wanted)]
    return [value for value in found if value] if found else found


def _is_spelling(name: bytes, wanted: str) -> bool:
    """Whether the upstream may read this name as `wanted`: to WSGI, CGI and PHP, `_` and `-` are one, to lighttpd all such."""
    return len(name) == len(wanted) and _NO_ALPHANUMERIC.sub(b"-", name) == _NO_ALPHANUMERIC.sub(b"-", wanted.encode())


def _in_cookies(headers: Headers, wanted: str) -> list[bytes]:
    return [
        value
        for name, content in headers
        if name == b"cookie"
        for value in [_cookie_value(pair, wanted) for pair in content.split(b";")]
        if value
    ]


def _cookie_value(pair: bytes, wanted: str) -> bytes | None:
    name, _, value = pair.partition(b"=")
    return value.strip(_OWS) if name.strip(_OWS) == wanted.encode() else None


def _in_query(query: bytes, wanted: str) -> list[bytes]:
    return [value for value in (_query_value(pair, wanted) for pair in query.split(b"&")) if value]


def _query_value(pair: bytes, wanted: str) -> bytes | None:
    """The value of a pair of that name, however the name is escaped: the upstream would read it with escapes decoded."""
    name, _, value = pair.partition(b"=")
    return unquote_to_bytes(value) if unquote_to_bytes(name.replace(b"+", b" ")) == wanted.encode() else None


def without_token(sources: tuple[Source, ...], headers: Headers, query: bytes) -> tuple[Headers, bytes]:
    """The request without what `find_token` looks at in these places; the rest byte for byte."""
    for source in sources:
        if source.kind == "header":
            headers = [pair for pair in headers if not (pair[0] == b"authorization" and _is_bearer(pair[1]))]
        elif source.kind == "key":
            headers = [pair for pair in headers if not _is_spelling(pair[0], source.name)]
        elif source.kind == "cookie":
            headers = [kept for pair in headers if (kept := _without_cookie(pair, source.name)) is not None]
        else:
            pairs = query.split(b"&")
            kept_pairs = [pair for pair in pairs if _query_value(pair, source.name) is None]
            query = query if len(kept_pairs) == len(pairs) else b"&".join(kept_pairs)
    return headers, query


def _is_bearer(value: bytes) -> bool:
    return value.strip(_OWS)[:6].lower() == b"bearer"


def _without_cookie(header: tuple[bytes, bytes], wanted: str) -> tuple[bytes, bytes] | None:
    name, content = header
    if name != b"cookie":
        return header
    pairs = content.split(b";")
    kept = [pair for pair in pairs if _cookie_value(pair, wanted) is None]
    if len(kept) == len(pairs):
        return header
    rest = b";".join(kept).strip(_OWS)
    return (name, rest) if rest else None
