"""Keeps credentials out of an explained request (P9): what was asked with is never answered with.

It decides what of a request is a credential: whatever stands where one is looked for, good or not, and what the gateway
itself puts before an upstream. It must show everything else as it is, since that is what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from gateway.credentials.bearer import Headers, without_token
from gateway.credentials.outcomes import Source
from policies.effective import MASK
from policies.explain_report import Report

T = TypeVar("T")

_SCHEMES: Final = frozenset({b"authorization", b"proxy-authorization"})
_SCHEME_NAMES: Final = frozenset({b"bearer", b"basic", b"digest", b"negotiate", b"token"})
"""What may stand there by itself, and stands in the gateway's own words as well: no secret."""
SHORTEST: Final = 4
"""In bytes. What is shorter would be found in words that have nothing to do with it, and is no credential."""


def masked(
    report: Report, sources: tuple[Source, ...], headers: Headers, query: bytes, set_by_gateway: Iterable[str]
) -> Report:
    """The report with each credential of the request as `MASK`, and the headers that the gateway itself sets upstream."""
    found = (secret for secret in _credentials(sources, headers, query) if len(secret) >= SHORTEST)
    secrets = {secret for secret in found if secret.lower() not in _SCHEME_NAMES}
    texts = sorted((secret.decode("latin-1") for secret in secrets), key=len, reverse=True)
    shown = _without(report, texts)
    if shown.forwarded is None:
        return shown
    hidden = {name.lower() for name in set_by_gateway}
    sent = tuple((name, MASK if name in hidden else value) for name, value in shown.forwarded.headers)
    return replace(shown, forwarded=replace(shown.forwarded, headers=sent))


def _credentials(sources: tuple[Source, ...], headers: Headers, query: bytes) -> Iterator[bytes]:
    for name, value in headers:
        if name in _SCHEMES:
            yield value.strip()
            yield value.strip().partition(b" ")[2].strip()
    kept, kept_query = without_token(sources, headers, query)
    left = list(kept)
    for name, value in headers:
        if (name, value) in left:
            left.remove((name, value))
        elif name == b"cookie":
            others = {pair.strip() for kept_name, content in kept if kept_name == name for pair in content.split(b";")}
            yield from (pair.partition(b"=")[2].strip() for pair in value.split(b";") if pair.strip() not in others)
        else:
            yield value.strip()
    others = set(kept_query.split(b"&"))
    for pair in query.split(b"&"):
        if pair not in others:
            value = pair.partition(b"=")[2]
            yield from (value, unquote_to_bytes(value))


def _without(value: T, secrets: list[str]) -> T:
    """The same with no text in it that holds one of the secrets."""
    hidden: Any = value
    if isinstance(value, str):
        for secret in secrets:
            hidden = hidden.replace(secret, MASK)
    elif isinstance(value, tuple):
        hidden = tuple(_without(one, secrets) for one in value)
    elif is_dataclass(value) and not isinstance(value, type):
        hidden = replace(value, **{one.name: _without(getattr(value, one.name), secrets) for one in fields(value)})
    return hidden  # type: ignore[no-any-return]
