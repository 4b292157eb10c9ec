"""How payments, charges, refunds and disputes look on the wire in API 2026-10-28.endive.

It decides names and places of fields: since API 2025-03-31 a charge names no invoice, only `invoice_payments` joins them.
It must never change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from admin.simulator.entities import Customer
    from admin.simulator.entities_money import Charge, Dispute, InvoicePayment, Refund
    from admin.simulator.wire import Json

_EVIDENCE: Final = (
    "access_activity_log", "billing_address", "cancellation_policy", "cancellation_policy_disclosure",
    "cancellation_rebuttal", "customer_communication", "customer_email_address", "customer_name",
    "customer_purchase_ip", "customer_signature", "duplicate_charge_documentation", "duplicate_charge_explanation",
    "duplicate_charge_id", "product_description", "receipt", "refund_policy", "refund_policy_disclosure",
    "refund_refusal_explanation", "service_date", "service_documentation", "shipping_address", "shipping_carrier",
    "shipping_date", "shipping_documentation", "shipping_tracking_number", "uncategorized_file",
)  # fmt: skip
_ADDRESS: Final = ("city", "country", "line1", "line2", "postal_code", "state")
_RESPONSE_SECONDS: Final = 9 * 86400


def invoice_payment_json(payment: InvoicePayment) -> Json:
    """What joins an invoice to the payment intent that pays it."""
    return {
        "id": payment.id,
        "object": "invoice_payment",
        "amount_paid": payment.amount if payment.status == "paid" else None,
        "amount_requested": payment.amount,
        "created": payment.created,
        "currency": payment.currency,
        "invoice": payment.invoice,
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": payment.payment_intent, "type": "payment_intent"},
        "status": payment.status,
        "status_transitions": {"canceled_at": payment.canceled_at, "paid_at": payment.paid_at},
    }


def charge_json(charge: Charge, customer: Customer) -> Json:
    """A charge."""
    has_failed = charge.status == "failed"
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_captured": 0 if has_failed else charge.amount,
        "amount_refunded": charge.amount_refunded,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": {
            "address": dict.fromkeys(_ADDRESS),
            "email": customer.email,
            "name": customer.name,
            "phone": customer.phone,
            "tax_id": None,
        },
        "calculated_statement_descriptor": None,
        "captured": not has_failed,
        "created": charge.created,
        "currency": charge.currency,
        "customer": charge.customer,
        "description": "Subscription update",
        "disputed": charge.disputed,
        "failure_balance_transaction": None,
        "failure_code": "card_declined" if has_failed else None,
        "failure_message": "Your card was declined." if has_failed else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(charge.metadata),
        "on_behalf_of": None,
        "outcome": None,
        "paid": charge.status == "succeeded",
        "payment_intent": charge.payment_intent,
        "payment_method": f"pm_{charge.customer[4:]}",
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}, "type": "card"},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": charge.refunded,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": charge.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def refund_json(refund: Refund) -> Json:
    """A refund."""
    return {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": None,
        "charge": refund.charge,
        "created": refund.created,
        "currency": refund.currency,
        "customer": refund.customer,
        "customer_account": None,
        "destination_details": {"card": {"type": "refund"}, "type": "card"},
        "metadata": dict(refund.metadata),
        "payment_intent": refund.payment_intent,
        "payment_method": f"pm_{refund.customer[4:]}",
        "reason": refund.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def dispute_json(dispute: Dispute) -> Json:
    """A dispute, which names no customer."""
    has_evidence = dispute.evidence is not None
    return {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": [],
        "charge": dispute.charge,
        "created": dispute.created,
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(_EVIDENCE), "enhanced_evidence": {}, "uncategorized_text": dispute.evidence},
        "evidence_details": {
            "due_by": dispute.created + _RESPONSE_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": has_evidence,
            "past_due": False,
            "submission_count": int(has_evidence),
        },
        "is_charge_refundable": dispute.is_open and dispute.is_inquiry,
        "livemode": False,
        "metadata": dict(dispute.metadata),
        "payment_intent": dispute.payment_intent,
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if dispute.is_inquiry else "chargeback",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": dispute.reason,
        "status": dispute.status,
    }
