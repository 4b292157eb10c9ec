"""Facts → spans → what a customer has at a moment (docs/design.md, section 5).

Access is never stored: it follows from what Stripe last said, the rules and the time. Two halves are always needed, a
status that pays **and** an end that has not come. Every span is open from the start and closes once, so the tier a
customer has is a staircase that only goes down: each step is computed once, and a request compares one number.

    trialing, active   planned end P at or before the item's end E: until P, exactly
                       P after E: until min(P, E + renewal_leeway);  no P: until E + renewal_leeway
    past_due           until A + past_due_grace (and P, if sooner); A is the oldest open invoice's date,
                       else the start of the item's period: retries and new periods never move it
    anything else      nothing, an unknown status included

Options narrow that, and never widen it. With `require_paid_invoice` an `active` subscription whose latest invoice isn't
paid ends with what was paid last: where its period began, + renewal_leeway; in its first period, at once. With
`revoke_on_refund` and `revoke_on_dispute` nothing is left while the money of the last paid invoice was taken back.

All times are UTC seconds. An end is exclusive: at `now == end` access is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from policies.facts import CustomerFacts, ItemFact, SubscriptionFact
from policies.schema import Billing
from policies.tiers import NO_TIER, Ladder

FOREVER: Final = math.inf
PAYING: Final = frozenset({"trialing", "active"})
KNOWN_STATUSES: Final = PAYING | {"past_due", "incomplete", "incomplete_expired", "unpaid", "canceled", "paused"}


@dataclass(frozen=True, slots=True)
class BillingRules:
    """How late money may be, in seconds, and what else of Stripe's counts."""

    renewal_leeway: float
    past_due_grace: float
    require_paid_invoice: bool = False
    revoke_on_refund: bool = False
    revoke_on_dispute: bool = False
    features_from_stripe: bool = False

    @classmethod
    def of(cls, billing: Billing) -> BillingRules:
        """What gateway.yaml says."""
        return cls(
            renewal_leeway=billing.renewal_leeway,
            past_due_grace=billing.past_due_grace,
            require_paid_invoice=billing.require_paid_invoice,
            revoke_on_refund=billing.revoke_on_refund,
            revoke_on_dispute=billing.revoke_on_dispute,
            features_from_stripe=billing.features_from == "stripe",
        )


@dataclass(frozen=True, slots=True)
class Span:
    """One reason for access to tier `rank`, until `closes_at`. `status` is the word shown to people meanwhile."""

    rank: int
    closes_at: float
    status: str
    quantity: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a customer has at a moment. `access_until` None means without end, or that there is nothing to end.

    `quantity` are the seats of all items that give this tier now; None where none of them is counted in seats.
    """

    rank: int
    tier: str | None
    status: str
    access_until: int | None
    features: tuple[str, ...]
    quantity: int | None = None


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One customer's facts under one configuration. Derived when an entry enters memory, never stored."""

    facts: CustomerFacts
    steps: tuple[tuple[float, Standing], ...]
    """Ascending ends with what holds until each; `floor` holds after the last."""
    floor: Standing
    edges: tuple[float, ...]
    """Ascending moments at which the answer may change: period, trial, planned, grace and grant ends."""
    stripe_edges: tuple[float, ...]
    """Those of `edges` after which Stripe may know more than the facts."""
    ranked: tuple[tuple[SubscriptionFact, int], ...]
    """Each subscription with the highest tier among its items, whether it is open or not."""
    unmapped: tuple[str, ...]
    """Paying subscriptions none of whose items belongs to a tier: shown to the operator."""
    unknown_statuses: tuple[str, ...]
    """Statuses that this version has never heard of; they give nothing."""
    unpaid: frozenset[str] = frozenset()
    """Active subscriptions that wait for their latest invoice to be paid, where the rules ask for that."""

    def at(self, now: float) -> Standing:
        """What holds at `now`."""
        for until, standing in self.steps:
            if now < until:
                return standing
        return self.floor

    def next_edge(self, now: float) -> float | None:
        """The first edge after `now`, None when nothing more is due."""
        return next((edge for edge in self.edges if edge > now), None)

    def may_be_stale(self, now: float) -> bool:
        """Whether Stripe may know more than these facts: an edge has passed since the last fetch, or doubt was noted."""
        if self.facts.doubtful_until is not None and now < self.facts.doubtful_until:
            return True
        passed = [edge for edge in self.stripe_edges if edge <= now]
        return bool(passed) and (self.facts.fetched_at is None or self.facts.fetched_at < passed[-1])

    def was_paying(self, now: float) -> bool:
        """Whether the last known status was `trialing`, `active` or `past_due` with no planned end passed."""
        return any(
            end is None or now < end
            for subscription in self.facts.subscriptions
            if (subscription.status in PAYING or subscription.status == "past_due") and subscription.items
            for end in (planned_end(subscription),)
        )


