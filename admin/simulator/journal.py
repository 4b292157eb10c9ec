"""What happened: every change becomes an event of Stripe's type, kept in order and handed to delivery.

It decides an event's type-independent parts and what `previous_attributes` holds. It must never let a change of a
subscription or invoice go by unsaid, nor say one that was none.
"""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING

from admin.simulator.entities import (
    CheckoutSession,
    Customer,
    Event,
    Invoice,
    PortalConfiguration,
    PortalSession,
    Price,
    Product,
    Subscription,
)
from admin.simulator.entities_clock import TestClock
from admin.simulator.entities_features import ActiveEntitlement, EntitlementSummary, Feature, ProductFeature
from admin.simulator.entities_money import Charge, Dispute, InvoicePayment, Refund
from admin.simulator.objects import (
    customer_json,
    item_json,
    price_json,
    product_json,
    subscription_json,
    test_clock_json,
)
from admin.simulator.objects_billing import (
    event_json,
    invoice_json,
    portal_configuration_json,
    portal_session_json,
    session_json,
)
from admin.simulator.objects_features import entitlement_json, feature_json, product_feature_json, summary_json
from admin.simulator.objects_money import charge_json, dispute_json, invoice_payment_json, refund_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from admin.simulator.clock import SimulatedClock
    from admin.simulator.entities import Entity, Item
    from admin.simulator.store import Store
    from admin.simulator.wire import Json


class Journal:
    """Renders objects, and turns their changes into events."""

    def __init__(self, store: Store, clock: SimulatedClock, public_base: str) -> None:
        self._store = store
        self._clock = clock
        self.count = 0
        self.public_base = public_base
        self.request: str | None = None
        self.idempotency_key: str | None = None
        self.on_change: Callable[[Entity], None] = lambda _entity: None
        self.on_event: Callable[[Event], None] = lambda _event: None
        self.on_said: Callable[[Entity], None] = lambda _entity: None
        self.pending_webhooks: Callable[[str], int] = lambda _event: 0

    def render(self, entity: Entity) -> Json:
        """The object as it goes out on the wire now."""
        store, base = self._store, self.public_base
        if isinstance(entity, Product):
            return product_json(entity)
        if isinstance(entity, Price):
            return price_json(entity)
        if isinstance(entity, Customer):
            return customer_json(entity, delinquent=self._is_delinquent(entity.id))
        if isinstance(entity, Subscription):
            return subscription_json(entity, store)
        if isinstance(entity, Invoice):
            return invoice_json(entity, store, base)
        if isinstance(entity, CheckoutSession):
            return session_json(entity, store, base)
        if isinstance(entity, PortalConfiguration):
            return portal_configuration_json(entity)
        if isinstance(entity, PortalSession):
            return portal_session_json(entity, base)
        if isinstance(entity, Event):
            return event_json(entity, pending_webhooks=self.pending_webhooks(entity.id))
        if isinstance(entity, InvoicePayment | Charge | Refund | Dispute):
            return self._render_money(entity)
        if isinstance(entity, Feature | ProductFeature | ActiveEntitlement | EntitlementSummary):
            return self._render_feature(entity)
        if isinstance(entity, TestClock):
            return test_clock_json(entity)
        found = store.find_item(entity.id)
        assert found is not None  # noqa: S101 - an item lives in its subscription
        return item_json(entity, found[0], store)

    def _render_money(self, entity: InvoicePayment | Charge | Refund | Dispute) -> Json:
        if isinstance(entity, InvoicePayment):
            return invoice_payment_json(entity)
        if isinstance(entity, Charge):
            return charge_json(entity, self._store.customers[entity.customer])
        return refund_json(entity) if isinstance(entity, Refund) else dispute_json(entity)

    def _render_feature(self, entity: Feature | ProductFeature | ActiveEntitlement | EntitlementSummary) -> Json:
        if isinstance(entity, Feature):
            return feature_json(entity)
        if isinstance(entity, ProductFeature):
            return product_feature_json(entity, self._store)
        return entitlement_json(entity) if isinstance(entity, ActiveEntitlement) else summary_json(entity)

    def say(self, kind: str, entity: Entity, previous: Json | None = None) -> Event:
        """Record one event about `entity` as it is now."""
        self.count += 1
        event = Event(
            id=self._store.new_id("evt"),
            number=self.count,
            type=kind,
            created=int(self._clock.now()),
            object=self.render(entity),
            previous=previous,
            request=self.request,
            idempotency_key=self.idempotency_key,
        )
        self._store.events[event.id] = event
        self.on_change(entity)
        self.on_event(event)
        self.on_said(entity)
        return event

    @contextmanager
    def changing(self, kind: str, entity: Entity) -> Iterator[None]:
        """Within, `entity` is changed; afterwards one event of type `kind` says what it was, if anything changed."""
        before, items_before = self.render(entity), _items(entity)
        yield
        after = self.render(entity)
        previous = {name: value for name, value in before.items() if after.get(name) != value}
        # When a product's price is edited is no change that anybody would look for; an item beyond those shown is.
        if set(previous) - {"updated"} or _items(entity) != items_before:
            self.say(kind, entity, previous)

    def _is_delinquent(self, customer: str) -> bool:
        return any(one.status in ("past_due", "unpaid") for one in self._store.subscriptions_of(customer))


def _items(entity: Entity) -> list[Item]:
    return deepcopy(entity.items) if isinstance(entity, Subscription) else []
