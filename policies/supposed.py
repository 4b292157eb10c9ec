"""Customers made up for a question: "somebody on pro whose payment failed", as the facts that Stripe would have given.

It decides which facts stand for a tier, a status and an end, and which combinations can't exist. The facts are judged
by the same code as real ones, so a grace or a leeway of gateway.yaml counts here as it does in production.

| status | what is supposed | `until` is |
|---|---|---|
| `none` | a valid token, and nothing bought | |
| `active` | a subscription that renews (a grant, where nothing is sold for the tier) | the end of its period (the grant's) |
| `trialing` | a trial that turns into a subscription | the trial's end |
| `canceled` | still paid for, planned to end | the planned end |
| `past_due` | the renewal's payment failed, an open invoice | the end of what was paid: grace counts from it |
| `unpaid` | Stripe has given up collecting | |
| `expired` | ended | when it ended |
| `paused`, `incomplete` | as Stripe calls them | |
| `blocked` | refused by the operator, paid or not | |

These are the words that `/_gateway/me` shows; `unpaid`, `incomplete` and `blocked` tell apart what it sums up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from policies.caller import MADE_UP
from policies.diagnostics import listed, quoted
from policies.facts import CustomerFacts, GrantFact, ItemFact, SubscriptionFact
from policies.moments import format_moment
from policies.schema import SupposedStatus, Tier
from policies.tiers import NO_TIER, Ladder, build_ladder

STATUSES: Final[tuple[str, ...]] = get_args(SupposedStatus)

_DAY: Final = 86_400
_PERIOD: Final = 30 * _DAY
_WITH_AN_END: Final = frozenset({"active", "trialing", "canceled", "past_due", "expired"})
_OVER_BY_THEN: Final = frozenset({"past_due", "expired"})
_USUAL_END: Final = {"past_due": 0, "expired": -_DAY}
"""Where `until` lies from now when nothing is said; fifteen days ahead for what is still paid for."""

_STRIPE_STATUS: Final = {"canceled": "active", "expired": "canceled", "blocked": "active"}


@dataclass(frozen=True, slots=True)
class Supposition:
    """Somebody with a valid token. Without a status it is `active`, or `none` where nothing is paid for."""

    tier: str | None = None
    status: SupposedStatus | None = None
    until: int | None = None

    def __str__(self) -> str:
        """``pro, past_due since 2026-12-01 00:00:00 UTC``."""
        who = self.tier or "no tier"
        status = f", {self.status}" if self.status is not None else ""
        end = "" if self.until is None else f", paid until {format_moment(self.until)}"
        return f"{who}{status}{end}"


@dataclass(frozen=True, slots=True)
class Impossible:
    """Nobody can be so. `field` is the part of the supposition that doesn't fit."""

    field: Literal["tier", "status", "until"]
    code: str
    message: str


def suppose(
    supposition: Supposition, tiers: Sequence[Tier], at: int, *, customer: str = MADE_UP
) -> CustomerFacts | Impossible:
    """The facts of such a customer at `at`, fetched at that very moment, so that nothing is doubtful."""
    ladder = build_ladder(tuple(tiers))
    impossible = _impossible(supposition, ladder, at)
    if impossible is not None:
        return impossible
    rank = NO_TIER if supposition.tier is None else ladder.rank(supposition.tier)
    status = supposition.status or "active"
    blocked = "supposed" if status == "blocked" else None
    if rank in {NO_TIER, ladder.everybody_rank}:
        return CustomerFacts(customer, 1, blocked=blocked, fetched_at=at)
    tier = tiers[rank]
    if not tier.sold:
        grant = GrantFact(1, tier.name, supposition.until, "supposed", "supposed")
        return CustomerFacts(customer, 1, grants=(grant,), blocked=blocked, fetched_at=at)
    until = supposition.until if supposition.until is not None else at + _USUAL_END.get(status, _PERIOD // 2)
    subscription = _subscription(_sold_as(tier), status, until)
    return CustomerFacts(customer, 1, subscriptions=(subscription,), blocked=blocked, fetched_at=at)


def item_of(*, price: str = "", product: str = "", lookup_key: str | None = None, until: int | None = None) -> ItemFact:
    """One item of which one is bought, in the month that ends at `until`."""
    start = None if until is None else until - _PERIOD
    return ItemFact(price, product, lookup_key, period_start=start, period_end=until, quantity=1)


def _impossible(supposition: Supposition, ladder: Ladder, at: int) -> Impossible | None:
    tier, status, until = supposition.tier, supposition.status, supposition.until
    if tier is None:
        if status not in {None, "none", "blocked"}:
            what = f"{quoted(str(status))} is how a subscription stands, so 'tier' must say what is subscribed to"
            return Impossible("status", "impossible-status", what)
    elif (rank := ladder.rank(tier)) == NO_TIER:
        return Impossible("tier", "unknown-tier", f"there is no tier {quoted(tier)}")
    else:
        possible = _possible_statuses(rank, ladder)
        if status is not None and status not in possible:
            why = _WHY_NOT["everybody" if rank == ladder.everybody_rank else "sold" if ladder.sold[rank] else "grant"]
            what = f"nobody on {quoted(tier)} is {quoted(status)}: {why}; it can be {listed(possible)}"
            return Impossible("status", "impossible-status", what)
    if until is None:
        return None
    is_paid_for = tier is not None and ladder.rank(tier) != ladder.everybody_rank
    if not is_paid_for or (status or "active") not in _WITH_AN_END:
        with_an_end = listed(sorted(_WITH_AN_END))
        what = f"'until' is the end of what is paid for; it goes with a tier that is sold or granted and with {with_an_end}"
        return Impossible("until", "impossible-end", what)
    if status in _OVER_BY_THEN and until > at:
        what = f"somebody who has paid until {format_moment(until)} is not {quoted(status)} at {format_moment(at)}"
        return Impossible("until", "impossible-end", what)
    return None


_WHY_NOT: Final = {
    "everybody": "it is everybody's with a valid token, and nobody pays for it",
    "grant": "nothing is sold for it, so only a grant gives it",
    "sold": "it is paid for",
}


def _possible_statuses(rank: int, ladder: Ladder) -> tuple[str, ...]:
    if rank == ladder.everybody_rank:
        return ("none", "blocked")
    if not ladder.sold[rank]:
        return ("active", "blocked")
    return tuple(status for status in STATUSES if status != "none")


def _sold_as(tier: Tier) -> dict[str, str]:
    """The first of what Stripe sells for this tier, by the way in which the tier names it."""
    if tier.prices:
        return {"price": tier.prices[0]}
    return {"lookup_key": tier.lookup_keys[0]} if tier.lookup_keys else {"product": tier.products[0]}


def _subscription(sold_as: dict[str, str], status: str, until: int) -> SubscriptionFact:
    is_late = status == "past_due"
    return SubscriptionFact(
        id="sub_supposed",
        status=_STRIPE_STATUS.get(status, status),
        items=(item_of(until=until + _PERIOD if is_late else until, **sold_as),),
        created=until - _PERIOD,
        trial_end=until if status == "trialing" else None,
        cancel_at_period_end=status == "canceled",
        ended_at=until if status == "expired" else None,
        oldest_open_invoice_at=until if is_late else None,
    )
