"""What the simulated Stripe keeps of Entitlements: features, the products they come with, and who has which.

It decides which facts exist; `entitlements` decides who has what.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Feature:
    """Something that a product may come with. Its lookup key never changes."""

    id: str
    lookup_key: str
    name: str
    created: int
    active: bool = True
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProductFeature:
    """A product comes with a feature."""

    id: str
    product: str
    feature: str
    created: int


@dataclass(frozen=True, slots=True)
class ActiveEntitlement:
    """A customer has a feature now."""

    id: str
    customer: str
    feature: str
    lookup_key: str
    created: int


@dataclass(frozen=True, slots=True)
class EntitlementSummary:
    """Everything a customer has. It carries no id on the wire; `id` here is the customer's."""

    id: str
    entitlements: tuple[ActiveEntitlement, ...]
