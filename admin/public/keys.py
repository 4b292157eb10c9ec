"""`/_gateway/keys`: a customer's own API keys, managed with a token and never with a key.

A key that could make others would outlive its own revocation. Whose keys these are is who the token names, and a key of
somebody else is no key at all. A new key stands in one answer, and in nothing else (P9).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from admin.api_keys import KeyOperations, KeyView, Made, NoSuchKey
from admin.ledger.engine import LedgerDownError
from admin.operations import Rejected
from admin.public.body import LARGEST_FORM, Malformed, TooLarge, read_bounded
from admin.public.ports import PublicPorts
from policies.api_key import scopes_problem
from policies.caller import SCOPE_KEY, Caller
from policies.reasons import Reason

BY_CUSTOMER: Final = "customer"
_OF_THE_OPERATOR: Final = frozenset({"customer", "created_by", "revoked_by"})

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The fields of a request's body; what was left out is None."""

    name: str | None = None
    expires: str | None = None
    overlap: str | None = None
    scopes: tuple[str, ...] | None = None


class KeyEndpoints:
    """`operations` gives None where this gateway keeps no keys."""

    def __init__(self, ports: PublicPorts) -> None:
        self._ports = ports

    def routes(self) -> tuple[tuple[list[str], str, Endpoint], ...]:
        """Methods, path and endpoint of each."""
        return (
            (["GET"], "/_gateway/keys", self._guarded(self._list)),
            (["POST"], "/_gateway/keys", self._guarded(self._create)),
            (["POST"], "/_gateway/keys/{key}/rotate", self._guarded(self._rotate)),
            (["POST"], "/_gateway/keys/{key}/revoke", self._guarded(self._revoke)),
        )

    def _guarded(self, serve: Callable[[Request, KeyOperations, str], Awaitable[Response]]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            caller = request.scope[SCOPE_KEY]
            if not isinstance(caller, Caller) or caller.key_id is not None:
                raise TypeError("keys were reached without a token")
            operations = self._ports.keys
            if operations is None or not operations.enabled:
                return self._refuse(request, Reason.NO_ROUTE, "This gateway gives no API keys.")
            try:
                return await serve(request, operations, caller.customer)
            except LedgerDownError:
                detail = "Whether that was done can't be said right now: look at the list of keys in a moment."
                return self._refuse(request, Reason.KEYS_UNAVAILABLE, detail)

        return endpoint

    async def _list(self, _request: Request, operations: KeyOperations, customer: str) -> Response:
        return JSONResponse({"keys": [_shown(one) for one in await operations.keys_of(customer)]})

    async def _create(self, request: Request, operations: KeyOperations, customer: str) -> Response:
        asked = await self._asked(request, customer, {"name", "expires", "scopes"})
        if isinstance(asked, Response):
            return asked
        beyond = _beyond(request, asked.scopes)
        if beyond:
            return self._refuse(request, Reason.SCOPE_MISSING, beyond)
        made = await operations.create(
            customer, name=asked.name or "", expires=asked.expires, scopes=asked.scopes, by=BY_CUSTOMER
        )
        return self._made(request, made)

    async def _rotate(self, request: Request, operations: KeyOperations, customer: str) -> Response:
        asked = await self._asked(request, customer, {"overlap"})
        if isinstance(asked, Response):
            return asked
        key = request.path_params["key"]
        known = next((one for one in await operations.keys_of(customer) if one.id == key), None)
        beyond = _beyond(request, known.scopes if known is not None else None)
        if beyond:
            return self._refuse(request, Reason.SCOPE_MISSING, beyond)
        return self._made(request, await operations.rotate(key, overlap=asked.overlap, by=BY_CUSTOMER, owner=customer))

    async def _revoke(self, request: Request, operations: KeyOperations, customer: str) -> Response:
        outcome = await operations.revoke(request.path_params["key"], by=BY_CUSTOMER, owner=customer)
        if isinstance(outcome, NoSuchKey | Rejected):
            return self._rejected(request, outcome)
        return JSONResponse({"revoked": True})

    async def _asked(self, request: Request, customer: str, known: set[str]) -> _Asked | Response:
        entitlement = await self._ports.entitlement(customer)
        if entitlement is not None and entitlement.facts.blocked is not None:
            detail = "This customer has been blocked by the API's owner, so they get no keys."
            return self._refuse(request, Reason.BLOCKED, detail)
        body = await read_bounded(request, LARGEST_FORM)
        if isinstance(body, TooLarge):
            return self._refuse(request, Reason.BODY_TOO_LARGE, f"This endpoint takes at most {body.limit} bytes.")
        asked = _read(body, known)
        return self._refuse(request, Reason.BAD_REQUEST, asked.detail) if isinstance(asked, Malformed) else asked

    def _made(self, request: Request, made: Made | Rejected | NoSuchKey) -> Response:
        if isinstance(made, Made):
            return JSONResponse({"key": made.text, **_shown(made.view)}, status_code=201)
        return self._rejected(request, made)

    def _rejected(self, request: Request, outcome: Rejected | NoSuchKey) -> Response:
        reason = Reason.NO_ROUTE if isinstance(outcome, NoSuchKey) else Reason.BAD_REQUEST
        return self._refuse(request, reason, outcome.detail)

    def _refuse(self, request: Request, reason: Reason, detail: str) -> Response:
        return self._ports.refuse(request.scope, reason, detail)


def _beyond(request: Request, scopes: Sequence[str] | None) -> str:
    """What a key would have that the token has not: whoever may make keys must not reach further with one."""
    caller: Caller = request.scope[SCOPE_KEY]
    if scopes is None or scopes_problem(tuple(scopes)) is not None:
        return ""  # what is no scope is told as such
    beyond = [scope for scope in scopes if scope not in (caller.scopes or ())]
    return f"The token doesn't hold {', '.join(map(repr, beyond))}, so no key of it can." if beyond else ""


def _shown(view: KeyView) -> dict[str, Any]:
    """Without what is the operator's business: the names of those who act for them."""
    return view.model_dump(exclude=set(_OF_THE_OPERATOR))


def _read(body: bytes, known: set[str]) -> _Asked | Malformed:
    """The fields of a JSON object; an empty body has none."""
    if not body.strip():
        return _Asked()
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return Malformed("The body is not a JSON object.")
    if not isinstance(fields, dict):
        return Malformed("The body is not a JSON object.")
    for name, value in fields.items():
        if name not in known:
            # As ASCII: JSON can spell half a surrogate pair, which no answer could be encoded with.
            return Malformed(f"{name[:40]!a} is not a field of this request; it takes {', '.join(sorted(known))}.")
        if name == "scopes":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                return Malformed("'scopes' must be a list of strings.")
        elif not isinstance(value, str) or not value.isprintable():
            return Malformed(f"'{name}' must be a printable string.")
    scopes = fields.get("scopes")
    return _Asked(**{**fields, "scopes": None if scopes is None else tuple(scopes)})
