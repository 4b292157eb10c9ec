"""Subscriptions as the ledger keeps them: JSON text of one Stripe customer's facts, read back to equal values."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from policies.facts import SubscriptionFact, subscription_from

if TYPE_CHECKING:
    from collections.abc import Iterable


def encode_subscriptions(subscriptions: Iterable[SubscriptionFact]) -> str:
    """Ordered by id, so that the same facts are the same text."""
    ordered = sorted(subscriptions, key=lambda subscription: subscription.id)
    return json.dumps([asdict(subscription) for subscription in ordered], separators=(",", ":"))


def decode_subscriptions(text: str) -> tuple[SubscriptionFact, ...]:
    """What `encode_subscriptions` wrote. Anything else is a broken ledger and raises ValueError, TypeError or KeyError."""
    return tuple(subscription_from(entry) for entry in json.loads(text))
