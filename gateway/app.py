"""The walk of a request, top to bottom: target, route, caller, entitlement, decision, forward or answer.

1. The target must have one reading, and what was matched is what is forwarded (P1).
2. Nothing reaches an upstream without a Forward decision: unknown route, method, caller or error is refused (P2).
3. A token is verified once; nobody unknown is ever asked for money (401 before 402).
4. Facts come from memory, Redis or SQL; access is computed from them and the time, here, at each request.
5. Before a refusal that Stripe might contradict, Stripe is asked once (DESIGN.md, section 6.6).
6. One line of log and one count per request, at its end, from the decision.

This file knows no server, no database and no Stripe: what it needs is handed to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Any, Final

from gateway.answers import Answer, Asked, Headers, Payment
from gateway.credentials import Authenticated, Unauthenticated
from gateway.entitlements.resolver import Found, Resolver
from gateway.plan import Plan
from gateway.telemetry import RequestEnd, Telemetry
from gateway.upstream.headers import identity_headers, outbound_request_headers
from gateway.upstream.outcome import AnswerBroken, CallerLeft, Receive, Scope, Send, UpstreamFailure, request_target
from policies.caller import SCOPE_KEY, Caller
from policies.decision import Decision, Forward, Refuse, decide
from policies.entitlement import Entitlement, Standing
from policies.paths import BadTarget, Target, read_target
from policies.reasons import ANSWERS, Reason
from policies.requirement import Access
from policies.routes import CompiledRoute, MethodNotAllowed, NoRoute
from policies.tiers import NO_TIER

App = Callable[[Scope, Receive, Send], Awaitable[None]]

RESERVED_SEGMENT: Final = "_gateway"
ASKED_KEY: Final = "gateway.asked"
"""In the scope of the gateway's own endpoints: the `Asked` that their answers are built from."""

_NEEDS_CALLER: Final = frozenset({"/_gateway/me", "/_gateway/checkout", "/_gateway/portal"})
_PLAIN_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"600"),
)


class Verification(Enum):
    """What a live check came to."""

    VERIFIED = "verified"
    COULD_NOT = "could_not"


@dataclass(slots=True)
class _Walk:
    """One request on its way, and what is learnt of it for its line in the log."""

    scope: Scope
    receive: Receive
    send: Send
    plan: Plan
    request_id: str
    method: str
    path: str
    route: str = "_none"
    status: int = 500
    reason: str = "forwarded"
    customer: str | None = None
    tier: str | None = None
    upstream: str | None = None
    upstream_seconds: float | None = None
    bytes_sent: int = 0
    note: str | None = None