def derive(facts: CustomerFacts, ladder: Ladder, rules: BillingRules) -> Entitlement:
    """Everything that `facts` give under `ladder` and `rules`, at any time."""
    spans: list[Span] = []
    ranked: list[tuple[SubscriptionFact, int]] = []
    unmapped: list[str] = []
    for subscription in facts.subscriptions:
        spans += [span for item in subscription.items if (span := item_span(subscription, item, ladder, rules))]
        rank = max((ladder.rank_of(item) for item in subscription.items if item.quantity != 0), default=NO_TIER)
        ranked.append((subscription, rank))
        if rank == NO_TIER and subscription.status in PAYING:
            unmapped.append(subscription.id)
    for grant in facts.grants:
        if (rank := ladder.rank(grant.tier)) != NO_TIER:
            spans.append(Span(rank, FOREVER if grant.until is None else grant.until, "active"))
    floor_rank = ladder.everybody_rank
    stripe_edges = edges_of(facts.subscriptions, rules, ladder)
    grant_ends = {float(grant.until) for grant in facts.grants if grant.until is not None}
    unpaid = frozenset(one.id for one in facts.subscriptions if rules.require_paid_invoice and _is_unpaid(one))
    floor = Standing(
        rank=floor_rank,
        tier=ladder.name(floor_rank),
        status=_resting_status(facts.subscriptions, unpaid),
        access_until=None,
        features=ladder.features[floor_rank] if floor_rank >= 0 else (),
    )
    steps = _staircase([span for span in spans if span.rank >= floor_rank], ladder)
    if rules.features_from_stripe and facts.features:
        steps = _with_features(steps, floor, facts, ladder, rules)
    return Entitlement(
        facts=facts,
        steps=steps,
        floor=floor,
        edges=tuple(sorted(grant_ends.union(stripe_edges))),
        stripe_edges=stripe_edges,
        ranked=tuple(ranked),
        unmapped=tuple(unmapped),
        unknown_statuses=tuple(one.status for one in facts.subscriptions if one.status not in KNOWN_STATUSES),
        unpaid=unpaid,
    )


def planned_end(subscription: SubscriptionFact) -> int | None:
    """When it is planned to end: `cancel_at`, or where only `cancel_at_period_end` is set when its first item's period does.

    With items of several intervals Stripe ends all of it with the earliest of them
    (docs.stripe.com/changelog/basil/2025-07-30/cancel-at-enums).
    """
    if subscription.cancel_at is not None:
        return subscription.cancel_at
    ends = [item.period_end for item in subscription.items if item.period_end is not None]
    return min(ends, default=None) if subscription.cancel_at_period_end else None


def item_span(subscription: SubscriptionFact, item: ItemFact, ladder: Ladder, rules: BillingRules) -> Span | None:
    """The access that one item gives, None when it gives none."""
    rank = ladder.rank_of(item)
    if rank == NO_TIER or item.quantity == 0:
        return None
    closes_at = _closes_at(subscription, item, rules, ladder)
    if closes_at is None:
        return None
    planned = planned_end(subscription) is not None
    status = "canceled" if planned and subscription.status in PAYING else subscription.status
    return Span(rank, closes_at, status, item.quantity)


def _closes_at(
    subscription: SubscriptionFact, item: ItemFact, rules: BillingRules, ladder: Ladder | None
) -> float | None:
    if (rules.revoke_on_refund and subscription.refunded) or (rules.revoke_on_dispute and subscription.disputed):
        return None
    rules = _with_own_grace(rules, item, ladder)
    planned = planned_end(subscription)
    if subscription.status in PAYING:
        if item.period_end is None:
            # Stripe always names an end, on the item or the subscription; without one nothing bounds the access.
            return None
        if rules.require_paid_invoice and _is_unpaid(subscription):
            # What was paid last ended where this period began; of a first period nothing was ever paid.
            if item.period_start is None or item.period_start <= subscription.created:
                return None
            late = item.period_start + rules.renewal_leeway
        elif planned is not None and planned <= item.period_end:
            return planned
        else:
            late = item.period_end + rules.renewal_leeway
        return late if planned is None else min(planned, late)
    if subscription.status == "past_due":
        unpaid_since = subscription.oldest_open_invoice_at
        if unpaid_since is None:
            unpaid_since = item.period_start
        if unpaid_since is None:
            return None
        graced = unpaid_since + rules.past_due_grace
        return graced if planned is None else min(planned, graced)
    return None


