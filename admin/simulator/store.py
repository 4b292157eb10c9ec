"""The books of the simulated Stripe: every object by its id, oldest first.

It decides how ids look and what a missing one answers. It must never change an object: that is `billing`'s.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from admin.simulator.wire import ApiError, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from admin.simulator.entities import (
        CheckoutSession,
        Customer,
        Entity,
        Event,
        Invoice,
        Item,
        PortalConfiguration,
        PortalSession,
        Price,
        Product,
        Subscription,
    )
    from admin.simulator.entities_clock import TestClock
    from admin.simulator.entities_features import ActiveEntitlement, Feature, ProductFeature
    from admin.simulator.entities_money import Charge, Dispute, InvoicePayment, Refund
    from admin.simulator.wire import Params

Kept = TypeVar("Kept", "Product", "Price", "Customer", "Subscription", "Invoice", "CheckoutSession", "PortalConfiguration", "PortalSession", "Event", "InvoicePayment", "Charge", "Refund", "Dispute", "Feature", "ProductFeature", "ActiveEntitlement", "TestClock")  # fmt: skip
EVENTS_KEPT_SECONDS: Final = 30 * 86400
"""Stripe lets events be read for 30 days; a gateway that was away longer must converge without them."""


Owned = TypeVar("Owned", "Subscription", "Invoice", "InvoicePayment", "Charge", "Dispute")


class _ByOwner(Generic[Owned]):
    """The objects of a table by whose they are. The table only grows, so what is new stands at its end."""

    def __init__(self, table: dict[str, Owned], owner: Callable[[Owned], str]) -> None:
        self._table: dict[str, Owned] = table
        self._owner: Callable[[Owned], str] = owner
        self._seen = 0
        self._groups: dict[str, list[Owned]] = {}

    def of(self, owner: str) -> list[Owned]:
        """Oldest first."""
        new = list(islice(reversed(self._table.values()), len(self._table) - self._seen))
        for one in reversed(new):
            self._groups.setdefault(self._owner(one), []).append(one)
        self._seen = len(self._table)
        return list(self._groups.get(owner, ()))


class Store:
    """Every object of the simulated account."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token
        self.products: dict[str, Product] = {}
        self.prices: dict[str, Price] = {}
        self.customers: dict[str, Customer] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.invoices: dict[str, Invoice] = {}
        self.sessions: dict[str, CheckoutSession] = {}
        self.portal_configurations: dict[str, PortalConfiguration] = {}
        self.portal_sessions: dict[str, PortalSession] = {}
        self.events: OrderedDict[str, Event] = OrderedDict()
        self.invoice_payments: dict[str, InvoicePayment] = {}
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, Refund] = {}
        self.disputes: dict[str, Dispute] = {}
        self.features: dict[str, Feature] = {}
        self.product_features: dict[str, ProductFeature] = {}
        self.entitlements: dict[str, ActiveEntitlement] = {}
        self.test_clocks: dict[str, TestClock] = {}
        self._subscriptions_by_customer = _ByOwner(self.subscriptions, lambda one: one.customer)
        self._invoices_by_subscription = _ByOwner(self.invoices, lambda one: one.subscription)
        self._payments_by_invoice = _ByOwner(self.invoice_payments, lambda one: one.invoice)
        self._charges_by_invoice = _ByOwner(self.charges, lambda one: one.invoice)
        self._disputes_by_charge = _ByOwner(self.disputes, lambda one: one.charge)

    def new_id(self, prefix: str) -> str:
        """An id that nobody has seen, `cus_…`, `cs_test_…`."""
        return f"{prefix}_{self._token()}"

    def get(self, table: dict[str, Kept], identifier: str, *, param: str | None = None) -> Kept:
        """The object named `identifier`; raises the 404 of a path, or the 400 of the parameter `param`."""
        found = table.get(identifier)
        if found is None:
            raise missing(self._noun(table), identifier[:255], param=param or "id", status=400 if param else 404)
        return found

    def live_customer(self, identifier: str, *, param: str = "customer") -> Customer:
        """A customer who is not deleted, named in `param`."""
        customer = self.get(self.customers, identifier, param=param)
        if customer.deleted:
            raise missing("customer", identifier, param=param, status=400)
        return customer

    def find(self, identifier: str) -> Entity | None:
        """Whatever carries this id."""
        for table in self._tables():
            if identifier in table:
                return table[identifier]
        return None

    def find_item(self, identifier: str) -> tuple[Subscription, Item] | None:
        """The subscription item of this id with its subscription."""
        for subscription in self.subscriptions.values():
            for item in subscription.items:
                if item.id == identifier:
                    return subscription, item
        return None

    def subscriptions_of(self, customer: str) -> list[Subscription]:
        """Every subscription that the customer ever had, oldest first."""
        return self._subscriptions_by_customer.of(customer)

    def invoices_of(self, subscription: str) -> list[Invoice]:
        """Every invoice of a subscription, oldest first."""
        return self._invoices_by_subscription.of(subscription)

    def payments_of(self, invoice: str) -> list[InvoicePayment]:
        """Every payment that an invoice was to be paid by, oldest first."""
        return self._payments_by_invoice.of(invoice)

    def charges_of(self, invoice: str) -> list[Charge]:
        """Every attempt to take what an invoice asks for, oldest first."""
        return self._charges_by_invoice.of(invoice)

    def disputes_of(self, charge: str) -> list[Dispute]:
        """Every dispute of a charge, oldest first."""
        return self._disputes_by_charge.of(charge)

    def entitlements_of(self, customer: str) -> list[ActiveEntitlement]:
        """Every feature that a customer has now."""
        return [one for one in self.entitlements.values() if one.customer == customer]

    def price_with_key(self, lookup_key: str) -> Price | None:
        """The price that holds this lookup key now; keys can be moved."""
        return next((price for price in self.prices.values() if price.lookup_key == lookup_key), None)

    def forget_old_events(self, now: float) -> None:
        """Drop what Stripe would no longer let be read. Events are kept in order, so the old ones come first."""
        while self.events and next(iter(self.events.values())).created < now - EVENTS_KEPT_SECONDS:
            self.events.popitem(last=False)

    def _tables(self) -> Iterable[dict[str, Entity]]:
        return (  # type: ignore[return-value]  # dict is invariant; only read here
            self.products,
            self.prices,
            self.customers,
            self.subscriptions,
            self.invoices,
            self.sessions,
            self.portal_configurations,
            self.portal_sessions,
            self.events,
            self.invoice_payments,
            self.charges,
            self.refunds,
            self.disputes,
            self.features,
            self.product_features,
            self.entitlements,
            self.test_clocks,
        )

    def _noun(self, table: object) -> str:
        nouns = ("product", "price", "customer", "subscription", "invoice", "checkout.session", "configuration", "portal session", "event", "invoice_payment", "charge", "refund", "dispute", "feature", "product_feature", "active_entitlement", "test_clock")  # fmt: skip
        return next(noun for noun, candidate in zip(nouns, self._tables(), strict=True) if candidate is table)


def page(table: dict[str, Kept], found: list[Kept], params: Params) -> tuple[list[Kept], bool]:
    """One page of `found` (oldest first, out of `table`), newest first as Stripe lists, and whether more follows.

    A cursor is a place in the whole table: an object that has left the filter since the last page still marks it.
    """
    limit = params.whole("limit", least=1, most=100) or 10
    after, before = params.text("starting_after"), params.text("ending_before")
    if after is not None and before is not None:
        raise ApiError(400, "You can only use one of starting_after and ending_before.", param="ending_before")
    newest_first = list(reversed(found))
    if after is None and before is None:
        return newest_first[:limit], len(newest_first) > limit
    order = {identifier: place for place, identifier in enumerate(table)}
    cursor, param = (after, "starting_after") if after is not None else (before, "ending_before")
    if cursor not in order:
        raise missing("object", (cursor or "")[:255], param=param, status=400)
    if after is not None:
        rest = [one for one in newest_first if order[one.id] < order[after]]
        return rest[:limit], len(rest) > limit
    rest = [one for one in newest_first if order[one.id] > order[cursor]]
    return rest[-limit:], len(rest) > limit
