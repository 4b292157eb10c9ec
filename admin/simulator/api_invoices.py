"""Stripe's endpoints for invoices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.entities import InvoiceStatus
from admin.simulator.objects import line_json
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list, answer_rows
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from admin.simulator.entities import Invoice
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

STATUSES: tuple[InvoiceStatus, ...] = ("draft", "open", "paid", "void", "uncollectible")


def _named(call: Call) -> Invoice:
    store = call.world.store
    return store.get(store.invoices, call.path["id"])


def _get(call: Call) -> Json:
    return call.world.journal.render(_named(call))


def _list(call: Call) -> Json:
    params, store = call.params, call.world.store
    customer, subscription = params.text("customer"), params.text("subscription")
    status = params.choice("status", STATUSES)
    method = params.choice("collection_method", ("charge_automatically", "send_invoice"))
    if customer is not None:
        store.get(store.customers, customer, param="customer")
    if subscription is not None:
        store.get(store.subscriptions, subscription, param="subscription")
    found = [
        one
        for one in store.invoices.values()
        if (customer is None or one.customer == customer)
        and (subscription is None or one.subscription == subscription)
        and (status is None or one.status == status)
        and (method is None or one.collection_method == method)
    ]
    return answer_list(call, store.invoices, found, "/v1/invoices")


def _pay(call: Call) -> Json:
    invoice, billing = _named(call), call.world.billing
    if invoice.status == "paid":
        raise ApiError(400, "Invoice is already paid", code="invoice_already_paid")
    if call.params.flag("paid_out_of_band"):
        if invoice.status == "draft":
            billing.invoicing.finalize(invoice)
        billing.invoicing.settle(invoice, out_of_band=True)
        billing.after_payment(invoice)
    elif not billing.pay_now(invoice):
        raise billing.invoicing.decline(call.world.store.customers[invoice.customer])
    return call.world.journal.render(invoice)


def _finalize(call: Call) -> Json:
    invoice = _named(call)
    subscription = call.world.store.subscriptions[invoice.subscription]
    call.world.billing.invoicing.finalize(invoice, days_until_due=subscription.days_until_due)
    return call.world.journal.render(invoice)


def _void(call: Call) -> Json:
    invoice = _named(call)
    call.world.billing.invoicing.void(invoice)
    call.world.billing.follow_invoices(call.world.store.subscriptions[invoice.subscription])
    return call.world.journal.render(invoice)


def _mark_uncollectible(call: Call) -> Json:
    invoice = _named(call)
    call.world.billing.invoicing.give_up(invoice)
    call.world.billing.follow_invoices(call.world.store.subscriptions[invoice.subscription])
    return call.world.journal.render(invoice)


def _lines(call: Call) -> Json:
    invoice = _named(call)
    data = [line_json(line, invoice, call.world.store) for line in invoice.lines]
    return answer_rows(call, data, "line_item", f"/v1/invoices/{invoice.id}/lines")


ENDPOINTS = (
    Endpoint("GET", "/v1/invoices", _list),
    Endpoint("GET", "/v1/invoices/{id}", _get),
    Endpoint("GET", "/v1/invoices/{id}/lines", _lines),
    Endpoint("POST", "/v1/invoices/{id}/finalize", _finalize),
    Endpoint("POST", "/v1/invoices/{id}/pay", _pay),
    Endpoint("POST", "/v1/invoices/{id}/void", _void),
    Endpoint("POST", "/v1/invoices/{id}/mark_uncollectible", _mark_uncollectible),
)
