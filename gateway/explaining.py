"""Answers "why?" for one request: the explanation from `policies.explain`, the bytes from the gateway's own walk.

It decides whom the request is from, as far as that was asked: a customer on record, somebody made up, whoever the token
names, or nobody. It must never change anything, and it shows what the answer holds, a payment link too: whoever may
ask this may see it. Credentials are never shown (`gateway.explaining_masks`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import httptools

from gateway.answers import Headers
from gateway.body_limit import declared_length
from gateway.credentials import Unauthenticated
from gateway.explaining_masks import masked
from gateway.listener_head import ListenerLimits, head_refusal, offers_websocket
from gateway.plan import Plan
from gateway.rehearsal import OwnAnswer, rehearse
from gateway.walk import header_of
from policies.caller import Caller as Named
from policies.caller import customer_problem
from policies.entitlement import Entitlement
from policies.explain import Check, Explanation, Rules, explain
from policies.explain_report import (
    Asking,
    Fields,
    NotExplained,
    Report,
    ShownAnswer,
    ShownForward,
    is_rehearsed,
    report,
)
from policies.facts import CustomerFacts
from policies.reasons import Reason
from policies.supposed import Impossible, suppose
from policies.verdict import Caller, Question, shown

_FOREVER: Final = 2**60
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_UNFIT: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class _Somebody:
    """Who asks: `who` in words, `vouched` where no token has to say so, `credential` where one does."""

    who: str
    caller: Caller
    vouched: Named | None
    credential: Named | None = None


class Explainer:
    """`plan` and `facts_of` are those in force: the ledger's facts, which may be a moment older than a cache's."""

    def __init__(
        self,
        plan: Callable[[], Plan],
        *,
        facts_of: Callable[[str], Awaitable[CustomerFacts]],
        now: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._facts_of = facts_of
        self._now = now

    async def __call__(self, asking: Asking) -> Report | NotExplained:
        """The report; what the ledger raises comes through."""
        plan = self._plan()
        rules = Rules(plan.config, plan.routes, plan.ladder)
        at = int(self._now()) if asking.at is None else asking.at
        headers = _headers(asking)
        if headers is None:
            return NotExplained("A host or header of the request holds what no request can.")
        target = asking.target.encode("utf-8", "surrogatepass")
        is_offer = _offers_websocket(asking.method, headers)
        below = _refused_below(asking.method, target, headers)
        if below is not None:
            return NotExplained(f"The listener ends such a request before any rule is asked: {below}")
        somebody = await self._who(asking, plan, rules, headers, at)
        if isinstance(somebody, NotExplained):
            return somebody
        question = Question(
            asking.method,
            target,
            header_of(headers, b"host"),
            _preflight_for(asking.method, headers),
            somebody.credential,
            declared_length(headers),
        )
        explanation = explain(rules, question, somebody.caller, at)
        answer, forwarded = None, None
        if is_rehearsed(explanation):
            entitlement = somebody.caller if isinstance(somebody.caller, Entitlement) else None
            result = await rehearse(
                plan,
                method=asking.method,
                target=target,
                headers=headers,
                vouched=somebody.vouched,
                entitlement=entitlement,
                now=at,
                opens_websocket=is_offer,
            )
            if isinstance(result, OwnAnswer):
                if is_offer:
                    explanation = _with_handshake(explanation, result)
                answer = ShownAnswer(result.status, _fields(result.headers), result.body.decode())
            else:
                sent = result.target.decode("latin-1")
                forwarded = ShownForward(result.upstream, asking.method, sent, _fields(result.headers))
        told = report(question, somebody.who, at, explanation, answer=answer, forwarded=forwarded)
        own = plan.config.upstreams[forwarded.upstream].headers if forwarded is not None else ()
        return masked(told, plan.authenticator.sources, headers, target.partition(b"?")[2], own)

    async def _who(
        self, asking: Asking, plan: Plan, rules: Rules, headers: Headers, at: int
    ) -> _Somebody | NotExplained:
        if asking.supposition is not None:
            facts = suppose(asking.supposition, plan.config.tiers, at)
            if isinstance(facts, Impossible):
                detail = f"{facts.message[:1].upper()}{facts.message[1:]}."
                return NotExplained(detail, names_what_is_not_there=facts.code == "unknown-tier")
            return _vouched(f"made up: {asking.supposition}", rules.derive(facts))
        if asking.customer is not None:
            problem = customer_problem(asking.customer)
            if problem is not None:
                return NotExplained(f"The customer's name {problem}.")
            facts = await self._facts_of(asking.customer)
            known = "" if facts.version else ", of whom nothing is on record"
            return _vouched(f"the customer {asking.customer}{known}", rules.derive(facts))
        query = asking.target.encode("utf-8", "surrogatepass").partition(b"?")[2]
        outcome = await plan.authenticator.settle(plan.authenticator.authenticate(headers, query), headers, query)
        if isinstance(outcome, Unauthenticated):
            who = "nobody" if outcome.reason is Reason.TOKEN_MISSING else f"nobody known ({outcome.detail.rstrip('.')})"
            return _Somebody(who, outcome.reason, None)
        customer = outcome.caller.customer
        entitlement = rules.derive(await self._facts_of(customer))
        return _Somebody(f"the customer {customer}, whom the credential names", entitlement, None, outcome.caller)


class _Ignored:
    """Takes what the parser reads."""


def _refused_below(method: str, target: bytes, headers: Headers) -> str | None:
    """What the listener answers where a request never becomes one for the walk."""
    parser = httptools.HttpRequestParser(_Ignored())
    try:
        parser.feed_data(method.encode("utf-8", "surrogatepass") + b" " + target + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass  # CONNECT, of which the head's own check has its word to say
    except httptools.HttpParserError:
        return f"{shown(Reason.BAD_REQUEST)}. The request line is not valid HTTP."
    if len(target) > ListenerLimits().target_bytes:
        return f"{shown(Reason.URI_TOO_LONG)}."
    with_host = headers if any(name == b"host" for name, _ in headers) else [(b"host", b"a"), *headers]
    refusal = head_refusal(method.encode(), target, "1.1", with_host)
    return None if refusal is None else f"{shown(refusal.reason)}. {refusal.detail}"


def _offers_websocket(method: str, headers: Headers) -> bool:
    """Whether the listener would let this become a WebSocket, which is asked for more than its route says."""
    connection = b",".join(value for name, value in headers if name == b"connection").lower()
    tokens = {token.strip() for token in connection.split(b",")}
    return b"upgrade" in tokens and offers_websocket(method.encode("utf-8", "surrogatepass"), "1.1", headers)


def _with_handshake(explanation: Explanation, answer: OwnAnswer) -> Explanation:
    """The explanation where a WebSocket's opening is refused for what it is itself: a cookie alone, or no valid one."""
    reason = Reason(dict(answer.headers)[b"x-gateway-reason"].decode())
    if reason is explanation.verdict.reason:
        return explanation
    found = (
        "a cookie alone is not believed for a WebSocket without an allowed Origin"
        if reason is Reason.FORBIDDEN
        else "its opening is not a valid one"
    )
    checks = (*explanation.checks, Check("WebSocket", found))
    return replace(
        explanation, verdict=replace(explanation.verdict, reason=reason), why=found, checks=checks, changes=()
    )


def _vouched(who: str, entitlement: Entitlement) -> _Somebody:
    return _Somebody(who, entitlement, Named(entitlement.facts.customer, "", _FOREVER, is_made_up=True))


def _headers(asking: Asking) -> Headers | None:
    """As ASGI has them; None for what can't stand in a header."""
    named = (*((("host", asking.host),) if asking.host else ()), *asking.headers)
    try:
        headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in named]
    except UnicodeEncodeError:
        return None
    is_fit = all(_NAME.fullmatch(name) and not _UNFIT.search(value) for name, value in headers)
    return headers if is_fit else None


def _preflight_for(method: str, headers: Headers) -> str | None:
    """The method that a CORS preflight asks about; None for what is no preflight."""
    if method != "OPTIONS" or not header_of(headers, b"origin"):
        return None
    return header_of(headers, b"access-control-request-method") or None


def _fields(headers: Headers) -> Fields:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
