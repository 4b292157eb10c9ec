"""The walk of a request, top to bottom: target, route, caller, entitlement, decision, forward or answer.

1. The target must have one reading, and what was matched is what is forwarded (P1).
2. Nothing reaches an upstream without a Forward decision: unknown route, method, caller or error is refused (P2).
3. A token is verified once; nobody unknown is ever asked for money (401 before 402).
4. Facts come from memory, Redis or SQL; access is computed from them and the time, here, at each request.
5. Before a refusal that Stripe might contradict, Stripe is asked once (DESIGN.md, section 6.6).
6. An answer under way for a known caller is judged again as `gateway.streams` says, and what is refused ends (P7).
7. One line of log and one count per request, at its end, from the decision.

Where nothing has to be waited for, `gateway.short_way` takes the same steps without a task.

This file knows no server, no database and no Stripe: what it needs is handed to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum
from time import monotonic, perf_counter, time
from typing import Final

from gateway.answers import Answer, Asked
from gateway.body_limit import BodyLimit, BodyTooLargeError, declared_length
from gateway.credentials import Unauthenticated
from gateway.entitlements.resolver import Found, Resolver
from gateway.judging_again import JudgingAgain
from gateway.not_ours import refuse_elsewhere
from gateway.own_endpoints import is_reserved, serve_own
from gateway.plan import Plan
from gateway.short_way import ShortWays
from gateway.streams import Ending, Streams
from gateway.telemetry import Telemetry
from gateway.under_way import NOBODY, AnswerUnderWay, asks_for_events, counted
from gateway.upstream.begun import Begun
from gateway.upstream.headers import outbound_request_headers
from gateway.upstream.opening import OFFER, Opening, opening_of
from gateway.upstream.outcome import (
    AnswerBroken,
    CallerLeft,
    Outcome,
    Receive,
    Scope,
    Send,
    TornAnswerError,
    Tunnelled,
    UpstreamFailure,
    request_target,
)
from gateway.walk import FAILED, Walk, begin, identity_of, known_tier, observed_of
from policies.caller import Caller
from policies.decision import Decision, Forward, Refuse, decide, enforce, lacking
from policies.entitlement import Entitlement, Standing
from policies.offers import Payment
from policies.paths import BadTarget, Target
from policies.reasons import ANSWERS, Reason
from policies.routes import CompiledRoute, Matched, MethodNotAllowed, NoRoute
from policies.scopes import challenge_of, missing_of
from policies.tiers import NO_TIER


class Verification(Enum):
    """What a live check came to."""

    VERIFIED = "verified"
    COULD_NOT = "could_not"


class Gateway:
    """The public listener's ASGI app. `now` is the entitlement clock: real time, or the simulator's; `wall` is that of tokens."""

    def __init__(
        self,
        plan: Plan,
        *,
        resolver: Resolver[Entitlement],
        verify_now: Callable[[str], Awaitable[Verification]],
        telemetry: Telemetry,
        now: Callable[[], float],
        wall: Callable[[], float] = time,
    ) -> None:
        self.plan = plan
        self._resolver = resolver
        self._verify_now = verify_now
        self._telemetry = telemetry
        self._now = now
        self.streams = Streams(
            look_up=lambda customer: self.entitlement(self.plan, customer),
            judge=JudgingAgain(lambda: self.plan, self._decide, wall),
            bounds=lambda: (self.plan.config.streams.grace, self.plan.config.cache.max_stale),
            now=now,
            wall=wall,
            monotonic=monotonic,
        )
        resolver.on_change(self.streams.changed)
        self.at_once = ShortWays(self, telemetry.tell).take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request. A WebSocket comes as one that our listener lets become a tunnel; other servers' are refused."""
        if scope["type"] == "websocket":
            return await refuse_elsewhere(scope, receive, send, self.plan.answers)
        started = perf_counter()
        walk = begin(scope, receive, send, self.plan)
        return await self.to_its_end(walk, started, self._walk(walk, walk.plan.routes.read(request_target(scope))))

    async def to_its_end(self, walk: Walk, started: float, work: Awaitable[None]) -> None:
        """Let a walk end, and tell of it once, however it ends. `started` is of `perf_counter`."""
        try:
            await work
        except TornAnswerError:
            raise
        except Exception as error:
            walk.reason, walk.note = FAILED, type(error).__name__
            raise
        finally:
            self._telemetry.tell(walk.end(perf_counter() - started))

    async def _walk(self, walk: Walk, target: Target | BadTarget) -> None:
        if isinstance(target, BadTarget):
            return await walk.refuse(Reason.BAD_PATH, target.detail)
        if is_reserved(target):
            return await serve_own(walk, target)

        plan = walk.plan
        if walk.method == "OPTIONS" and (preflighted := _preflighted(walk, target)) is not None:
            walk.route = preflighted.label
            if (uncut := walk.rewrite(preflighted, target)) is not None:
                return await walk.refuse(Reason.BAD_PATH, uncut.detail)
            return await self._forward(walk, preflighted)
        matched = plan.routes.match(walk.method, walk.header(b"host"), target)
        if isinstance(matched, BadTarget):
            return await walk.refuse(Reason.BAD_PATH, matched.detail)
        if isinstance(matched, NoRoute):
            return await walk.refuse(Reason.NO_ROUTE, f"Nothing is served at {walk.path}.")
        if isinstance(matched, MethodNotAllowed):
            allow = ", ".join(matched.allow)
            detail = f"{walk.path} takes {allow}, not {walk.asked().method}."
            return await walk.refuse(Reason.METHOD_NOT_ALLOWED, detail, [(b"allow", allow.encode())])

        route = matched.route
        walk.route = route.label
        if (uncut := walk.rewrite(route, target)) is not None:
            return await walk.refuse(Reason.BAD_PATH, uncut.detail)
        if route.is_open:
            return await self._forward(walk, route)

        authenticated = await walk.authenticate()
        if isinstance(authenticated, Unauthenticated):
            decision = enforce(Refuse(authenticated.reason), route.enforcement, None)
            if isinstance(decision, Refuse):
                return await walk.refuse(authenticated.reason, authenticated.detail)
            walk.observe(decision)
            return await self._forward(walk, route)
        caller = authenticated.caller
        walk.customer = caller.customer
        if walk.tunnel is not None and authenticated.source.kind == "cookie" and not walk.comes_from_own_page:
            # A foreign page may open a WebSocket anywhere, and the browser sends the cookies along.
            detail = "A cookie alone is not believed for a WebSocket: send an allowed Origin, or the token in a header."
            return await walk.refuse(Reason.FORBIDDEN, detail)
        decision = await self._decide(plan, route, caller)
        walk.tier = known_tier(decision)
        if isinstance(decision, Forward):
            walk.observe(decision)
            return await self._forward(walk, route, caller, decision.standing)
        return await walk.answer(_refusal(plan, route, caller, decision, walk.asked()))

    def admits_at_once(self, plan: Plan, route: CompiledRoute, caller: Caller) -> Forward | None:
        """The decision where it is to forward, and follows from what is remembered; None where something has to be asked."""
        if plan is not self.plan or missing_of(route.requirement, caller) is not None:
            return None
        now = self._now()
        known = self._resolver.glance(caller.customer, now)
        if known is None:
            return None
        decision = decide(route.requirement, known, plan.ladder, now)
        return decision if isinstance(decision, Forward) else None

    def admitted_at_once(self) -> None:
        """A decision of `admits_at_once` was acted upon."""
        self._resolver.used_memory()

    async def _decide(
        self, plan: Plan, route: CompiledRoute, caller: Caller, last_known: Entitlement | None = None
    ) -> Decision:
        """The decision on somebody known: what the credential holds, what they pay, and how far the route is enforced."""
        is_bound = route.enforcement.binds(caller.customer)
        lacks = missing_of(route.requirement, caller) is not None
        if lacks and is_bound:
            return Refuse(Reason.SCOPE_MISSING)
        # Stripe is never asked for the sake of a refusal that doesn't stand.
        found = await self._decide_on_payment(plan, route, caller.customer, last_known, may_ask=is_bound)
        decision = self._despite_outage(route, found)
        return enforce(lacking(decision) if lacks else decision, route.enforcement, caller.customer)

    async def _decide_on_payment(
        self, plan: Plan, route: CompiledRoute, customer: str, last_known: Entitlement | None, *, may_ask: bool
    ) -> Decision:
        known = await self.entitlement(plan, customer)
        if known is None and last_known is not None:
            known = plan.derive(last_known.facts)  # it may have been known under another plan
        decision = decide(route.requirement, known, plan.ladder, self._now())
        if isinstance(decision, Forward) or not decision.checkable or not may_ask:
            return decision
        if await self._verify_now(customer) is Verification.VERIFIED:
            return decide(route.requirement, await self.entitlement(plan, customer), plan.ladder, self._now())
        # They were paying when last seen and nobody can say whether they still are: not a 402, and no free pass.
        return Refuse(Reason.ENTITLEMENT_UNAVAILABLE, decision.standing) if decision.unsure else decision

    def _despite_outage(self, route: CompiledRoute, decision: Decision) -> Decision:
        """The decision, or on a route with `on_unavailable: allow` a Forward where nobody could say what they pay."""
        if (
            isinstance(decision, Forward)
            or decision.reason is not Reason.ENTITLEMENT_UNAVAILABLE
            or not route.fails_open
        ):
            return decision
        self._telemetry.metrics.fail_open.labels(route.label).inc()
        return Forward(None)

    async def entitlement(self, plan: Plan, customer: str) -> Entitlement | None:
        """What the customer has under this plan; None where nobody can say."""
        known = self._resolver.peek(customer, self._now())
        if known is None:
            found = await self._resolver.lookup(customer)
            if not isinstance(found, Found):
                return None
            known = found.entitlement
        # What is remembered is read by the plan in force. Ranks are rungs of its ladder, and mean nothing on another.
        return known if plan is self.plan else plan.derive(known.facts)

    async def _forward(
        self, walk: Walk, route: CompiledRoute, caller: Caller | None = None, standing: Standing | None = None
    ) -> None:
        if route.max_body is None:
            return await self._hand_on(walk, route, caller, standing)
        too_large = f"{walk.path} takes bodies of at most {route.max_body} bytes."
        if not route.takes(declared_length(walk.headers)):
            return await walk.refuse(Reason.BODY_TOO_LARGE, too_large)
        limit = BodyLimit(walk.receive, walk.send, route.max_body)
        walk.receive, walk.send = limit.receive, limit.send
        try:
            return await self._hand_on(walk, route, caller, standing)
        except BodyTooLargeError:
            walk.note = "the body grew too large"
            if limit.answer_begun:
                raise TornAnswerError(walk.note) from None
            return await walk.refuse(Reason.BODY_TOO_LARGE, too_large)

    async def _hand_on(
        self, walk: Walk, route: CompiledRoute, caller: Caller | None, standing: Standing | None
    ) -> None:
        plan, scope = walk.plan, walk.scope
        walk.upstream = route.upstream
        inbound, target = walk.headers, None
        if not plan.upstreams.rules(route.upstream).keeps_token:
            inbound, target = walk.without(plan.authenticator.without_token)
        elif caller is not None and plan.authenticator.telltale_places:
            inbound, target = walk.without(plan.authenticator.without_telltale)
        if walk.forwarded_path is not None:
            _, mark, query = (request_target(scope) if target is None else target).partition(b"?")
            target = walk.forwarded_path + mark + query
        headers = outbound_request_headers(
            inbound,
            rules=plan.upstreams.rules(route.upstream),
            peer=(peer := scope["client"][0] if scope.get("client") else ""),
            trusted=plan.trusted_proxies.trusts(peer),
            scheme=scope["scheme"],
            request_id=walk.request_id,
            identity=[*observed_of(walk), *(() if caller is None else identity_of(caller, standing))],
        )
        opening: Opening | None = None
        if walk.tunnel is not None:
            offered = opening_of(headers, walk.tunnel)
            if isinstance(offered, str):
                return await walk.refuse(Reason.BAD_REQUEST, offered, [(b"sec-websocket-version", b"13")])
            opening = offered
            headers += OFFER

        def forward(send: Send) -> Awaitable[Outcome]:
            return plan.upstreams.forward(
                route.upstream,
                scope=scope,
                headers=headers,
                receive=walk.receive,
                send=send,
                target=target,
                timeouts=route.timeouts,
                opening=opening,
            )

        return await self._exchange(walk, route, caller, forward, opening)

    async def go_on(
        self, walk: Walk, route: CompiledRoute, caller: Caller | None, begun: Begun, started: float
    ) -> None:
        """The rest of a walk whose request is on its way already, since `started`, of `perf_counter`."""
        await self._exchange(
            walk,
            route,
            caller,
            lambda send: walk.plan.upstreams.go_on(begun, scope=walk.scope, receive=walk.receive, send=send),
            started=started,
        )

    async def _exchange(
        self,
        walk: Walk,
        route: CompiledRoute,
        caller: Caller | None,
        forward: Callable[[Send], Awaitable[Outcome]],
        opening: Opening | None = None,
        started: float | None = None,
    ) -> None:
        started = perf_counter() if started is None else started
        under_way: AnswerUnderWay | None = None
        if caller is not None or asks_for_events(walk):
            under_way = AnswerUnderWay(walk, route, caller or NOBODY)
            if caller is not None:
                self.streams.add(under_way)
        if opening is not None:
            opening.on_open = counted(self._telemetry.metrics.websockets, under_way)
        try:
            outcome = await forward(walk.send if under_way is None else under_way.send)
        finally:
            if opening is not None and opening.was_open:
                self._telemetry.metrics.websockets.dec()
            if under_way is not None:
                if caller is not None:
                    self.streams.discard(under_way)
                under_way.over()
        walk.upstream_seconds = perf_counter() - started
        if isinstance(outcome, UpstreamFailure):
            walk.note = outcome.cause
            return await walk.refuse(outcome.reason, outcome.detail)
        if isinstance(outcome, Tunnelled):
            walk.status, walk.bytes_sent, walk.note = 101, outcome.bytes_sent, outcome.how_it_ended
            if under_way is not None and under_way.ending is not None:
                walk.reason = under_way.ending.reason.value
            return None
        walk.status, walk.bytes_sent = outcome.status, outcome.bytes_sent
        if isinstance(outcome, CallerLeft):
            if under_way is not None and under_way.ending is not None:
                return await _end_early(under_way, under_way.ending, outcome)
            if under_way is not None and under_way.has_parted and outcome.answer_status is not None:
                return await under_way.tell_of_restart(outcome.answer_status)
            walk.caller_left()
        elif isinstance(outcome, AnswerBroken):
            walk.note = f"{outcome.reason}: {outcome.cause}"
            raise outcome.torn()
        return None