def _is_unpaid(subscription: SubscriptionFact) -> bool:
    # None: there is no invoice, so nothing is owed, or it was not asked for yet, and the next look does.
    return subscription.status == "active" and subscription.latest_invoice not in {None, "paid"}


def _with_own_grace(rules: BillingRules, item: ItemFact, ladder: Ladder | None) -> BillingRules:
    rank = NO_TIER if ladder is None else ladder.rank_of(item)
    own = None if ladder is None or rank == NO_TIER else ladder.past_due_grace[rank]
    return rules if own is None else replace(rules, past_due_grace=own)


def edges_of(
    subscriptions: Iterable[SubscriptionFact], rules: BillingRules, ladder: Ladder | None = None
) -> tuple[float, ...]:
    """Ascending moments at which what these subscriptions give, or what Stripe says of them, may change.

    Without a `ladder` no tier has a grace of its own.
    """
    edges: set[float] = set()
    for subscription in subscriptions:
        if subscription.status not in PAYING and subscription.status != "past_due":
            continue
        for item in subscription.items:
            closes_at = _closes_at(subscription, item, rules, ladder)
            ends = (closes_at, planned_end(subscription))
            edges.update(end for end in ends if end is not None)
            if subscription.status in PAYING and item.period_end is not None:
                edges.add(item.period_end)
        if subscription.status == "trialing" and subscription.trial_end is not None:
            edges.add(subscription.trial_end)
    return tuple(sorted(edges))


def edge_after(
    subscriptions: Iterable[SubscriptionFact], rules: BillingRules, now: float, ladder: Ladder | None = None
) -> int | None:
    """The first edge of `subscriptions` after `now`, in whole seconds rounded up."""
    return next((math.ceil(edge) for edge in edges_of(subscriptions, rules, ladder) if edge > now), None)


def _staircase(spans: list[Span], ladder: Ladder) -> tuple[tuple[float, Standing], ...]:
    """The highest rank that is open, and its seats, as a function of time: the rank only ever falls."""
    steps: list[tuple[float, Standing]] = []
    best: Standing | None = None
    for span in sorted(spans, key=lambda span: (span.closes_at, span.rank), reverse=True):
        if best is not None and span.rank == best.rank and span.quantity is not None:
            # As many more seats until this one closes; how long the tier itself lasts is what closes last.
            best = replace(best, quantity=(best.quantity or 0) + span.quantity)
            if steps[-1][0] == span.closes_at:
                steps.pop()
            steps.append((span.closes_at, best))
            continue
        if best is not None and span.rank <= best.rank:
            continue
        best = Standing(
            rank=span.rank,
            tier=ladder.name(span.rank),
            status=span.status,
            access_until=None if span.closes_at == FOREVER else math.floor(span.closes_at),
            features=ladder.features[span.rank],
            quantity=span.quantity,
        )
        steps.append((span.closes_at, best))
    return tuple(reversed(steps))


def _with_features(
    steps: tuple[tuple[float, Standing], ...],
    floor: Standing,
    facts: CustomerFacts,
    ladder: Ladder,
    rules: BillingRules,
) -> tuple[tuple[float, Standing], ...]:
    """`steps` with the features that Stripe grants, as long as anything is paid for, a tier or not.

    What Stripe's Entitlements say of subscriptions that aren't paid is not documented: they are a source of features and
    never the truth about access.
    """
    ends = [
        end
        for subscription in facts.subscriptions
        for item in subscription.items
        if item.quantity != 0 and (end := _closes_at(subscription, item, rules, ladder)) is not None
    ]
    paid_until = max(ends, default=-math.inf)
    found: list[tuple[float, Standing]] = []
    begins_at = -math.inf
    for until, standing in (*steps, (FOREVER, floor)):
        more = tuple(feature for feature in facts.features if feature not in standing.features)
        with_them = replace(standing, features=standing.features + more)
        if begins_at < paid_until:
            found.append((min(until, paid_until), with_them))
        if until > paid_until and standing is not floor:
            found.append((until, standing))
        begins_at = until
    return tuple(found)


def _resting_status(subscriptions: tuple[SubscriptionFact, ...], unpaid: frozenset[str]) -> str:
    """The word for someone without an open span: the most telling of what their subscriptions say."""
    statuses = {subscription.status for subscription in subscriptions}
    if statuses & {"past_due", "unpaid"} or unpaid:
        return "past_due"
    if "paused" in statuses:
        return "paused"
    if statuses & (PAYING | {"canceled"}):
        return "expired"
    return "none"
