"""One request through the gateway's real walk, with an upstream that only takes note.

It decides nothing: the answer it returns is what `gateway.app` sends, from the plan in force. It must never reach an
upstream, Stripe, a cache or a log: everything that could is replaced here by something that can't.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from prometheus_client import CollectorRegistry

from gateway.answers import Headers
from gateway.app import Gateway, Verification
from gateway.credentials import Authenticated, Authenticator, Source, Unauthenticated
from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.resolver import Resolver
from gateway.plan import Plan
from gateway.telemetry import AccessLog, Metrics, Telemetry
from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import HeaderRules
from gateway.upstream.opening import Opening
from gateway.upstream.outcome import (
    TARGET_KEY,
    TUNNEL_KEY,
    Forwarded,
    Message,
    Outcome,
    Receive,
    Scope,
    Send,
    request_target,
)
from gateway.version import VERSION
from policies.caller import Caller
from policies.entitlement import Entitlement
from policies.facts import CustomerFacts
from policies.schema import Timeouts

_HEADER: Final = Source("header", "authorization")
_A_MOMENT: Final = Lifetimes(max_ttl=1.0, max_stale=1.0, negative_ttl=1.0)


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What the gateway itself answers."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class SentOn:
    """What an upstream would be sent, but for the body."""

    upstream: str
    target: bytes
    headers: Headers


async def rehearse(
    plan: Plan,
    *,
    method: str,
    target: bytes,
    headers: Headers,
    vouched: Caller | None,
    entitlement: Entitlement | None,
    now: float,
    opens_websocket: bool = False,
) -> OwnAnswer | SentOn:
    """What becomes of this request. `vouched` is believed without a token; `entitlement` is whoever it turns out to be."""
    upstreams = _NotedUpstreams(plan.upstreams)
    authenticator = plan.authenticator if vouched is None else _Vouching(plan, vouched)
    resolver = _resolver(entitlement, now)
    metrics = Metrics(CollectorRegistry(), VERSION)
    gateway = Gateway(
        replace(plan, upstreams=upstreams, authenticator=authenticator, own_app=_never),
        resolver=resolver,
        verify_now=_nothing_new,
        telemetry=Telemetry(metrics, AccessLog(io.StringIO(), wall=time.time)),
        now=lambda: now,
    )
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        offer = {TUNNEL_KEY: _NoTunnel()} if opens_websocket else {}
        await gateway(_scope(method, target, headers) | offer, _no_body, send)
    finally:
        await resolver.aclose()
    if upstreams.sent_on is not None:
        return upstreams.sent_on
    start, body = sent
    return OwnAnswer(start["status"], list(start["headers"]), body["body"])


class _NotedUpstreams(Upstreams):
    """Keeps what would be sent."""

    def __init__(self, real: Upstreams) -> None:
        super().__init__({})
        self._real = real
        self.sent_on: SentOn | None = None

    def rules(self, upstream: str) -> HeaderRules:
        return self._real.rules(upstream)

    async def forward(
        self,
        upstream: str,
        *,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        receive: Receive,  # noqa: ARG002
        send: Send,  # noqa: ARG002
        target: bytes | None = None,
        timeouts: Timeouts | None = None,  # noqa: ARG002
        opening: Opening | None = None,  # noqa: ARG002
    ) -> Outcome:
        self.sent_on = SentOn(upstream, request_target(scope) if target is None else target, headers)
        return Forwarded(200, 0, 0, 0.0)


class _NoTunnel:
    """What would have become a WebSocket."""

    def switch(self, *_: object) -> None:
        """Nobody is there."""

    def over(self) -> None:
        """Nothing was open."""


class _Vouching(Authenticator):
    """Takes everybody for the one whom it vouches for."""

    def __init__(self, plan: Plan, caller: Caller) -> None:
        super().__init__(plan.config.auth, now=time.time)
        self._outcome = Authenticated(caller, _HEADER)

    def authenticate(self, headers: Headers, query: bytes = b"") -> Authenticated | Unauthenticated:  # noqa: ARG002
        return self._outcome


def _resolver(entitlement: Entitlement | None, now: float) -> Resolver[Entitlement]:
    """The real lookup, over one customer's facts."""

    async def read_facts(customer: str) -> CustomerFacts:
        return CustomerFacts(customer, 0) if entitlement is None else entitlement.facts

    def derive(_facts: CustomerFacts) -> Entitlement:
        if entitlement is None:
            raise LookupError("the walk asked for somebody who was not named by a token")
        return entitlement

    return Resolver(
        read_facts=read_facts,
        derive=derive,
        next_edge=lambda known, at: known.next_edge(at),
        lifetimes=_A_MOMENT,
        max_entries=1,
        now=lambda: now,
        monotonic=time.monotonic,
        feed_healthy=_always,
    )


def _scope(method: str, target: bytes, headers: Headers) -> dict[str, Any]:
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": ("127.0.0.1", 0),
        TARGET_KEY: target,
    }


def _always() -> bool:
    return True


async def _nothing_new(_customer: str) -> Verification:
    """Stripe is not asked here: the explanation says that it would be."""
    return Verification.VERIFIED


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _never(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise LookupError("the gateway's own endpoints are not rehearsed")
