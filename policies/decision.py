"""Forward or refuse, and why: a pure function of the route, the facts and the time (docs/design.md, section 4).

It must never answer Forward for something it doesn't know: an unknown access level, customer or status is refused (P2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policies.enforcement import Enforcement
from policies.entitlement import PAYING, Entitlement, Standing
from policies.reasons import Reason
from policies.requirement import Access, Requirement
from policies.tiers import NO_TIER, Ladder


@dataclass(frozen=True, slots=True)
class Forward:
    """Let it through. `standing` is None where nothing was looked up, or where the lookup failed and didn't matter.

    `observed` is what it would have been refused for, were its route enforced for this caller.
    """

    standing: Standing | None
    observed: Reason | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Don't, for `reason`. `offer_rank` is the tier that a payment link should sell, `NO_TIER` when no price helps.

    `checkable` says that Stripe may know better than the facts behind this refusal: one live check is worth its cost.
    `unsure` says what a check that can't run makes of it: 503 rather than 402, because they were paying when last seen.
    """

    reason: Reason
    standing: Standing | None = None
    offer_rank: int = NO_TIER
    checkable: bool = False
    unsure: bool = False


Decision = Forward | Refuse

OBSERVABLE: Final = frozenset(
    {
        *(
            Reason.TOKEN_MISSING,
            Reason.TOKEN_INVALID,
            Reason.TOKEN_EXPIRED,
            Reason.KEYS_UNAVAILABLE,
            Reason.BAD_REQUEST,
        ),
        *(Reason.SUBSCRIPTION_REQUIRED, Reason.TIER_REQUIRED, Reason.SUBSCRIPTION_EXPIRED, Reason.PAYMENT_FAILED),
        *(Reason.SUBSCRIPTION_PAUSED, Reason.SCOPE_MISSING, Reason.FORBIDDEN, Reason.ENTITLEMENT_UNAVAILABLE),
    }
)
"""What a route that isn't enforced lets pass: all that it asks of its caller (`bad_request`: of credentials that contradict
each other). Anything else, a block by the operator first of all, is refused whatever the route says (P2)."""

_FORWARD_UNKNOWN = Forward(None)
_UNAVAILABLE = Refuse(Reason.ENTITLEMENT_UNAVAILABLE)


def decide(requirement: Requirement, entitlement: Entitlement | None, ladder: Ladder, now: float) -> Decision:
    """What an authenticated caller gets. `entitlement` None means that it could not be looked up."""
    if requirement.access is Access.PUBLIC:
        return _FORWARD_UNKNOWN
    if entitlement is None:
        # A failed lookup refuses only where the answer depends on it, and then as 503, never as 402.
        if requirement.access is Access.AUTHENTICATED or requirement.min_rank <= ladder.everybody_rank:
            return _FORWARD_UNKNOWN
        return _UNAVAILABLE
    standing = entitlement.at(now)
    if entitlement.facts.blocked is not None:
        return Refuse(Reason.BLOCKED, standing)
    if requirement.access is Access.AUTHENTICATED or standing.rank >= requirement.min_rank:
        return Forward(standing)
    if _is_granted(requirement, standing):
        return Forward(standing)
    return _refuse(requirement, entitlement, standing, ladder, now)


def lacking(decision: Decision) -> Decision:
    """The decision on a credential that doesn't hold a scope or claim that its route asks for; a block comes first."""
    is_blocked = isinstance(decision, Refuse) and decision.reason is Reason.BLOCKED
    return decision if is_blocked else Refuse(Reason.SCOPE_MISSING, decision.standing)


def enforce(decision: Decision, enforcement: Enforcement, customer: str | None) -> Decision:
    """The decision as far as its route is enforced for this customer, None where nobody is known."""
    if isinstance(decision, Forward) or decision.reason not in OBSERVABLE or enforcement.binds(customer):
        return decision
    return Forward(decision.standing, observed=decision.reason)


def _is_granted(requirement: Requirement, standing: Standing) -> bool:
    """Whether features that Stripe grants make up for a tier that the caller doesn't have."""
    if requirement.granted_rank is None or not requirement.features or standing.rank < requirement.granted_rank:
        return False
    return set(requirement.features) <= set(standing.features)


def _refuse(
    requirement: Requirement, entitlement: Entitlement, standing: Standing, ladder: Ladder, now: float
) -> Refuse:
    offer_rank = ladder.cheapest_on_offer(requirement.min_rank)
    if offer_rank == NO_TIER:
        return Refuse(Reason.FORBIDDEN, standing)
    return Refuse(
        reason=_reason(requirement.min_rank, entitlement, standing),
        standing=standing,
        offer_rank=offer_rank,
        checkable=entitlement.may_be_stale(now),
        unsure=entitlement.was_paying(now),
    )


def _reason(min_rank: int, entitlement: Entitlement, standing: Standing) -> Reason:
    """Only subscriptions whose tier would satisfy the route count, and the first that applies names the refusal."""
    statuses = {subscription.status for subscription, rank in entitlement.ranked if rank >= min_rank}
    is_unpaid = any(
        subscription.id in entitlement.unpaid for subscription, rank in entitlement.ranked if rank >= min_rank
    )
    if statuses & {"past_due", "unpaid"} or is_unpaid:
        return Reason.PAYMENT_FAILED
    if "paused" in statuses:
        return Reason.SUBSCRIPTION_PAUSED
    # Still `active` here means past its span: the renewal never came, or its planned end has passed unheard.
    if statuses & (PAYING | {"canceled"}):
        return Reason.SUBSCRIPTION_EXPIRED
    return Reason.SUBSCRIPTION_REQUIRED if standing.rank == NO_TIER else Reason.TIER_REQUIRED
