"""The upstreams of one configuration: by name, a request goes to one of an upstream's targets and its answer comes back.

It must never let two requests share a connection, a header or a cookie: there is nothing here that outlives a request
but the count of those under way.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.upstream.balancer import Balancer, parse_target
from gateway.upstream.exchange import Exchange
from gateway.upstream.headers import HeaderRules
from gateway.upstream.outcome import request_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.upstream.outcome import Outcome, Receive, Scope, Send
    from policies.schema import Timeouts, Upstream


def default_tls() -> ssl.SSLContext:
    """The system's certificate authorities; only HTTP/1.1 is offered, since nothing else is spoken here."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True, slots=True)
class _Ready:
    balancer: Balancer
    timeouts: Timeouts
    rules: HeaderRules


class Upstreams:
    """Every upstream that gateway.yaml names, ready to be asked. Raises ValueError for a target or header that can't be."""

    def __init__(
        self, upstreams: Mapping[str, Upstream], *, make_tls: Callable[[], ssl.SSLContext] = default_tls
    ) -> None:
        self._ready = {name: self._make_ready(upstream, make_tls) for name, upstream in upstreams.items()}

    def rules(self, upstream: str) -> HeaderRules:
        """What `outbound_request_headers` needs to know of this upstream."""
        return self._ready[upstream].rules

    async def forward(
        self,
        upstream: str,
        *,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        receive: Receive,
        send: Send,
        target: bytes | None = None,
    ) -> Outcome:
        """Hand the request on and its answer back.

        `headers` are final: they come from `outbound_request_headers`, and say how the body is framed. `target` is what
        goes into the request line; left out, it is the one that came, byte for byte.
        """
        ready = self._ready[upstream]
        exchange = Exchange(
            timeouts=ready.timeouts, loop=asyncio.get_running_loop(), scope=scope, receive=receive, send=send
        )
        return await exchange.run(ready.balancer.order(), request_target(scope) if target is None else target, headers)

    @staticmethod
    def _make_ready(upstream: Upstream, make_tls: Callable[[], ssl.SSLContext]) -> _Ready:
        # Making a context reads hundreds of certificates: once per upstream, never per request.
        tls = make_tls() if any(target.startswith("https:") for target in upstream.targets) else None
        targets = [parse_target(target, tls) for target in upstream.targets]
        return _Ready(Balancer(targets), upstream.timeouts, HeaderRules.of(upstream))
