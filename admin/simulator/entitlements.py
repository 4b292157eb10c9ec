"""Stripe Entitlements: which features a customer has by what is subscribed to.

It decides when an entitlement begins and ends, and says each change of a customer's set as an event. A feature that is
attached to a product later, or taken from it, reaches a subscription with its next period, as with Stripe. What Stripe
does while a subscription is past due is documented nowhere; here it keeps them, and loses them with `unpaid`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from admin.simulator.entities import Subscription
from admin.simulator.entities_features import ActiveEntitlement, EntitlementSummary
from admin.simulator.objects_features import summary_json

if TYPE_CHECKING:
    from admin.simulator.clock import SimulatedClock
    from admin.simulator.entities import Entity, Item
    from admin.simulator.journal import Journal
    from admin.simulator.store import Store

ENTITLING: Final = ("trialing", "active", "past_due")


class Entitlements:
    """Follows subscriptions."""

    def __init__(self, store: Store, clock: SimulatedClock, journal: Journal) -> None:
        self._store = store
        self._clock = clock
        self._journal = journal
        self._of_item: dict[str, tuple[tuple[str, int], tuple[str, ...]]] = {}

    def follow(self, entity: Entity) -> None:
        """Bring a customer's set up to date. To be told of everything that was said of a subscription."""
        if not isinstance(entity, Subscription):
            return
        customer = entity.customer
        before = self._store.entitlements_of(customer)
        had = {one.feature: one for one in before}
        wanted = [
            feature
            for subscription in self._store.subscriptions_of(customer)
            if subscription.status in ENTITLING
            for item in subscription.items
            for feature in self._features(item)
        ]
        now = int(self._clock.now())
        after = tuple(had.get(feature) or self._new(customer, feature, now) for feature in dict.fromkeys(wanted))
        if {one.feature for one in after} == set(had):
            return
        for one in before:
            del self._store.entitlements[one.id]
        self._store.entitlements.update({one.id: one for one in after})
        said = summary_json(EntitlementSummary(customer, tuple(before)))["entitlements"]
        self._journal.say(
            "entitlements.active_entitlement_summary.updated",
            EntitlementSummary(customer, after),
            {"entitlements": said},
        )

    def _features(self, item: Item) -> tuple[str, ...]:
        """What the item's product came with when its period began."""
        bought = (item.price, item.period_start)
        kept = self._of_item.get(item.id)
        if kept is None or kept[0] != bought:
            product = self._store.prices[item.price].product
            features = tuple(one.feature for one in self._store.product_features.values() if one.product == product)
            kept = self._of_item[item.id] = (bought, features)
        return kept[1]

    def _new(self, customer: str, feature: str, now: int) -> ActiveEntitlement:
        return ActiveEntitlement(
            self._store.new_id("ent"), customer, feature, self._store.features[feature].lookup_key, now
        )
