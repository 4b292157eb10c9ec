"""The upstreams of one configuration: by name, a request goes to one of an upstream's targets and its answer comes back.

It must never let two callers share a header or a cookie, nor a connection before the one has had his whole answer:
what outlives a request are connections at rest and counts, and neither knows of anybody.

A reload makes new `Upstreams` and may let them have what stays as it was: `Upstreams(config, predecessor=old)`, and once
the new configuration is in force `await old.aclose(successor=new)`. Requests under way finish where they began.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.upstream.balancer import Balancer
from gateway.upstream.begun import Begun
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.exchange import Exchange
from gateway.upstream.headers import HeaderRules
from gateway.upstream.health import HealthChecks
from gateway.upstream.http2_pool import Http2Pool
from gateway.upstream.kept_body import KeptBody
from gateway.upstream.outcome import request_target
from gateway.upstream.places import Places
from gateway.upstream.pool import Pool
from gateway.upstream.request_head import request_head
from gateway.upstream.target import parse_target
from gateway.upstream.tls import client_tls
from gateway.upstream.unframed import framed, is_unframed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from gateway.upstream.opening import Opening
    from gateway.upstream.outcome import Outcome, Receive, Scope, Send
    from gateway.upstream.request_head import RequestHead
    from gateway.upstream.target import Target
    from policies.schema import Timeouts, Upstream


@dataclass(frozen=True, slots=True)
class TargetState:
    """How one target stands: requests under way, connections at rest, and whether it is sent anything."""

    target: str
    pending: int
    idle: int
    admitted: bool


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How one upstream stands."""

    targets: tuple[TargetState, ...]
    queued: int


@dataclass(frozen=True, slots=True)
class _Ready:
    settings: Upstream
    places: Places
    rules: HeaderRules
    health: HealthChecks | None
    begins_at_once: bool
    """Whether its connections carry one exchange at a time, so that one at rest can be begun on without a task."""


