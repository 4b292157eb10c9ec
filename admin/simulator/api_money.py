"""Stripe's endpoints for payments of invoices, charges, refunds and disputes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.payments import REFUND_REASONS
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list
from admin.simulator.wire import ApiError, missing

if TYPE_CHECKING:
    from admin.simulator.entities_money import Charge, Dispute
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

PAYMENT_STATUSES = ("open", "paid", "canceled")
DECIDING_EVIDENCE = {"winning_evidence": "won", "losing_evidence": "lost"}
"""What Stripe's own test mode understands as `evidence[uncategorized_text]`: the dispute is decided at once."""


def _get_charge(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.charges, call.path["id"]))


def _list_payments(call: Call) -> Json:
    params, store = call.params, call.world.store
    invoice, status = params.text("invoice"), params.choice("status", PAYMENT_STATUSES)
    intent = params.table("payment").text("payment_intent")
    if invoice is not None:
        store.get(store.invoices, invoice, param="invoice")
    among = store.invoice_payments.values() if invoice is None else store.payments_of(invoice)
    found = [
        one
        for one in among
        if (status is None or one.status == status) and (intent is None or one.payment_intent == intent)
    ]
    return answer_list(call, store.invoice_payments, found, "/v1/invoice_payments")


def _list_charges(call: Call) -> Json:
    params, store = call.params, call.world.store
    customer, intent = params.text("customer"), params.text("payment_intent")
    if customer is not None:
        store.get(store.customers, customer, param="customer")
    found = [
        one
        for one in store.charges.values()
        if (customer is None or one.customer == customer) and (intent is None or one.payment_intent == intent)
    ]
    return answer_list(call, store.charges, found, "/v1/charges")


def charge_named(call: Call) -> Charge:
    """The charge that `charge` names, or the one that succeeded for `payment_intent`."""
    params, store = call.params, call.world.store
    named, intent = params.text("charge"), params.text("payment_intent")
    if (named is None) == (intent is None):
        raise ApiError(400, "Send one of charge and payment_intent.", param="charge")
    if named is not None:
        return store.get(store.charges, named, param="charge")
    made = [one for one in store.charges.values() if one.payment_intent == intent]
    succeeded = [one for one in made if one.status == "succeeded"]
    if not succeeded:
        if made or any(one.payment_intent == intent for one in store.invoice_payments.values()):
            raise ApiError(400, f"The payment intent {intent} has no successful charge to refund.")
        raise missing("payment_intent", (intent or "")[:255], param="payment_intent", status=400)
    return succeeded[-1]


def _create_refund(call: Call) -> Json:
    params = call.params
    charge, amount = charge_named(call), params.whole("amount", least=1)
    reason = params.choice("reason", REFUND_REASONS)
    refund = call.world.billing.invoicing.payments.refund(charge, amount, reason, params.metadata({}))
    return call.world.journal.render(refund)


def _get_refund(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.refunds, call.path["id"]))


def _list_refunds(call: Call) -> Json:
    params, store = call.params, call.world.store
    charge, intent = params.text("charge"), params.text("payment_intent")
    if charge is not None:
        store.get(store.charges, charge, param="charge")
    found = [
        one
        for one in store.refunds.values()
        if (charge is None or one.charge == charge) and (intent is None or one.payment_intent == intent)
    ]
    return answer_list(call, store.refunds, found, "/v1/refunds")


def _dispute_named(call: Call) -> Dispute:
    store = call.world.store
    return store.get(store.disputes, call.path["id"])


def _get_dispute(call: Call) -> Json:
    return call.world.journal.render(_dispute_named(call))


def _list_disputes(call: Call) -> Json:
    params, store = call.params, call.world.store
    charge, intent = params.text("charge"), params.text("payment_intent")
    if charge is not None:
        store.get(store.charges, charge, param="charge")
    found = [
        one
        for one in store.disputes.values()
        if (charge is None or one.charge == charge) and (intent is None or one.payment_intent == intent)
    ]
    return answer_list(call, store.disputes, found, "/v1/disputes")


def _update_dispute(call: Call) -> Json:
    """Evidence is under review; the two texts of Stripe's test mode decide at once."""
    params, dispute, payments = call.params, _dispute_named(call), call.world.billing.invoicing.payments
    metadata, evidence = params.metadata(dispute.metadata), params.table("evidence").text("uncategorized_text")
    if evidence is not None and not dispute.is_open:
        raise ApiError(400, f"This dispute is already {dispute.status}.")
    dispute.metadata = metadata
    if evidence is not None:
        with call.world.journal.changing("charge.dispute.updated", dispute):
            dispute.evidence = evidence
            if params.flag("submit") is not False:
                dispute.status = "warning_under_review" if dispute.is_inquiry else "under_review"
        verdict = DECIDING_EVIDENCE.get(evidence)
        if verdict is not None:
            payments.close(dispute, "warning_closed" if dispute.is_inquiry else "won" if verdict == "won" else "lost")
    return call.world.journal.render(dispute)


def _close_dispute(call: Call) -> Json:
    """The merchant accepts it: the money is lost."""
    dispute = _dispute_named(call)
    call.world.billing.invoicing.payments.close(dispute, "warning_closed" if dispute.is_inquiry else "lost")
    return call.world.journal.render(dispute)


def _get_payment(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.invoice_payments, call.path["id"]))


ENDPOINTS = (
    Endpoint("GET", "/v1/invoice_payments", _list_payments),
    Endpoint("GET", "/v1/invoice_payments/{id}", _get_payment),
    Endpoint("GET", "/v1/charges", _list_charges),
    Endpoint("GET", "/v1/charges/{id}", _get_charge),
    Endpoint("POST", "/v1/refunds", _create_refund),
    Endpoint("GET", "/v1/refunds", _list_refunds),
    Endpoint("GET", "/v1/refunds/{id}", _get_refund),
    Endpoint("GET", "/v1/disputes", _list_disputes),
    Endpoint("GET", "/v1/disputes/{id}", _get_dispute),
    Endpoint("POST", "/v1/disputes/{id}", _update_dispute),
    Endpoint("POST", "/v1/disputes/{id}/close", _close_dispute),
)
