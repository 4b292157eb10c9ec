"""The `tests:` section of gateway.yaml: what a team expects of its paywall, held against what the routes do.

    tests:
      - {request: GET /v1/reports/7, who: {tier: free}, expect: 402 tier_required}
      - {request: GET /status, expect: forward}
      - {request: POST /v1/export/x, who: {tier: pro, status: past_due}, expect: forward}
      - {request: GET /v1/reports/7, who: {tier: pro, until: 2026-12-01}, at: 2026-12-04, expect: subscription_expired}

It decides what one entry means and whether it holds. It must never judge by other code than requests are judged by,
nor depend on the day it is run: a test with an end in it says at which time it plays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policies.decision import OBSERVABLE
from policies.diagnostics import listed, nearest
from policies.entitlement import BillingRules, derive
from policies.moments import parse_moment
from policies.reasons import ANSWERS, Reason
from policies.route_table import RouteTable
from policies.schema import Config, Expectation, Who
from policies.supposed import Impossible, Supposition, suppose
from policies.tiers import build_ladder
from policies.verdict import FORWARD, Question, because, judge

OBSERVE: Final = "observe"

SOME_DAY: Final = 1_767_225_600
"""When a test plays that names no time: 2026-01-01. Nothing in it depends on which day that is."""

DECIDED_BY_ROUTES: Final = (
    Reason.BAD_PATH,
    Reason.TOKEN_MISSING,
    Reason.SUBSCRIPTION_REQUIRED,
    Reason.TIER_REQUIRED,
    Reason.SUBSCRIPTION_EXPIRED,
    Reason.PAYMENT_FAILED,
    Reason.SUBSCRIPTION_PAUSED,
    Reason.FORBIDDEN,
    Reason.BLOCKED,
    Reason.NO_ROUTE,
    Reason.METHOD_NOT_ALLOWED,
)
"""What a test can expect beside `forward`: everything that follows from the file, the facts and the time."""

_REQUEST: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +(\S.*)")
_EXPECTED: Final = re.compile(r"(?:([0-9]{3}) *)?([A-Za-z_]*)")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to come of a request: any of these reasons, or, with none of them, that it is forwarded.

    `is_observed`: it is forwarded in spite of one of them, on a route that isn't enforced.
    """

    reasons: tuple[Reason, ...]
    is_observed: bool = False

    def holds(self, reason: Reason | None, observed: Reason | None = None) -> bool:
        """Whether this is what was expected: refused for `reason`, or forwarded, in spite of `observed` perhaps."""
        if self.is_observed:
            return reason is None and observed in self.reasons
        return reason in self.reasons if self.reasons else reason is None


@dataclass(frozen=True, slots=True)
class Unmet:
    """A test that fails, by its place in `Config.tests`, and what it got instead."""

    index: int
    message: str


def read_request(text: str) -> tuple[str, bytes] | str:
    """Method and target of ``GET /v1/x``, or what is wrong with it, as a predicate."""
    parts = _REQUEST.fullmatch(text.strip())
    if parts is None:
        return "is not a method and a target, such as GET /v1/reports/7"
    return parts[1], parts[2].encode("utf-8", "surrogatepass")


def read_expected(text: str) -> Expected | str:
    """What ``forward``, ``402``, ``tier_required`` or ``402 tier_required`` expects, or what is wrong, as a predicate."""
    if text == FORWARD:
        return Expected(())
    if text.startswith(f"{OBSERVE} "):
        refusal = read_expected(text.removeprefix(f"{OBSERVE} ").strip())
        if isinstance(refusal, str):
            return refusal
        if not refusal.reasons or not set(refusal.reasons) & OBSERVABLE:
            return f"can't be observed: after '{OBSERVE}' stands a refusal that a route lets pass, such as 402 tier_required"
        return Expected(refusal.reasons, is_observed=True)
    parts = _EXPECTED.fullmatch(text.strip())
    if parts is None or not (parts[1] or parts[2]):
        return f"is neither {FORWARD} nor a status and a reason, such as 402 tier_required"
    status, name = parts[1], parts[2]
    if not name:
        of_status = tuple(reason for reason in DECIDED_BY_ROUTES if ANSWERS[reason].status == int(status))
        known = sorted({str(ANSWERS[reason].status) for reason in DECIDED_BY_ROUTES})
        return Expected(of_status) if of_status else f"is a status that no route decides; those are {listed(known)}"
    if name not in {reason.value for reason in Reason}:
        near = nearest(name, [FORWARD, *(reason.value for reason in DECIDED_BY_ROUTES)])
        return f"names no reason of the gateway's{near or f'; it is {FORWARD} or one of ' + _known_reasons()}"
    reason = Reason(name)
    if reason not in DECIDED_BY_ROUTES:
        return f"names a reason that no route decides; it is {FORWARD} or one of {_known_reasons()}"
    if status and ANSWERS[reason].status != int(status):
        return f"contradicts itself: {reason.value} is a {ANSWERS[reason].status}"
    return Expected((reason,))


def read_who(who: Who) -> Supposition | None:
    """Whom to make up; None is nobody."""
    if who == Who():
        return None
    return Supposition(who.tier, who.status, None if who.until is None else parse_moment(who.until))


def moment_of(test: Expectation) -> int:
    """When it plays."""
    return SOME_DAY if test.at is None else parse_moment(test.at)


def unmet_expectations(config: Config, table: RouteTable) -> Iterator[Unmet]:
    """Every test of a loaded configuration that fails."""
    ladder = build_ladder(config.tiers)
    rules = BillingRules.of(config.billing)
    for index, test in enumerate(config.tests):
        request, expected = read_request(test.request), read_expected(test.expect)
        who, at = read_who(test.who), moment_of(test)
        if isinstance(request, str) or isinstance(expected, str):
            raise TypeError(f"tests[{index}] was let through by the loader and can't be read")
        facts = None if who is None else suppose(who, config.tiers, at)
        if isinstance(facts, Impossible):
            raise TypeError(f"tests[{index}] was let through by the loader: {facts.message}")
        question = Question(request[0], request[1], test.host or "")
        caller = Reason.TOKEN_MISSING if facts is None else derive(facts, ladder, rules)
        verdict = judge(table, ladder, question, caller, at)
        if verdict.is_own or not expected.holds(verdict.reason, verdict.observed):
            asker = "nobody" if who is None else str(who)
            yield Unmet(
                index, f"{question} from {asker} is answered {verdict.outcome}, not {test.expect}: {because(verdict)}"
            )


def _known_reasons() -> str:
    return listed(reason.value for reason in DECIDED_BY_ROUTES)
