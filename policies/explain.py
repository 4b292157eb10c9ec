"""Why a request is answered as it is: which route judges it and which lost, what was checked, what would change it.

It decides nothing: every verdict in it comes from `policies.verdict`, the ones of "what if" too, so that a remedy is
never a guess. It must never promise what it hasn't tried, and knows nothing of tokens, upstreams and outages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from policies.caller import Caller as Credential
from policies.decision import Refuse
from policies.diagnostics import listed
from policies.enforcement import Mode
from policies.entitlement import BillingRules, Entitlement, derive
from policies.explain_losers import Loser, losers_of
from policies.facts import CustomerFacts
from policies.literal_slashes import LiteralTarget
from policies.moments import format_moment
from policies.paths import BadTarget, Target
from policies.reasons import Reason
from policies.requirement import Access, Requirement
from policies.route_table import CompiledRoute, MethodNotAllowed, RouteTable
from policies.schema import Config
from policies.scopes import missing_of
from policies.supposed import Impossible, Supposition, suppose
from policies.tiers import NO_TIER, Ladder
from policies.verdict import FORWARD, NOBODY, Caller, Question, Verdict, asks, because, judge, narrowing, shown

MOST_EDGES: Final = 64
"""How many moments ahead are tried: a customer with more subscriptions than that is not explained by a list."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One configuration, compiled, with the prices that the ledger has pinned to tiers in its ladder."""

    config: Config
    table: RouteTable
    ladder: Ladder

    @property
    def billing(self) -> BillingRules:
        """How late money may be."""
        return BillingRules.of(self.config.billing)

    def derive(self, facts: CustomerFacts) -> Entitlement:
        """What these facts give."""
        return derive(facts, self.ladder, self.billing)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at on the way, and what it came to."""

    what: str
    found: str


@dataclass(frozen=True, slots=True)
class Change:
    """If `what`, then `outcome`: `forward`, or a status and a reason. Each was tried."""

    what: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say of one request. `why` is the verdict as a clause."""

    verdict: Verdict
    why: str
    losers: tuple[Loser, ...]
    checks: tuple[Check, ...]
    changes: tuple[Change, ...]


def explain(rules: Rules, question: Question, caller: Caller, now: float) -> Explanation:
    """The verdict on this request at `now`, and what it rests on."""
    verdict = judge(rules.table, rules.ladder, question, caller, now)
    return Explanation(
        verdict=verdict,
        why=because(verdict),
        losers=losers_of(rules.config, rules.table, question, verdict),
        checks=tuple(_checks(rules, question, caller, verdict, now)),
        changes=tuple(_changes(rules, question, caller, verdict, now)),
    )


def _checks(rules: Rules, question: Question, caller: Caller, verdict: Verdict, now: float) -> Iterator[Check]:
    if isinstance(verdict.reading, BadTarget):
        yield Check("path", verdict.reading.detail)
        return
    yield Check("path", _read(verdict.reading))
    if verdict.is_own:
        yield Check("route", "none: the gateway answers this itself")
        return
    route = verdict.route
    if route is None:
        yield Check("route", because(verdict))
        return
    host = f" under the host {question.host}" if question.host and rules.table.hosts else ""
    label = "default" if route.index < 0 else route.label
    yield Check("route", f"{label} judges {question.method}{host}, and asks for {asks(route.requirement)}")
    if verdict.reason is Reason.BAD_PATH:
        yield Check("path", because(verdict).rpartition(", and ")[2])
        return
    if route.requirement.access is not Access.PUBLIC and not route.enforcement.refuses_everybody:
        yield Check("enforce", _enforced(route, caller))
    if verdict.decision is None:
        yield Check("token", "not looked at")
        return
    if isinstance(caller, Reason):
        yield Check("token", NOBODY[caller])
        return
    yield Check("token", f"good, and names the customer {caller.facts.customer}")
    if route.requirement.narrows:
        yield Check("credential", _held(route.requirement, question.credential))
    if verdict.decision.standing is None:
        return  # nothing was looked up
    if route.fails_open:
        yield Check("on_unavailable", "allow: forwarded, too, when it can't be found out what the customer pays")
    yield from _entitlement_checks(rules.ladder, caller, verdict, now)


def _read(target: Target) -> str:
    if isinstance(target, LiteralTarget):
        others = listed(reading.path for reading in target.others)
    elif target.ends_early:
        others = listed(dict.fromkeys(reading.path for reading in target.ends_early))
    else:
        return f"has one reading, {target.path}"
    return f"is taken as it was sent, {target.path}; an upstream might read {others}, and no less is asked than there"


def _enforced(route: CompiledRoute, caller: Caller) -> str:
    """How far the route is enforced, and whether for this caller."""
    if route.enforcement.mode is not Mode.SHARE:
        said = {Mode.OBSERVE: "what would be refused is forwarded and counted", Mode.OFF: "nobody is judged"}
        return f"{route.enforcement}: {said[route.enforcement.mode]}"
    is_bound = route.enforcement.binds(None if isinstance(caller, Reason) else caller.facts.customer)
    return f"{route.enforcement} of the customers, and {'this is' if is_bound else 'this is not'} one of them"


def _held(requirement: Requirement, credential: Credential | None) -> str:
    if credential is None:
        return f"is supposed to hold {narrowing(requirement)}"
    missing = missing_of(requirement, credential)
    return f"holds {narrowing(requirement)}" if missing is None else f"lacks {missing}"