class Gateway:
    """The public listener's ASGI app. `now` is the entitlement clock: real time, or the simulator's."""

    def __init__(
        self,
        plan: Plan,
        *,
        resolver: Resolver[Entitlement],
        own_endpoints: App,
        verify_now: Callable[[str], Awaitable[Verification]],
        telemetry: Telemetry,
        now: Callable[[], float],
    ) -> None:
        self.plan = plan
        self._resolver = resolver
        self._own_endpoints = own_endpoints
        self._verify_now = verify_now
        self._telemetry = telemetry
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request. WebSockets are refused until they can be judged like any other request."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        started = perf_counter()
        raw_target = request_target(scope)
        walk = _Walk(
            scope, receive, send, self.plan, _request_id(scope["headers"]), scope["method"], _loggable(raw_target)
        )
        try:
            await self._walk(walk, read_target(raw_target))
        finally:
            self._telemetry.tell(
                RequestEnd(
                    request_id=walk.request_id,
                    method=walk.method,
                    path=walk.path,
                    route=walk.route,
                    status=walk.status,
                    reason=walk.reason,
                    customer=walk.customer,
                    tier=walk.tier,
                    upstream=walk.upstream,
                    seconds=perf_counter() - started,
                    upstream_seconds=walk.upstream_seconds,
                    bytes_sent=walk.bytes_sent,
                    note=walk.note,
                )
            )

    async def _walk(self, walk: _Walk, target: Target | BadTarget) -> None:
        plan = walk.plan
        headers: Headers = walk.scope["headers"]
        if isinstance(target, BadTarget):
            return await self._answer(plan.answers.refuse(Reason.BAD_PATH, target.detail, _asked(walk)), walk)
        if _is_reserved(target):
            return await self._serve_own(walk, target)

        matched = plan.routes.match(walk.method, _header(headers, b"host"), target)
        if walk.method == "OPTIONS" and (preflighted := _preflighted(plan, headers, target)) is not None:
            walk.route = preflighted.label
            return await self._forward(walk, preflighted)
        if isinstance(matched, NoRoute):
            detail = f"Nothing is served at {walk.path}."
            return await self._answer(plan.answers.refuse(Reason.NO_ROUTE, detail, _asked(walk)), walk)
        if isinstance(matched, MethodNotAllowed):
            allow = ", ".join(matched.allow)
            detail = f"{walk.path} takes {allow}, not {walk.method}."
            refusal = plan.answers.refuse(
                Reason.METHOD_NOT_ALLOWED, detail, _asked(walk), extra=[(b"allow", allow.encode())]
            )
            return await self._answer(refusal, walk)

        route = matched.route
        walk.route = route.label
        if route.requirement.access is Access.PUBLIC:
            return await self._forward(walk, route)

        authenticated = await self._authenticate(walk)
        if isinstance(authenticated, Unauthenticated):
            return await self._answer(_unauthenticated(plan, authenticated, _asked(walk)), walk)
        caller = authenticated.caller
        walk.customer = caller.customer

        decision = await self._decide(plan, route, caller.customer)
        if isinstance(decision, Forward):
            walk.tier = decision.standing.tier if decision.standing else None
            return await self._forward(walk, route, caller, decision.standing)
        walk.tier = decision.standing.tier if decision.standing else None
        return await self._answer(_refused(plan, route, caller, decision, _asked(walk)), walk)

    async def _authenticate(self, walk: _Walk) -> Authenticated | Unauthenticated:
        headers, query = walk.scope["headers"], walk.scope["query_string"]
        outcome = walk.plan.authenticator.authenticate(headers, query)
        return await walk.plan.authenticator.settle(outcome, headers, query)

    async def _decide(self, plan: Plan, route: CompiledRoute, customer: str) -> Decision:
        decision = decide(route.requirement, await self._entitlement(customer), plan.ladder, self._now())
        if isinstance(decision, Forward) or not decision.checkable:
            return decision
        if await self._verify_now(customer) is Verification.VERIFIED:
            return decide(route.requirement, await self._entitlement(customer), plan.ladder, self._now())
        # They were paying when last seen and nobody can say whether they still are: not a 402, and no free pass.
        return Refuse(Reason.ENTITLEMENT_UNAVAILABLE, decision.standing) if decision.unsure else decision

    async def _entitlement(self, customer: str) -> Entitlement | None:
        known = self._resolver.peek(customer, self._now())
        if known is not None:
            return known
        found = await self._resolver.lookup(customer)
        return found.entitlement if isinstance(found, Found) else None

    async def _forward(
        self, walk: _Walk, route: CompiledRoute, caller: Caller | None = None, standing: Standing | None = None
    ) -> None:
        plan, scope = walk.plan, walk.scope
        walk.upstream = route.upstream
        rules = plan.upstreams.rules(route.upstream)
        inbound, target = scope["headers"], None
        if caller is not None and not plan.config.upstreams[route.upstream].forward_token:
            inbound, target = _without_token(plan, scope)
        peer = scope["client"][0] if scope.get("client") else ""
        headers = outbound_request_headers(
            inbound,
            rules=rules,
            peer=peer,
            trusted=plan.trusted_proxies.trusts(peer),
            scheme=scope["scheme"],
            request_id=walk.request_id,
            identity=() if caller is None else _identity(caller, standing),
        )
        started = perf_counter()
        outcome = await plan.upstreams.forward(
            route.upstream, scope=scope, headers=headers, receive=walk.receive, send=walk.send, target=target
        )
        walk.upstream_seconds = perf_counter() - started
        if isinstance(outcome, UpstreamFailure):
            walk.note = outcome.cause
            refusal = plan.answers.refuse(outcome.reason, outcome.detail, _asked(walk))
            return await self._answer(refusal, walk)
        walk.status, walk.bytes_sent = outcome.status, outcome.bytes_sent
        if isinstance(outcome, CallerLeft):
            walk.note = "the caller left"
        elif isinstance(outcome, AnswerBroken):
            walk.note = f"{outcome.reason}: {outcome.cause}"
            raise outcome.torn()
        return None

    async def _serve_own(self, walk: _Walk, target: Target) -> None:
        """`/_gateway/*`: never forwarded, whatever its spelling."""
        plan, scope = walk.plan, walk.scope
        asked = _asked(walk)
        walk.route = walk.path = _own_route(target)
        walk.reason = "own"
        if walk.method == "OPTIONS" and asked.origin:
            allowed = plan.answers.readable_from(asked.origin)
            extra = [*allowed, *_PREFLIGHT] if allowed else []
            walk.status = 204
            await walk.send({"type": "http.response.start", "status": 204, "headers": [*extra, (b"vary", b"Origin")]})
            return await walk.send({"type": "http.response.body", "body": b""})
        scope[ASKED_KEY] = asked
        if target.path in _NEEDS_CALLER:
            authenticated = await self._authenticate(walk)
            if isinstance(authenticated, Unauthenticated):
                return await self._answer(_unauthenticated(plan, authenticated, asked), walk)
            if authenticated.source.kind == "cookie" and walk.method != "GET" and asked.origin not in plan.own_origins:
                # A browser sends cookies along with a foreign page's form; its Origin tells the two apart.
                detail = "A cookie alone is not believed here: send an allowed Origin, or the token in a header."
                return await self._answer(plan.answers.refuse(Reason.FORBIDDEN, detail, asked), walk)
            walk.customer = authenticated.caller.customer
            scope[SCOPE_KEY] = authenticated.caller
        return await self._own_endpoints(scope, walk.receive, _as_own(walk, asked))

    async def _answer(self, answer: Answer, walk: _Walk) -> None:
        walk.status, walk.reason = answer.status, answer.reason.value
        body = b"" if walk.method == "HEAD" else answer.body
        await walk.send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await walk.send({"type": "http.response.body", "body": body})
        walk.bytes_sent = len(body)


