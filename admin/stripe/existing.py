"""What somebody who wants a tier already has: a pure choice, made before any Checkout session.

One subscription that is not `canceled`, `incomplete` or `incomplete_expired` means no second one (docs/design.md, section
4). It decides what happens instead, and must never answer `Nothing` while there is such a subscription.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from policies.entitlement import PAYING
from policies.facts import SubscriptionFact
from policies.tiers import NO_TIER, Ladder

OVER: Final = frozenset({"canceled", "incomplete", "incomplete_expired"})
OWING: Final = frozenset({"past_due", "unpaid"})


@dataclass(frozen=True, slots=True)
class Nothing:
    """No subscription is in the way of a new one."""


@dataclass(frozen=True, slots=True)
class Enough:
    """They have what they ask for, or something that can't be changed on its own."""

    subscription: SubscriptionFact
    rank: int
    detail: str


@dataclass(frozen=True, slots=True)
class Owes:
    """An invoice is open, or was when Stripe stopped: paying it comes first."""

    subscription: SubscriptionFact
    rank: int


@dataclass(frozen=True, slots=True)
class Less:
    """They pay for a lower tier with a subscription of one item, which can be moved to another price."""

    subscription: SubscriptionFact
    rank: int


Existing: TypeAlias = Nothing | Enough | Owes | Less


def choose(
    subscriptions: Sequence[SubscriptionFact], ladder: Ladder, wanted_rank: int, *, require_paid: bool = False
) -> Existing:
    """What stands between these subscriptions and a new one for the tier at `wanted_rank`.

    With `require_paid` one that is active and whose latest invoice is open gives nothing until that is paid.
    """
    running = sorted(
        (
            (subscription, _rank(subscription, ladder))
            for subscription in subscriptions
            if subscription.status not in OVER
        ),
        key=lambda entry: (-entry[1], entry[0].created, entry[0].id),
    )
    if not running:
        return Nothing()
    for subscription, rank in running:
        if require_paid and subscription.status == "active" and subscription.latest_invoice == "open":
            return Owes(subscription, rank)
    for subscription, rank in running:
        if subscription.status in PAYING and rank >= wanted_rank:
            return Enough(subscription, rank, "it is paid for")
    for subscription, rank in running:
        if subscription.status in OWING or subscription.status == "paused":
            return Owes(subscription, rank)
    for subscription, rank in running:
        if subscription.status in PAYING and rank != NO_TIER and len(subscription.items) == 1:
            return Less(subscription, rank)
    subscription, rank = running[0]
    if rank == NO_TIER:
        return Enough(subscription, rank, "another subscription is running that belongs to no tier")
    return Enough(subscription, rank, "the running subscription can't be changed here")


def _rank(subscription: SubscriptionFact, ladder: Ladder) -> int:
    return max((ladder.rank_of(item) for item in subscription.items if item.quantity != 0), default=NO_TIER)
