"""What is known of a customer: what Stripe last said, what an operator granted, and whether it may be out of date.

Facts are stored and cached; tiers, spans and verdicts never are, because they follow from facts, rules and the time.
All times are UTC seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

FACTS_FORMAT: Final = 2
"""Raised when the encoded shape changes; an entry of another format counts as absent."""


@dataclass(frozen=True, slots=True)
class ItemFact:
    """One item of a subscription. `quantity` is None for metered items."""

    price: str
    product: str
    lookup_key: str | None
    period_start: int | None
    period_end: int | None
    quantity: int | None


@dataclass(frozen=True, slots=True)
class SubscriptionFact:
    """One Stripe subscription as last fetched.

    `cancel_at` is the planned end that Stripe names. `oldest_open_invoice_at` is the `due_date`, else `created`, of the
    oldest open invoice, or None when none could be read: past_due grace counts from it (docs/design.md, section 5).

    The last three are only asked of Stripe where an option of gateway.yaml wants them: the status of the latest invoice,
    None where it is not known, and whether what paid the last paid one was given back, or is disputed.
    """

    id: str
    status: str
    items: tuple[ItemFact, ...]
    created: int
    trial_end: int | None = None
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    ended_at: int | None = None
    oldest_open_invoice_at: int | None = None
    latest_invoice: str | None = None
    refunded: bool = False
    disputed: bool = False


@dataclass(frozen=True, slots=True)
class GrantFact:
    """Access given by hand. `until` None means without end."""

    id: int
    tier: str
    until: int | None
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class CustomerFacts:
    """Everything that a decision about one customer rests on, at one version.

    `fetched_at` is when Stripe was last asked, None if never. Until `doubtful_until` something may have happened that no
    fetch has seen: an event is pending, or a Checkout session was opened and not seen to end. `features` are those that
    Stripe's own Entitlements grant, where `billing.features_from` is `stripe`.
    """

    customer: str
    version: int
    subscriptions: tuple[SubscriptionFact, ...] = ()
    grants: tuple[GrantFact, ...] = ()
    blocked: str | None = None
    fetched_at: int | None = None
    doubtful_until: int | None = None
    features: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing is known that could give or take access: remembered only for `negative_ttl`."""
        return not (self.subscriptions or self.grants or self.blocked is not None)


def encode(facts: CustomerFacts) -> bytes:
    """JSON for Redis and SQL; `decode` reads it back to an equal value."""
    return json.dumps({"format": FACTS_FORMAT, **asdict(facts)}, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes | str) -> CustomerFacts | None:
    """The facts in `data`, or None when it is of another format, cut off or not ours: then it counts as absent."""
    try:
        raw = json.loads(data)
        if not isinstance(raw, dict) or raw.pop("format", None) != FACTS_FORMAT:
            return None
        subscriptions = tuple(subscription_from(entry) for entry in raw.pop("subscriptions"))
        grants = tuple(GrantFact(**entry) for entry in raw.pop("grants"))
        features = tuple(raw.pop("features"))
        facts = CustomerFacts(subscriptions=subscriptions, grants=grants, features=features, **raw)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return facts if _is_well_typed(facts) else None


def subscription_from(entry: dict[str, Any]) -> SubscriptionFact:
    """One subscription from its `asdict` form. Raises TypeError or KeyError on another shape."""
    rest = dict(entry)
    items = tuple(ItemFact(**item) for item in rest.pop("items"))
    return SubscriptionFact(items=items, **rest)


_TOO_LARGE: Final = 1 << 63
_SCALARS: Final[dict[Any, frozenset[type]]] = {
    "str": frozenset({str}),
    "int": frozenset({int}),
    "bool": frozenset({bool}),
    "str | None": frozenset({str, type(None)}),
    "int | None": frozenset({int, type(None)}),
}
_CHECKS: Final[dict[type, tuple[tuple[str, frozenset[type]], ...]]] = {
    kind: tuple((field.name, _SCALARS[field.type]) for field in fields(kind) if field.type in _SCALARS)
    for kind in (ItemFact, SubscriptionFact, GrantFact, CustomerFacts)
}


def _is_well_typed(facts: CustomerFacts) -> bool:
    # What a cache holds may have been written by anybody: a period that ends at "soon", or at a number that no float
    # holds, must not reach the arithmetic.
    parts = [facts, *facts.grants, *facts.subscriptions, *(item for each in facts.subscriptions for item in each.items)]
    scalars = all(_fits(getattr(part, name), kinds) for part in parts for name, kinds in _CHECKS[type(part)])
    return scalars and all(type(feature) is str for feature in facts.features)


def _fits(value: object, kinds: frozenset[type]) -> bool:
    return type(value) in kinds and (type(value) is not int or abs(value) < _TOO_LARGE)
