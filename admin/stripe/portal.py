"""Stripe's Billing portal: one configuration that follows the tiers, and the way in.

It decides what a customer may do there: pay, change the card, cancel at the period's end, and move between the prices
that are on sale. It must never hand out the bare portal to anybody but an authenticated customer; a pay link only
leads to the confirmation of one change (docs/design.md, section 4).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from admin.stripe.budget import Priority
from admin.stripe.client import Failure, StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.fetch import Failed, fetch_customer, payer
from admin.stripe.fields import Json, identifier, text
from admin.stripe.results import BillingNotConfigured, BillingUnavailable, NoCustomer, PortalUrl, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.meta import Meta
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers
    from admin.stripe.catalog import PriceCatalog
    from admin.stripe.existing import Less

MOST_PRODUCTS: Final = 10
"""Stripe's limit on products in one configuration."""


class Portal:
    """The portal of one account in one mode. `gateway` None: there is no Stripe key."""

    def __init__(
        self,
        gateway: StripeGateway | None,
        *,
        pair: Pair,
        meta: Meta,
        stripe_customers: StripeCustomers,
        catalog: PriceCatalog,
        tiers: Callable[[], tuple[str, ...]],
        namespace: str,
    ) -> None:
        self._gateway = gateway
        self._pair = pair
        self._meta = meta
        self._stripe_customers = stripe_customers
        self._catalog = catalog
        self._tiers = tiers
        self._namespace = namespace
        mode = "live" if pair.livemode else "test"
        self._meta_key = f"stripe.portal.{pair.account}.{mode}"

    async def open_portal(
        self, customer: str, return_url: str
    ) -> PortalUrl | NoCustomer | BillingUnavailable | BillingNotConfigured:
        """The whole portal, for a caller whose token was verified."""
        gateway = self._gateway
        if gateway is None:
            return BillingNotConfigured()
        chosen = await self._whose(gateway, customer)
        if not isinstance(chosen, str):
            return chosen
        answer = await self._session(gateway, {**payer(chosen), "return_url": return_url})
        return answer if isinstance(answer, PortalUrl) else unavailable(answer)

    async def confirm_change(
        self, stripe_customer: str, less: Less, item_id: str, price: str, return_url: str
    ) -> PortalUrl | BillingUnavailable:
        """The page that confirms moving a running subscription to `price`, and nothing else."""
        if self._gateway is None:
            return BillingUnavailable("there is no Stripe key")
        flow = {
            "type": "subscription_update_confirm",
            "subscription_update_confirm": {
                "subscription": less.subscription.id,
                "items": [{"id": item_id, "price": price}],
            },
            "after_completion": {"type": "redirect", "redirect": {"return_url": return_url}},
        }
        params = {**payer(stripe_customer), "return_url": return_url, "flow_data": flow}
        # Stripe confirms only what the configuration lists, and that may have had no room for this price.
        listed = any(price in prices for prices in self._products().values())
        answer = await self._session(self._gateway, params, only=None if listed else price)
        return answer if isinstance(answer, PortalUrl) else unavailable(answer)

    async def _whose(self, gateway: StripeGateway, customer: str) -> str | NoCustomer | BillingUnavailable:
        """The Stripe customer to show: of several, one with something running."""
        links = await self._stripe_customers.links_of(self._pair, customer)
        if not links:
            return NoCustomer()
        if len(links) == 1:
            return links[0]
        for stripe_customer in links:
            fetched = await fetch_customer(gateway, stripe_customer, Priority.CUSTOMER)
            if isinstance(fetched, Failed):
                return unavailable(fetched)
            if any(subscription.ended_at is None for subscription in fetched.subscriptions):
                return stripe_customer
        return links[0]

    async def _session(
        self, gateway: StripeGateway, params: dict[str, Any], only: str | None = None
    ) -> PortalUrl | Failure:
        """A portal session on our configuration; one that was taken away in Stripe's dashboard is made anew, once."""
        answer: Json | Failure = StripeUnavailable("the portal could not be configured")
        for fresh in (False, True):
            configuration = await self._configuration(gateway, only, fresh=fresh)
            if not isinstance(configuration, str):
                return configuration
            answer = await gateway.post(
                "/v1/billing_portal/sessions", {**params, "configuration": configuration}, priority=Priority.CUSTOMER
            )
            if not (isinstance(answer, StripeRefused) and "configuration" in answer.message):
                break
        if isinstance(answer, StripeUnavailable | StripeRefused):
            return answer
        url = text(answer, "url")
        return PortalUrl(url) if url else StripeUnavailable("Stripe's portal session has no address")

    async def _configuration(self, gateway: StripeGateway, only: str | None, *, fresh: bool) -> str | Failure:
        """The id of our configuration, brought up to the tiers; of the one for a single price where `only` names it."""
        meta_key = self._meta_key if only is None else f"{self._meta_key}.{only}"
        wanted = _features(self._products(only))
        fingerprint = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:32]
        kept_id, kept_fingerprint = _kept(None if fresh else await self._meta.get(meta_key))
        if kept_id is not None and kept_fingerprint == fingerprint:
            return kept_id
        answer: Json | Failure | None = None
        if kept_id is not None:
            where = path("billing_portal", "configurations", kept_id)
            answer = await gateway.post(where, {"features": wanted}, priority=Priority.CUSTOMER)
            if isinstance(answer, StripeUnavailable):
                return answer
        if answer is None or isinstance(answer, StripeRefused):
            params = {"features": wanted, "metadata": {"gateway": self._namespace}}
            key = None if fresh else f"gateway-portal-{self._namespace}-{fingerprint}"
            where = "/v1/billing_portal/configurations"
            answer = await gateway.post(where, params, priority=Priority.CUSTOMER, idempotency_key=key)
        if isinstance(answer, StripeUnavailable | StripeRefused):
            return answer
        made = identifier(answer.get("id"))
        if made is None:
            return StripeUnavailable("Stripe's portal configuration has no id")
        await self._meta.set(meta_key, json.dumps([made, fingerprint]))
        return made

    def _products(self, only: str | None = None) -> dict[str, list[str]]:
        """Product → prices that a customer may move to."""
        products: dict[str, list[str]] = {}
        intervals: set[tuple[str, str | None, int]] = set()
        for tier in self._tiers():
            for price in self._catalog.prices_of(tier):
                # Stripe wants the prices of one product to differ in their interval: the first in the file stays.
                interval = (price.product, price.interval, price.interval_count)
                room = price.product in products or len(products) < MOST_PRODUCTS
                if only in {None, price.id} and interval not in intervals and room:
                    intervals.add(interval)
                    products.setdefault(price.product, []).append(price.id)
        return products


def _features(products: dict[str, list[str]]) -> dict[str, Any]:
    change: dict[str, Any] = {"enabled": False}
    if products:
        change = {
            "enabled": True,
            "default_allowed_updates": ["price"],
            # Paid at once: an upgrade that only shows on the next invoice would be a month of a higher tier on trust.
            "proration_behavior": "always_invoice",
            "products": [{"product": product, "prices": prices} for product, prices in products.items()],
        }
    return {
        "customer_update": {"enabled": True, "allowed_updates": ["email", "name", "address", "tax_id"]},
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True},
        "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
        "subscription_update": change,
    }


def _kept(value: str | None) -> tuple[str | None, str | None]:
    try:
        kept_id, fingerprint = json.loads(value) if value else (None, None)
    except ValueError:
        return None, None
    return kept_id, fingerprint
