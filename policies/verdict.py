"""What the gateway makes of a request, as a value: the walk of `gateway.app` without a gateway.

It decides nothing of its own: the target is read, the route found and the caller judged by the functions that requests
use, in their order. It must never be kinder or stricter than the walk; a test holds the two against each other.
What an upstream would answer, and whether a lookup or Stripe fails, is beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policies.caller import Caller as Credential
from policies.decision import Decision, Forward, Refuse, decide, enforce, lacking
from policies.entitlement import Entitlement
from policies.paths import BadTarget, Target
from policies.patterns import RESERVED
from policies.reasons import ANSWERS, Reason
from policies.requirement import Access, Requirement
from policies.route_table import CompiledRoute, Matched, MethodNotAllowed, NoRoute, RouteTable
from policies.scopes import Missing, missing_of
from policies.tiers import Ladder

FORWARD: Final = "forward"
OWN: Final = "own"

Caller = Entitlement | Reason
"""Somebody whose token is good, or why the request's token doesn't name anybody (`token_missing`: there is none)."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request, as far as it is judged by. `preflight_for` is a CORS preflight's Access-Control-Request-Method.

    `body_bytes` is what its Content-Length says.
    `credential` is what the caller was known by, for its scopes and claims; None is one that holds whatever is asked for.
    """

    method: str
    target: bytes
    host: str = ""
    preflight_for: str | None = None
    credential: Credential | None = None
    body_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.target.decode('utf-8', 'replace')}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a request came. `reason` None is forwarded, or, with `is_own`, answered by the gateway's own endpoints.

    `matched` is None where no route was looked for; `decision` where nobody had to be known.
    """

    reading: Target | BadTarget
    matched: Matched | NoRoute | MethodNotAllowed | None
    reason: Reason | None
    decision: Decision | None = None
    is_own: bool = False

    @property
    def route(self) -> CompiledRoute | None:
        """The route that judged it."""
        return self.matched.route if isinstance(self.matched, Matched) else None

    @property
    def observed(self) -> Reason | None:
        """What it was forwarded in spite of, on a route that isn't enforced for its caller."""
        return self.decision.observed if self.reason is None and isinstance(self.decision, Forward) else None

    @property
    def outcome(self) -> str:
        """``forward``, ``forward, observed 402 tier_required``, ``402 tier_required`` or ``own``."""
        if self.is_own:
            return OWN
        if self.reason is not None:
            return shown(self.reason)
        return FORWARD if self.observed is None else f"{FORWARD}, observed {shown(self.observed)}"


def shown(reason: Reason) -> str:
    """``402 tier_required``."""
    return f"{ANSWERS[reason].status} {reason.value}"


def judge(table: RouteTable, ladder: Ladder, question: Question, caller: Caller, now: float) -> Verdict:
    """What becomes of the request at `now`."""
    reading = table.read(question.target)
    if isinstance(reading, BadTarget):
        return Verdict(reading, None, Reason.BAD_PATH)
    if any(each[:1] == (RESERVED,) for each in (reading.folded, *reading.further)):
        return Verdict(reading, None, None, is_own=True)
    matched = table.match(question.method, question.host, reading)
    if question.method == "OPTIONS" and question.preflight_for is not None:
        asked_for = table.match(question.preflight_for, question.host, reading)
        if isinstance(asked_for, Matched):
            if not _can_go_on(asked_for, reading):
                return Verdict(reading, asked_for, Reason.BAD_PATH)
            fits = asked_for.route.takes(question.body_bytes)
            return Verdict(reading, asked_for, None if fits else Reason.BODY_TOO_LARGE)
    if isinstance(matched, BadTarget):
        return Verdict(matched, None, Reason.BAD_PATH)
    if isinstance(matched, NoRoute):
        return Verdict(reading, matched, Reason.NO_ROUTE)
    if isinstance(matched, MethodNotAllowed):
        return Verdict(reading, matched, Reason.METHOD_NOT_ALLOWED)
    if not _can_go_on(matched, reading):
        return Verdict(reading, matched, Reason.BAD_PATH)
    decision = admit(matched.route, ladder, caller, now, question.credential)
    reason = decision.reason if isinstance(decision, Refuse) else None
    if reason is None and not matched.route.takes(question.body_bytes):
        reason = Reason.BODY_TOO_LARGE
    return Verdict(reading, matched, reason, decision)