class Upstreams:
    """Every upstream that gateway.yaml names, ready to be asked.

    Raises ValueError for a target, header or file of certificates that can't be used.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        *,
        predecessor: Upstreams | None = None,
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # it may be made in a thread that has none
        kept: Mapping[str, _Ready] = {} if predecessor is None else predecessor._ready  # noqa: SLF001 -- its own kind
        self._ready: Mapping[str, _Ready] = {
            name: kept[name] if name in kept and _is_unchanged(kept[name].settings, upstream) else _make_ready(upstream)
            for name, upstream in upstreams.items()
        }

    def rules(self, upstream: str) -> HeaderRules:
        """What `outbound_request_headers` needs to know of this upstream."""
        return self._ready[upstream].rules

    def state(self, upstream: str) -> UpstreamState:
        """How it stands now, for people and metrics."""
        places = self._ready[upstream].places
        now = asyncio.get_running_loop().time()
        return UpstreamState(
            tuple(
                TargetState(pool.target.url, pool.pending, pool.idle, pool.standing.admits(now))
                for pool in places.pools
            ),
            places.queued,
        )

    def start(self) -> None:
        """Begin the active checks that are asked for; where they run already, they go on."""
        for ready in self._ready.values():
            if ready.health is not None:
                ready.health.start()

    async def aclose(self, *, successor: Upstreams | None = None) -> None:
        """End the checks and the connections at rest, all but what the successor has taken over.

        With a successor, requests that wait for a place still get one: a reload costs nobody their answer.
        """
        kept = set() if successor is None else {id(ready) for ready in successor._ready.values()}  # noqa: SLF001
        for ready in self._ready.values():
            if id(ready) not in kept:
                if successor is None:
                    ready.places.close()
                else:
                    ready.places.retire()
                if ready.health is not None:
                    await ready.health.stop()

    def begin(
        self, upstream: str, head: RequestHead, timeouts: Timeouts | None = None, body: bytes = b""
    ) -> Begun | None:
        """Send a whole request on a connection at rest; None, and nothing done, where there is none.

        `go_on` takes over what was begun.
        """
        ready = self._ready[upstream]
        if not ready.begins_at_once:
            return None
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        pool = ready.places.take(self._loop.time())
        if pool is None:
            return None
        connection = pool.take()
        if not isinstance(connection, UpstreamConnection):
            ready.places.decline(pool)
            return None
        bounds = ready.settings.timeouts if timeouts is None else timeouts
        return Begun(ready.places, pool, connection, head, body, bounds)

    async def go_on(self, begun: Begun, *, scope: Scope, receive: Receive, send: Send) -> Outcome:
        """Take over what `begin` began, and hand its answer back as `forward` does."""
        exchange = Exchange(
            begun.places,
            begun.head,
            timeouts=begun.timeouts,
            loop=asyncio.get_running_loop(),
            scope=scope,
            receive=receive,
            send=send,
            begun=begun,
        )
        return await exchange.run()

    async def forward(
        self,
        upstream: str,
        *,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        receive: Receive,
        send: Send,
        target: bytes | None = None,
        timeouts: Timeouts | None = None,
        opening: Opening | None = None,
    ) -> Outcome:
        """Hand the request on and its answer back.

        `headers` are final: they come from `outbound_request_headers`, and say how the body is framed. `target` is what
        goes into the request line; left out, it is the one that came, byte for byte. `timeouts` stand in for those of the upstream.
        `opening`: the request offers a WebSocket, and its headers are those of `opening_of`.
        """
        ready = self._ready[upstream]
        if is_unframed(scope, headers):
            headers, receive = await framed(headers, receive)
        head = request_head(scope["method"], request_target(scope) if target is None else target, headers)
        if opening is not None:
            head = head._replace(accept=opening.accept)
        kept = KeptBody(receive) if ready.settings.http2 and head.length != 0 else None
        exchange = Exchange(
            ready.places,
            head,
            timeouts=ready.settings.timeouts if timeouts is None else timeouts,
            loop=asyncio.get_running_loop(),
            scope=scope,
            receive=receive if kept is None else kept.receive,
            send=send,
            opening=opening,
            kept=kept,
        )
        return await exchange.run()


def _make_ready(upstream: Upstream) -> _Ready:
    # Making a context reads hundreds of certificates: once per upstream, never per request.
    is_secure = any(target.startswith("https:") for target in upstream.targets)
    tls = client_tls(upstream.tls, http2=upstream.http2) if is_secure else None
    http1_tls = client_tls(upstream.tls) if is_secure and upstream.http2 else None
    targets = [parse_target(target, tls, upstream.tls.server_name) for target in upstream.targets]
    pools = [_pool(target, upstream, http1_tls) for target in targets]
    return _Ready(
        upstream,
        # A request that waits for a place has no connection yet, so that it is the same bound.
        Places(Balancer(pools), queue=upstream.queue, queue_seconds=upstream.timeouts.connect),
        HeaderRules.of(upstream),
        HealthChecks(pools, upstream) if upstream.health.path else None,
        begins_at_once=not upstream.http2,
    )


def _pool(target: Target, upstream: Upstream, http1_tls: ssl.SSLContext | None) -> Pool:
    if not upstream.http2:
        return Pool(target, max_connections=upstream.max_connections, keepalive_seconds=upstream.keepalive)
    return Http2Pool(
        target,
        max_connections=upstream.max_connections,
        keepalive_seconds=upstream.keepalive,
        connect_seconds=upstream.timeouts.connect,
        http1_tls=http1_tls if target.tls is not None else None,
    )


def _is_unchanged(old: Upstream, new: Upstream) -> bool:
    """Whether everything may stay. Files of certificates are read anew, since a reload is how they are rotated."""
    return old == new and not (new.tls.ca or new.tls.certificate or new.tls.key)
