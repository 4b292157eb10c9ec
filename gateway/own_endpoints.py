"""`/_gateway/*` on the public listener: who may reach the gateway's own endpoints, and what every answer of theirs carries.

It decides that these are never forwarded, whatever their spelling, which of them need a caller, and when a cookie is
not enough to be one. It must never write a payment link into a log or a label (P9).
"""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect

from gateway.answers import Asked, Headers
from gateway.credentials import Unauthenticated
from gateway.upstream.outcome import Message, Send
from gateway.walk import OWN, RESERVED_SEGMENT, Walk
from policies.caller import SCOPE_KEY
from policies.paths import Target
from policies.reasons import Reason

ASKED_KEY: Final = "gateway.asked"
"""In the scope of the gateway's own endpoints: the `Asked` that their answers are built from."""

_NEEDS_CALLER: Final = frozenset({"/_gateway/me", "/_gateway/checkout", "/_gateway/portal"})
_KEYS: Final = "/_gateway/keys"
_NEEDS_TOKEN: Final = frozenset({"/_gateway/portal"})
"""And everything of `_KEYS`: whoever holds an API key may use the API with it, not make keys or change cards."""

_LABELS: Final = frozenset({"keys", "stripe", "me", "plans", "checkout", "pay", "portal", "return", "problems"})
_RESERVED: Final = (RESERVED_SEGMENT,)
_SAFE: Final = frozenset({"GET", "HEAD"})
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-Request-Id"),
    (b"access-control-max-age", b"600"),
)


def is_reserved(target: Target) -> bool:
    """Under `/_gateway`, as strictly as any server behind us might read it."""
    return target.folded[:1] == _RESERVED or any(reading[:1] == _RESERVED for reading in target.further)


async def serve_own(walk: Walk, target: Target) -> None:
    """One request under the reserved prefix, by the app of its plan."""
    walk.route = walk.path = _label(target)
    walk.reason = OWN
    asked = walk.asked()
    send = _completing(walk, asked)
    if walk.method == "OPTIONS" and asked.origin:
        extra = list(_PREFLIGHT) if walk.plan.answers.readable_from(asked.origin) else []
        await send({"type": "http.response.start", "status": 204, "headers": extra})
        return await send({"type": "http.response.body", "body": b""})
    scope = walk.scope
    # What was judged is what is served: another server's reading of the escapes has no say.
    scope["path"] = target.path
    scope[ASKED_KEY] = asked
    of_keys = target.path == _KEYS or target.path.startswith(f"{_KEYS}/")
    if of_keys or target.path in _NEEDS_CALLER:
        authenticated = await walk.authenticate()
        if isinstance(authenticated, Unauthenticated):
            return await walk.refuse(authenticated.reason, authenticated.detail)
        if authenticated.caller.key_id is not None and (of_keys or target.path in _NEEDS_TOKEN):
            return await walk.refuse(Reason.FORBIDDEN, "An API key is not believed here: send a token.")
        # A browser sends cookies along with a foreign page's form; its Origin tells the two apart.
        by_cookie = authenticated.source.kind == "cookie" and walk.method not in _SAFE
        if by_cookie and asked.origin not in walk.plan.own_origins:
            detail = "A cookie alone is not believed here: send an allowed Origin, or the token in a header."
            return await walk.refuse(Reason.FORBIDDEN, detail)
        walk.customer = authenticated.caller.customer
        scope[SCOPE_KEY] = authenticated.caller
    try:
        await walk.plan.own_app(scope, walk.receive, send)
    except ClientDisconnect:
        walk.caller_left()
    return None


def _label(target: Target) -> str:
    """A label of ours for the log and the metrics: a payment link counts as a secret."""
    second = target.segments[1] if len(target.segments) > 1 else ""
    return f"/_gateway/{second}" if second in _LABELS else "/_gateway/*"


def _completing(walk: Walk, asked: Asked) -> Send:
    """`send` with what every answer of the gateway's own carries."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            for name, value in (
                (b"x-request-id", asked.request_id.encode()),
                (b"cache-control", b"no-store"),
                (b"vary", walk.plan.answers.vary),
                *walk.plan.answers.readable_from(asked.origin),
            ):
                if name not in present:
                    headers.append((name, value))
            walk.status = message["status"]
            walk.reason = next((value.decode() for name, value in headers if name == b"x-gateway-reason"), walk.reason)
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body" and walk.method != "HEAD":
            walk.bytes_sent += len(message.get("body", b""))
        await walk.send(message)

    return sending
