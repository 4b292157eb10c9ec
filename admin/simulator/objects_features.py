"""How Entitlements look on the wire in API 2026-10-28.endive.

It decides names and places of fields: a summary has no id of its own, and carries ten entitlements at most.
It must never change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from admin.simulator.objects import listing

if TYPE_CHECKING:
    from admin.simulator.entities_features import ActiveEntitlement, EntitlementSummary, Feature, ProductFeature
    from admin.simulator.store import Store
    from admin.simulator.wire import Json

ENTITLEMENTS_SHOWN: Final = 10
"""A summary carries only its first entitlements; the others are behind /v1/entitlements/active_entitlements."""


def feature_json(feature: Feature) -> Json:
    """A feature."""
    return {
        "id": feature.id,
        "object": "entitlements.feature",
        "active": feature.active,
        "livemode": False,
        "lookup_key": feature.lookup_key,
        "metadata": dict(feature.metadata),
        "name": feature.name,
    }


def product_feature_json(one: ProductFeature, store: Store) -> Json:
    """That a product comes with a feature."""
    return {
        "id": one.id,
        "object": "product_feature",
        "entitlement_feature": feature_json(store.features[one.feature]),
        "livemode": False,
    }


def entitlement_json(entitlement: ActiveEntitlement) -> Json:
    """That a customer has a feature."""
    return {
        "id": entitlement.id,
        "object": "entitlements.active_entitlement",
        "feature": entitlement.feature,
        "livemode": False,
        "lookup_key": entitlement.lookup_key,
    }


def summary_json(summary: EntitlementSummary) -> Json:
    """Everything a customer has, cut at ten."""
    shown = [entitlement_json(one) for one in summary.entitlements[:ENTITLEMENTS_SHOWN]]
    return {
        "object": "entitlements.active_entitlement_summary",
        "customer": summary.id,
        "entitlements": listing(
            shown,
            f"/v1/customer/{summary.id}/entitlements",
            has_more=len(summary.entitlements) > ENTITLEMENTS_SHOWN,
        ),
        "livemode": False,
    }
