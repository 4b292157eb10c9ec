"""How objects look on the wire in API 2026-10-28.endive: catalogue, customers, subscriptions, invoices.

It decides names and places of fields: the period lives on the item, an invoice names its subscription under `parent`.
It must never change anything; rendering the same thing twice gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from admin.simulator.entities import Customer, Invoice, Item, Line, Price, Product, Subscription
    from admin.simulator.entities_clock import TestClock
    from admin.simulator.store import Store
    from admin.simulator.wire import Json

API_VERSION: Final = "2026-10-28.endive"
ITEMS_SHOWN: Final = 10
"""A subscription carries only its first items; the others are behind /v1/subscription_items."""


def listing(data: Sequence[Json], url: str, *, has_more: bool = False) -> Json:
    """A list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}


def product_json(product: Product) -> Json:
    """A product."""
    return {
        "id": product.id,
        "object": "product",
        "active": product.active,
        "created": product.created,
        "default_price": product.default_price,
        "description": product.description,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": dict(product.metadata),
        "name": product.name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": product.updated,
        "url": None,
    }


def price_json(price: Price) -> Json:
    """A price."""
    recurring = {
        "interval": price.interval,
        "interval_count": price.interval_count,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }
    return {
        "id": price.id,
        "object": "price",
        "active": price.active,
        "billing_scheme": "per_unit",
        "created": price.created,
        "currency": price.currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": price.lookup_key,
        "metadata": dict(price.metadata),
        "nickname": price.nickname,
        "product": price.product,
        "recurring": recurring if price.interval is not None else None,
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if price.interval is not None else "one_time",
        "unit_amount": price.unit_amount,
        "unit_amount_decimal": str(price.unit_amount),
    }


def plan_json(price: Price) -> Json:
    """The price in the shape that came before prices; subscription items still carry it."""
    return {
        "id": price.id,
        "object": "plan",
        "active": price.active,
        "amount": price.unit_amount,
        "amount_decimal": str(price.unit_amount),
        "billing_scheme": "per_unit",
        "created": price.created,
        "currency": price.currency,
        "interval": price.interval,
        "interval_count": price.interval_count,
        "livemode": False,
        "metadata": dict(price.metadata),
        "meter": None,
        "nickname": price.nickname,
        "product": price.product,
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def customer_json(customer: Customer, *, delinquent: bool) -> Json:
    """A customer, or the stump that is left of a deleted one."""
    if customer.deleted:
        return {"id": customer.id, "object": "customer", "deleted": True}
    return {
        "id": customer.id,
        "object": "customer",
        "address": None,
        "balance": customer.balance,
        "created": customer.created,
        "currency": "usd",
        "default_source": None,
        "delinquent": delinquent,
        "description": customer.description,
        "discount": None,
        "email": customer.email,
        "invoice_prefix": customer.id[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": f"pm_{customer.id[4:]}" if customer.card != "none" else None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": dict(customer.metadata),
        "name": customer.name,
        "next_invoice_sequence": customer.invoices + 1,
        "phone": customer.phone,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": customer.test_clock,
    }


def test_clock_json(clock: TestClock) -> Json:
    """A test clock, which is always ready: it was moved before anybody could look."""
    return {
        "id": clock.id,
        "object": "test_helpers.test_clock",
        "created": clock.created,
        "deletes_after": clock.created + 30 * 86400,
        "frozen_time": clock.frozen_time,
        "livemode": False,
        "name": clock.name,
        "status": "ready",
        "status_details": {},
    }


def item_json(item: Item, subscription: Subscription, store: Store) -> Json:
    """A subscription item, with its own period."""
    price = store.prices[item.price]
    return {
        "id": item.id,
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": item.created,
        "current_period_end": item.period_end,
        "current_period_start": item.period_start,
        "discounts": [],
        "metadata": dict(item.metadata),
        "plan": plan_json(price),
        "price": price_json(price),
        "quantity": item.quantity,
        "subscription": subscription.id,
        "tax_rates": [],
    }


def subscription_json(subscription: Subscription, store: Store) -> Json:
    """A subscription, with its first items."""
    items = [item_json(item, subscription, store) for item in subscription.items]
    paused, pause, pending = subscription.paused_by, subscription.pause_collection, subscription.pending_update
    return {
        "id": subscription.id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": subscription.anchor,
        "billing_cycle_anchor_config": None,
        "billing_mode": {
            "flexible": {"proration_discounts": "included"} if subscription.billing_mode == "flexible" else None,
            "type": subscription.billing_mode,
        },
        "billing_thresholds": None,
        "cancel_at": subscription.cancel_at,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "canceled_at": subscription.canceled_at,
        "cancellation_details": {"comment": None, "feedback": None, "reason": subscription.cancellation_reason},
        "collection_method": subscription.collection_method,
        "created": subscription.created,
        "currency": subscription.currency,
        "customer": subscription.customer,
        "customer_account": None,
        "days_until_due": subscription.days_until_due,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": subscription.description,
        "discounts": [],
        "ended_at": subscription.ended_at,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": listing(
            items[:ITEMS_SHOWN],
            f"/v1/subscription_items?subscription={subscription.id}",
            has_more=len(items) > ITEMS_SHOWN,
        ),
        "latest_invoice": subscription.latest_invoice,
        "livemode": False,
        "metadata": dict(subscription.metadata),
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": {"behavior": pause.behavior, "resumes_at": pause.resumes_at} if pause else None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": {
            "billing_cycle_anchor": None,
            "expires_at": pending.expires_at,
            "subscription_items": [item_json(item, subscription, store) for item in pending.items],
            "trial_end": None,
            "trial_from_plan": None,
        }
        if pending
        else None,
        "schedule": None,
        "start_date": subscription.created,
        "status": subscription.status,
        "status_details": {
            "paused": {
                "subscription": {"type": paused},
                "transitioned_at": subscription.paused_at,
                "type": "subscription",
            }
        }
        if paused
        else None,
        "test_clock": store.customers[subscription.customer].test_clock,
        "transfer_data": None,
        "trial_end": subscription.trial_end,
        "trial_settings": {"end_behavior": {"missing_payment_method": subscription.missing_payment_method}},
        "trial_start": subscription.trial_start,
    }


def line_json(line: Line, invoice: Invoice, store: Store) -> Json:
    """One line of an invoice."""
    price = store.prices[line.price] if line.price is not None else None
    return {
        "id": line.id,
        "object": "line_item",
        "amount": line.amount,
        "currency": invoice.currency,
        "description": line.description,
        "discount_amounts": [],
        "discountable": not line.proration,
        "discounts": [],
        "invoice": invoice.id,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": line.proration,
                "proration_details": None,
                "subscription": invoice.subscription,
                "subscription_item": line.item,
            },
            "type": "subscription_item_details",
        },
        "period": {"end": line.period_end, "start": line.period_start},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price.id, "product": price.product},
            "type": "price_details",
            "unit_amount_decimal": str(price.unit_amount),
        }
        if price is not None
        else None,
        "quantity": line.quantity,
        "subtotal": line.amount,
        "taxes": [],
    }