def _refused(plan: Plan, route: CompiledRoute, caller: Caller, refusal: Refuse, asked: Asked) -> Answer:
    if ANSWERS[refusal.reason].status == 402 and refusal.standing is not None and refusal.offer_rank != NO_TIER:
        tier = plan.ladder.names[refusal.offer_rank]
        payment = Payment(caller.customer, route.requirement, refusal.standing, tier)
        return plan.answers.payment_required(refusal.reason, payment, asked)
    return plan.answers.refuse(refusal.reason, _REFUSALS[refusal.reason], asked)


_REFUSALS: Final = {
    Reason.BLOCKED: "This customer has been blocked by the API's owner.",
    Reason.FORBIDDEN: "No tier that can be bought admits to this route.",
    Reason.ENTITLEMENT_UNAVAILABLE: "It could not be found out what this customer has paid for; nothing has to be paid.",
}


def _unauthenticated(plan: Plan, outcome: Unauthenticated, asked: Asked) -> Answer:
    if ANSWERS[outcome.reason].status == 401:
        return plan.answers.unauthenticated(outcome.reason, outcome.detail, asked)
    return plan.answers.refuse(outcome.reason, outcome.detail, asked)


def _identity(caller: Caller, standing: Standing | None) -> Headers:
    if standing is None:
        return identity_headers(caller.customer, tier=None, features=(), status=None)
    return identity_headers(caller.customer, tier=standing.tier, features=standing.features, status=standing.status)


def _without_token(plan: Plan, scope: Scope) -> tuple[Headers, bytes]:
    """The headers and the target without the caller's credential (`forward_token: false`); the rest byte for byte."""
    raw = request_target(scope)
    path, mark, query = raw.partition(b"?")
    headers, query = plan.authenticator.without_token(scope["headers"], query)
    return headers, path + mark + query


def _preflighted(plan: Plan, headers: Headers, target: Target) -> CompiledRoute | None:
    """The route that a CORS preflight asks about: browsers send no token with it, and its answer is the upstream's."""
    method = _header(headers, b"access-control-request-method")
    if not method or not _header(headers, b"origin"):
        return None
    matched = plan.routes.match(method, _header(headers, b"host"), target)
    return None if isinstance(matched, NoRoute | MethodNotAllowed) else matched.route


def _is_reserved(target: Target) -> bool:
    """Under `/_gateway`, as strictly as any server behind us might read it."""
    return any(reading[:1] == (RESERVED_SEGMENT,) for reading in (target.folded, *target.further))


def _own_route(target: Target) -> str:
    """A label of ours for the log and the metrics: a payment link counts as a secret (P9)."""
    second = target.segments[1] if len(target.segments) > 1 else ""
    known = {"stripe", "me", "plans", "checkout", "pay", "portal", "return", "problems"}
    return f"/_gateway/{second}" if second in known else "/_gateway/*"


def _as_own(walk: _Walk, asked: Asked) -> Send:
    """`send` with what every answer of the gateway's own carries."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            for name, value in (
                (b"x-request-id", asked.request_id.encode()),
                (b"cache-control", b"no-store"),
                (b"vary", b"Authorization, Accept, Origin"),
                *walk.plan.answers.readable_from(asked.origin),
            ):
                if name not in present:
                    headers.append((name, value))
            walk.status = message["status"]
            walk.reason = next((value.decode() for name, value in headers if name == b"x-gateway-reason"), walk.reason)
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            walk.bytes_sent += len(message.get("body", b""))
        await walk.send(message)

    return sending


def _asked(walk: _Walk) -> Asked:
    headers: Headers = walk.scope["headers"]
    return Asked(
        method=walk.method,
        path=walk.path,
        request_id=walk.request_id,
        accept=b",".join(value for name, value in headers if name == b"accept"),
        origin=_header(headers, b"origin").encode("latin-1"),
    )


def _header(headers: Headers, wanted: bytes) -> str:
    """The first value of a field, empty without one."""
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")


def _request_id(headers: Headers) -> str:
    """The caller's own id if it is short and plain, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _PLAIN_ID.fullmatch(value):
            return value.decode("ascii")
    return new_request_id()


def new_request_id() -> str:
    """Sixteen hex digits."""
    return os.urandom(8).hex()


def _loggable(raw_target: bytes) -> str:
    """The path as sent, without its query and without what may be a payment link."""
    path = raw_target.partition(b"?")[0].partition(b"#")[0].decode("latin-1")
    return "/_gateway/…" if RESERVED_SEGMENT in path.lower() else path[:2048]
