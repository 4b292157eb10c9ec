"""Small request bodies of the gateway's own endpoints, read whole under a bound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

LARGEST_FORM: Final = 64 * 1024
LARGEST_EVENT: Final = 1024 * 1024
"""Stripe's events stay far below this; whatever is larger is nothing of Stripe's."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """More bytes than this endpoint takes."""

    limit: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """Not a body that this endpoint understands; `detail` says how."""

    detail: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a payer asks to buy. Everything may be left out but a tier where no link names one."""

    tier: str | None = None
    price: str | None = None
    interval: str | None = None


async def read_bounded(request: Request, limit: int) -> bytes | TooLarge:
    """The raw body, or TooLarge as soon as it is."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            return TooLarge(limit)
    return bytes(data)


async def read_choice(request: Request) -> Choice | TooLarge | Malformed:
    """`tier`, `price` and `interval` from JSON or a form; an empty body chooses nothing."""
    data = await read_bounded(request, LARGEST_FORM)
    if isinstance(data, TooLarge):
        return data
    fields = _fields(data, request.headers.get("content-type", ""))
    if isinstance(fields, Malformed):
        return fields
    for name, value in fields.items():
        if name not in {"tier", "price", "interval"}:
            # As ASCII: JSON can spell half a surrogate pair, which no answer could be encoded with.
            return Malformed(f"{name[:40]!a} is not a field of this request; it takes tier, price and interval.")
        if not isinstance(value, str) or not value or not value.isprintable():
            return Malformed(f"'{name}' must be a printable string that is not empty.")
    return Choice(**fields)


def _fields(data: bytes, content_type: str) -> dict[str, Any] | Malformed:
    if not data.strip():
        return {}
    media = content_type.partition(";")[0].strip().lower()
    try:
        text = data.decode("utf-8")
        if media == "application/x-www-form-urlencoded" and not text.lstrip().startswith("{"):
            return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=10))
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return Malformed('The body is neither a form nor a JSON object such as {"tier": "pro"}.')
    if not isinstance(fields, dict):
        return Malformed('The body must be a JSON object such as {"tier": "pro"}.')
    return fields
