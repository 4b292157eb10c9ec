"""The operator's listener: probes for anyone who reaches it, everything else for the operator's token.

It decides who is let in, once, for everything behind it: metrics and the admin API have no check of their own. The
token comes as `Authorization: Bearer`, or as a password (any user name), so that a browser can ask for it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from gateway.upstream.outcome import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Readiness = Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]

Gather = Callable[[Collector], Awaitable[Collector]]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Operator:
    """The operator listener's ASGI app. `before_metrics` refreshes gauges that are read when asked for."""

    def __init__(
        self,
        *,
        token: str,
        registry: CollectorRegistry,
        readiness: Readiness,
        before_metrics: Callable[[], Awaitable[None]],
        admin: App,
    ) -> None:
        self._token = token.encode()
        self._registry = registry
        self._readiness = readiness
        self._before_metrics = before_metrics
        self._admin = admin
        self.gather: Gather = _alone
        """What `/metrics` renders: this process's registry, or with it those of the workers."""

    def use_token(self, token: str) -> None:
        """From now on it is this one."""
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return None
        path: str = scope["path"]
        if path == "/livez":
            return await _send_json(send, 200, {"status": "ok"})
        if path == "/readyz":
            is_ready, report = await self._readiness()
            return await _send_json(send, 200 if is_ready else 503, report)
        headers = dict(scope["headers"])
        if not self._is_operator(headers.get(b"authorization", b"")):
            return await _send_json(
                send,
                401,
                {"detail": "This needs the operator's token: 'Authorization: Bearer TOKEN', or as a password."},
                [(b"www-authenticate", b'Bearer realm="operator"'), (b"www-authenticate", b'Basic realm="operator"')],
            )
        if scope["method"] not in _SAFE and _is_from_another_site(headers):
            return await _send_json(send, 403, {"detail": "Requests from another site are not taken here."})
        if path == "/metrics":
            await self._before_metrics()
            body = generate_latest(await self.gather(self._registry))
            return await _send(send, 200, body, [(b"content-type", _METRICS_TYPE)])
        return await self._admin(scope, receive, send)

    def _is_operator(self, authorization: bytes) -> bool:
        scheme, _, credentials = authorization.partition(b" ")
        credentials = credentials.strip()
        if scheme.lower() == b"basic":
            try:
                credentials = base64.b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(credentials, self._token)


def _is_from_another_site(headers: dict[bytes, bytes]) -> bool:
    """Whether a foreign page had a browser send this: one that knows the password sends it along with anything.

    Browsers say so in Fetch Metadata (W3C); older ones, and those that reach us by plain HTTP, only in `Origin`.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in {b"none", b"same-origin"}
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


async def _alone(registry: Collector) -> Collector:
    return registry


async def _send_json(
    send: Send, status: int, value: dict[str, Any], extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps(value).encode() + b"\n"
    await _send(send, status, body, [(b"content-type", b"application/json"), *(extra or ())])


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    fields = [*headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