def _can_go_on(matched: Matched, target: Target) -> bool:
    rewrite = matched.route.rewrite
    return rewrite is None or not isinstance(rewrite.path(target), BadTarget)


def admit(
    route: CompiledRoute, ladder: Ladder, caller: Caller, now: float, credential: Credential | None = None
) -> Decision | None:
    """Whether the route lets the caller through; None where nobody looks at who it is."""
    if route.is_open:
        return None
    if isinstance(caller, Reason):
        return enforce(Refuse(caller), route.enforcement, None)
    customer = caller.facts.customer
    lacks = credential is not None and missing_of(route.requirement, credential) is not None
    if lacks and route.enforcement.binds(customer):
        return Refuse(Reason.SCOPE_MISSING)
    decision = decide(route.requirement, caller, ladder, now)
    return enforce(lacking(decision) if lacks else decision, route.enforcement, customer)


def asks(requirement: Requirement) -> str:
    """``nothing``, ``a valid token``, ``tier 'pro' with export``: what a route needs of its caller."""
    if requirement.access is Access.PUBLIC:
        return "nothing of its caller"
    narrowed = f", and {narrowing(requirement)}" if requirement.narrows else ""
    if requirement.access is Access.AUTHENTICATED:
        return f"a valid token{narrowed}"
    features = ", ".join(requirement.features)
    if requirement.tier is None:
        return f"{features} from Stripe{narrowed}"
    return f"tier '{requirement.tier}'{f' with {features}' if features else ''}{narrowed}"


def narrowing(requirement: Requirement) -> str:
    """``the scope 'reports:write'``: what the credential itself must hold; empty for nothing."""
    return str(Missing(requirement.scopes, requirement.claims))


def because(verdict: Verdict) -> str:
    """Why, as a clause without its full stop."""
    if isinstance(verdict.reading, BadTarget):
        return verdict.reading.detail.removesuffix(".")
    if verdict.is_own:
        return "paths below /_gateway are the gateway's own and judged by no route"
    if isinstance(verdict.matched, MethodNotAllowed):
        return f"the path is served with {', '.join(verdict.matched.allow)} only"
    if verdict.route is None:
        return "no route matches the path, and 'default' is deny"
    named = "'default'" if verdict.route.index < 0 else f"the route {verdict.route.label!r}"
    if verdict.reason is Reason.BODY_TOO_LARGE:
        return f"{named} takes bodies of at most {verdict.route.max_body} bytes"
    asking = f"{named} asks for {asks(verdict.route.requirement)}"
    if verdict.reason is Reason.BAD_PATH:
        return f"{asking}, and {NOBODY[Reason.BAD_PATH]}"
    if verdict.decision is None:
        if verdict.route.requirement.access is Access.PUBLIC:
            return asking
        if not verdict.route.enforcement.judges:
            return f"{asking}, but says enforce: off, so nobody looks"
        return f"{asking}, but a CORS preflight carries no token and goes through"
    reason = verdict.observed or verdict.reason
    found = NOBODY.get(reason) if reason is not None else None
    why = f"{asking}, and {found or f'the caller {_has(verdict.decision)}'}"
    if verdict.observed is None:
        return why
    return f"{why}; but it says enforce: {verdict.route.enforcement}, and forwards and counts what it would refuse"


NOBODY: Final = {
    Reason.BAD_PATH: "the path spells the beginning that the route cuts off in another way",
    Reason.SCOPE_MISSING: "the credential doesn't hold all of that",
    Reason.TOKEN_MISSING: "the request holds no token",
    Reason.TOKEN_INVALID: "the token is not accepted",
    Reason.TOKEN_EXPIRED: "the token's time is over",
    Reason.KEYS_UNAVAILABLE: "the keys that tokens are verified with are out of reach",
    Reason.BAD_REQUEST: "the credentials of the request contradict each other",
}


def _has(decision: Decision) -> str:
    if isinstance(decision, Refuse) and decision.reason is Reason.BLOCKED:
        return "is blocked"
    standing = decision.standing
    if standing is None:
        return "could not be looked up"
    return f"has {'no tier' if standing.tier is None else repr(standing.tier)} (status {standing.status})"