_REFUSALS: Final = {
    Reason.BLOCKED: "This customer has been blocked by the API's owner.",
    Reason.SCOPE_MISSING: "The credential doesn't hold what this route has come to ask for.",
    Reason.FORBIDDEN: "No tier that can be bought admits to this route.",
    Reason.ENTITLEMENT_UNAVAILABLE: "It could not be found out what this customer has paid for; nothing has to be paid.",
}


def _refusal(plan: Plan, route: CompiledRoute, caller: Caller, refusal: Refuse, asked: Asked) -> Answer:
    standing = refusal.standing
    if ANSWERS[refusal.reason].status == 402 and standing is not None and refusal.offer_rank != NO_TIER:
        payment = Payment(caller.customer, route.requirement, standing, plan.ladder.names[refusal.offer_rank])
        return plan.answers.payment_required(refusal.reason, payment, asked)
    if refusal.reason is Reason.SCOPE_MISSING and (missing := missing_of(route.requirement, caller)) is not None:
        detail = f"{asked.method} {asked.path} needs {missing}; the credential doesn't hold it."
        challenge = challenge_of(route.requirement, missing)
        return plan.answers.refuse(refusal.reason, detail, asked, extra=[(b"www-authenticate", challenge)])
    return plan.answers.refuse(refusal.reason, _REFUSALS[refusal.reason], asked)


