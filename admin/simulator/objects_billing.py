"""How invoices, Checkout sessions, the portal and events look on the wire in API 2026-10-28.endive.

It decides names and places of fields, and which of our pages a URL leads to. It must never change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from admin.simulator.objects import API_VERSION, ITEMS_SHOWN, line_json, listing, price_json

if TYPE_CHECKING:
    from admin.simulator.entities import (
        CheckoutSession,
        Customer,
        Event,
        Invoice,
        LineItem,
        PortalConfiguration,
        PortalSession,
    )
    from admin.simulator.store import Store
    from admin.simulator.wire import Json


def invoice_json(invoice: Invoice, store: Store, public_base: str) -> Json:
    """An invoice; its hosted page exists once it is finalized."""
    customer = store.customers[invoice.customer]
    subscription_metadata = dict(invoice.metadata)
    lines = [line_json(line, invoice, store) for line in invoice.lines]
    paid = invoice.amount_due if invoice.status == "paid" else 0
    finalized = invoice.finalized_at is not None
    return {
        "id": invoice.id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Simulated account",
        "account_tax_ids": None,
        "amount_due": invoice.amount_due,
        "amount_overpaid": 0,
        "amount_paid": paid,
        "amount_remaining": invoice.amount_due - paid,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": invoice.attempts,
        "attempted": invoice.attempts > 0 or invoice.status == "paid",
        "auto_advance": invoice.auto_advance and invoice.status in ("draft", "open"),
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": invoice.finalizes_at if invoice.status == "draft" else None,
        "billing_reason": invoice.billing_reason,
        "collection_method": invoice.collection_method,
        "created": invoice.created,
        "currency": invoice.currency,
        "custom_fields": None,
        "customer": invoice.customer,
        "customer_account": None,
        "customer_address": None,
        "customer_email": customer.email,
        "customer_name": customer.name,
        "customer_phone": customer.phone,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": invoice.due_date,
        "effective_at": invoice.finalized_at,
        "ending_balance": invoice.ending_balance,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": f"{public_base}/i/{invoice.id}" if finalized else None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": listing(lines[:ITEMS_SHOWN], f"/v1/invoices/{invoice.id}/lines", has_more=len(lines) > ITEMS_SHOWN),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": invoice.next_payment_attempt,
        "number": invoice.number,
        "on_behalf_of": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": subscription_metadata, "subscription": invoice.subscription},
            "type": "subscription_details",
        },
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": invoice.period_end,
        "period_start": invoice.period_start,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": invoice.starting_balance,
        "statement_descriptor": None,
        "status": invoice.status,
        "status_transitions": {
            "finalized_at": invoice.finalized_at,
            "marked_uncollectible_at": invoice.uncollectible_at,
            "paid_at": invoice.paid_at,
            "voided_at": invoice.voided_at,
        },
        "subtotal": invoice.total,
        "subtotal_excluding_tax": invoice.total,
        "test_clock": customer.test_clock,
        "total": invoice.total,
        "total_discount_amounts": [],
        "total_excluding_tax": invoice.total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": invoice.created,
    }


def session_json(session: CheckoutSession, store: Store, public_base: str) -> Json:
    """A Checkout session; it has a page while it is open."""
    prices = [(store.prices[line.price], line.quantity) for line in session.line_items]
    total = sum(price.unit_amount * quantity for price, quantity in prices)
    customer = store.customers.get(session.customer) if session.customer is not None else None
    email = session.customer_email or (customer.email if customer is not None else None)
    is_trial = session.trial_days is not None or session.trial_end is not None
    return {
        "id": session.id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": 0 if is_trial else total,
        "amount_total": 0 if is_trial else total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": session.cancel_url,
        "client_reference_id": session.client_reference_id,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": session.created,
        "currency": prices[0][0].currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": session.customer,
        "customer_account": None,
        "customer_creation": "always" if session.customer is None else None,
        "customer_details": _customer_details(customer, email) if email or session.status == "complete" else None,
        "customer_email": session.customer_email,
        "discounts": [],
        "expires_at": session.expires_at,
        "invoice": session.invoice,
        "invoice_creation": None,
        "livemode": False,
        "locale": None,
        "metadata": dict(session.metadata),
        "mode": "subscription",
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": session.payment_method_collection,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": session.payment_status,
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": session.status,
        "submit_type": None,
        "subscription": session.subscription,
        "success_url": session.success_url,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{public_base}/c/pay/{session.id}" if session.status == "open" else None,
        "wallet_options": None,
    }


def _customer_details(customer: Customer | None, email: str | None) -> Json:
    return {
        "address": None,
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": customer.name if customer is not None else None,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def line_item_json(line: LineItem, store: Store) -> Json:
    """One line of a Checkout session; the session shows them only where they are expanded."""
    price = store.prices[line.price]
    return {
        "id": line.id,
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": price.unit_amount * line.quantity,
        "amount_tax": 0,
        "amount_total": price.unit_amount * line.quantity,
        "currency": price.currency,
        "description": store.products[price.product].name,
        "price": price_json(price),
        "quantity": line.quantity,
    }


def portal_configuration_json(configuration: PortalConfiguration) -> Json:
    """A portal configuration, without the products that are shown only where expanded."""
    return {
        "id": configuration.id,
        "object": "billing_portal.configuration",
        "active": configuration.active,
        "application": None,
        "business_profile": configuration.business_profile,
        "created": configuration.created,
        "default_return_url": configuration.default_return_url,
        "features": configuration.features,
        "is_default": configuration.is_default,
        "livemode": False,
        "login_page": {"enabled": False, "url": None},
        "metadata": dict(configuration.metadata),
        "name": configuration.name,
        "updated": configuration.updated,
    }


def portal_session_json(session: PortalSession, public_base: str) -> Json:
    """A portal session."""
    return {
        "id": session.id,
        "object": "billing_portal.session",
        "configuration": session.configuration,
        "created": session.created,
        "customer": session.customer,
        "customer_account": None,
        "flow": session.flow,
        "livemode": False,
        "locale": session.locale,
        "on_behalf_of": None,
        "return_url": session.return_url,
        "url": f"{public_base}/p/session/{quote(session.id)}",
    }


def event_json(event: Event, *, pending_webhooks: int) -> Json:
    """A snapshot event; its object is as it was when it happened."""
    data: Json = {"object": event.object}
    if event.previous is not None:
        data["previous_attributes"] = event.previous
    return {
        "id": event.id,
        "object": "event",
        "api_version": API_VERSION,
        "created": event.created,
        "data": data,
        "livemode": False,
        "pending_webhooks": pending_webhooks,
        "request": {"id": event.request, "idempotency_key": event.idempotency_key},
        "type": event.type,
    }