def _entitlement_checks(ladder: Ladder, caller: Entitlement, verdict: Verdict, now: float) -> Iterator[Check]:
    facts, standing = caller.facts, caller.at(now)
    if facts.blocked is not None:
        yield Check("block", "the operator refuses this customer everything")
    until = "" if standing.access_until is None else f" until {format_moment(standing.access_until)}"
    has = "no tier" if standing.tier is None else f"'{standing.tier}'"
    yield Check("entitlement", f"{has}, status {standing.status}{until}")
    for subscription, rank in caller.ranked:
        pays = "no tier" if rank == NO_TIER else f"'{ladder.names[rank]}'"
        yield Check(f"subscription {subscription.id}", f"{subscription.status}, for {pays}")
    for grant in facts.grants:
        end = "without end" if grant.until is None else f"until {format_moment(grant.until)}"
        yield Check(f"grant {grant.id}", f"'{grant.tier}' {end}")
    if isinstance(verdict.decision, Refuse) and verdict.decision.checkable:
        unsure = "; if it can't be asked, this is a 503 entitlement_unavailable" if verdict.decision.unsure else ""
        yield Check(
            "Stripe", f"is asked once before this refusal, because it may know more than was last fetched{unsure}"
        )


def _changes(rules: Rules, question: Question, caller: Caller, verdict: Verdict, now: float) -> Iterator[Change]:
    if isinstance(verdict.matched, MethodNotAllowed):
        for method in verdict.matched.allow:
            other = judge(rules.table, rules.ladder, replace(question, method=method), caller, now)
            yield Change(f"the method were {method}", other.outcome)
        return
    if verdict.route is None or verdict.reason is Reason.BAD_PATH or verdict.decision is None:
        return
    if verdict.observed is not None:
        yield Change("the route were enforced (enforce: on)", shown(verdict.observed))
    if isinstance(caller, Reason):
        yield from _for_somebody_else(rules, question, verdict, now, [None, *rules.ladder.names])
        return
    reason = verdict.observed or verdict.reason
    if reason is Reason.SCOPE_MISSING:
        enough = replace(question, credential=None)
        outcome = judge(rules.table, rules.ladder, enough, caller, now).outcome
        yield Change(f"the credential held {narrowing(verdict.route.requirement)}", outcome)
        return
    yield from _otherwise(rules, question, caller, verdict, now)
    yield from _later(rules, question, caller, verdict, now)


def _otherwise(rules: Rules, question: Question, caller: Entitlement, verdict: Verdict, now: float) -> Iterator[Change]:
    reason = verdict.observed or verdict.reason
    if reason is None:
        return
    if caller.facts.blocked is not None:
        freed = rules.derive(replace(caller.facts, blocked=None))
        other = judge(rules.table, rules.ladder, question, freed, now)
        yield Change("the block were lifted", other.outcome)
        return
    if reason is Reason.PAYMENT_FAILED:
        paid = rules.derive(_paid(caller.facts, now))
        other = judge(rules.table, rules.ladder, question, paid, now)
        yield Change("the open invoice were paid", other.outcome)
    above = rules.ladder.names[caller.at(now).rank + 1 :]
    yield from _for_somebody_else(rules, question, verdict, now, list(above))


def _for_somebody_else(
    rules: Rules, question: Question, verdict: Verdict, now: float, tiers: list[str | None]
) -> Iterator[Change]:
    """What somebody with a good token and each of these tiers gets; None is somebody who has bought nothing."""
    for tier in tiers:
        if tier is not None and rules.ladder.rank(tier) == rules.ladder.everybody_rank:
            continue  # the same as having bought nothing
        facts = suppose(Supposition(tier), rules.config.tiers, int(now))
        if isinstance(facts, Impossible):
            raise TypeError(f"{tier!r} is a tier of this very ladder: {facts.message}")
        outcome = judge(rules.table, rules.ladder, question, rules.derive(facts), now).outcome
        if outcome == verdict.outcome:
            continue
        if tier is None:
            yield Change("the request held a good token of a customer who has bought nothing", outcome)
        else:
            verb = "paid for" if rules.ladder.sold[rules.ladder.rank(tier)] else "were granted"
            yield Change(f"the customer {verb} {tier}", outcome)
        if outcome == FORWARD:
            return  # every tier above has all of this one


def _paid(facts: CustomerFacts, now: float) -> CustomerFacts:
    """The same subscriptions once what is owed has been paid."""
    subscriptions = tuple(
        replace(one, status="active", oldest_open_invoice_at=None) if one.status in {"past_due", "unpaid"} else one
        for one in facts.subscriptions
    )
    return replace(facts, subscriptions=subscriptions, fetched_at=int(now))


def _later(rules: Rules, question: Question, caller: Entitlement, verdict: Verdict, now: float) -> Iterator[Change]:
    """The first moment at which the answer changes by itself, if nothing is heard of Stripe until then."""
    for edge in [edge for edge in caller.edges if edge > now][:MOST_EDGES]:
        other = judge(rules.table, rules.ladder, question, caller, edge)
        if other.outcome != verdict.outcome:
            yield Change(f"nothing were heard of Stripe until {format_moment(edge)}", other.outcome)
            return