async def _end_early(one: AnswerUnderWay, ending: Ending, outcome: CallerLeft) -> None:
    """End an answer that is admitted no longer: as a refusal, by a last event, or as a broken connection."""
    walk, is_begun = one.walk, outcome.answer_status is not None
    asked = replace(walk.asked(), accept=b"") if is_begun else walk.asked()
    if isinstance(ending, Unauthenticated):
        problem = one.plan.answers.refuse(ending.reason, ending.detail, asked)
    else:
        problem = _refusal(one.plan, one.route, one.caller, ending, asked)
    if outcome.answer_status is None:
        return await walk.answer(problem)
    walk.status, walk.reason = outcome.answer_status, problem.reason.value
    event = one.last_event(problem)
    if event is None:
        walk.note = "access ended while the answer was under way: cut off"
        raise TornAnswerError(walk.note)
    walk.note = "access ended while the answer was under way: ended with an event"
    walk.bytes_sent += len(event)
    return await walk.send({"type": "http.response.body", "body": event})


def _preflighted(walk: Walk, target: Target) -> CompiledRoute | None:
    """The route that a CORS preflight asks about: browsers send no token with it, and its answer is the upstream's."""
    method = walk.header(b"access-control-request-method")
    if not method or not walk.header(b"origin"):
        return None
    matched = walk.plan.routes.match(method, walk.header(b"host"), target)
    return matched.route if isinstance(matched, Matched) else None
