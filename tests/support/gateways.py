"""The listener and the upstream exchange, joined by the smallest app: what both of them do over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from gateway.listener import gateway_protocol
from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import TrustedProxies, outbound_request_headers
from gateway.upstream.outcome import DEPARTURE_KEY, AnswerBroken, UpstreamFailure
from policies.reasons import ANSWERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.listener_cycle import App
    from gateway.listener_head import ListenerLimits
    from gateway.upstream.outcome import Outcome, Receive, Scope, Send
    from policies.schema import Upstream


class Forwarding:
    """Forwards everything to one upstream and keeps the outcomes."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        identity: Sequence[tuple[bytes, bytes]] = (),
        trusted_proxies: Sequence[str] = (),
        tells_of_departures: bool = True,
    ) -> None:
        self.upstreams = Upstreams({"api": upstream})
        self.identity = identity
        self.trusted = TrustedProxies(trusted_proxies)
        self.tells_of_departures = tells_of_departures
        self.outcomes: list[Outcome] = []
        self.ended = asyncio.Event()
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if not self.tells_of_departures:  # as under another ASGI server
            del scope[DEPARTURE_KEY]
        peer = scope["client"][0]
        headers = outbound_request_headers(
            scope["headers"],
            rules=self.upstreams.rules("api"),
            peer=peer,
            trusted=self.trusted.trusts(peer),
            scheme=scope["scheme"],
            request_id="r1",
            identity=self.identity,
        )
        outcome = await self.upstreams.forward("api", scope=scope, headers=headers, receive=receive, send=send)
        self.outcomes.append(outcome)
        self.ended.set()
        match outcome:
            case UpstreamFailure(reason=reason, detail=detail):
                answer = [(b"x-gateway-reason", reason.encode()), (b"content-length", b"%d" % len(detail))]
                await send({"type": "http.response.start", "status": ANSWERS[reason].status, "headers": answer})
                await send({"type": "http.response.body", "body": detail.encode()})
            case AnswerBroken():
                raise outcome.torn()
            case _:
                return

    async def outcome(self, number: int = 0) -> Outcome:
        """The outcome of this number, once it is there."""
        while len(self.outcomes) <= number:
            self.ended.clear()
            await asyncio.wait_for(self.ended.wait(), 10)
        return self.outcomes[number]


class _Listed(set[Any]):
    """A set that keeps a list as well."""

    def __init__(self, listed: list[Any]) -> None:
        super().__init__()
        self._listed = listed

    def add(self, one: Any) -> None:
        super().add(one)
        self._listed.append(one)


@contextlib.asynccontextmanager
async def listening(
    app: App,
    *,
    limits: ListenerLimits | None = None,
    keep_alive_seconds: int = 30,
    concurrency: int | None = None,
    connections: list[Any] | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """The listener with this app on a free port of this process and event loop. `connections` has those that are open."""
    config = uvicorn.Config(
        app,
        http=gateway_protocol(limits=limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive_seconds,
        limit_concurrency=concurrency,
        timeout_graceful_shutdown=5,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    if connections is not None:
        server.server_state.connections = _Listed(connections)
    # Named, or asyncio leaves Nagle's algorithm on, and each answer in two pieces waits 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    await server.startup(sockets=[sock])
    try:
        yield sock.getsockname()
    finally:
        # Not `server.shutdown`, which sleeps: nothing here is to be finished gracefully.
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            _, still_running = await asyncio.wait(server.server_state.tasks, timeout=5)
            assert not still_running, "a request outlived its connection"
        if isinstance(app, Forwarding):
            await app.upstreams.aclose()
