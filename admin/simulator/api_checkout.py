"""Stripe's endpoints for Checkout sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.api_subscriptions import missing_card_of
from admin.simulator.changes import recurring_price
from admin.simulator.entities import CheckoutSession, LineItem
from admin.simulator.objects_billing import line_item_json
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list, answer_rows, email, moment_ahead, url
from admin.simulator.wire import ApiError, Params

if TYPE_CHECKING:
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

SHORTEST_SECONDS = 30 * 60
LONGEST_SECONDS = 24 * 3600


def _create(call: Call) -> Json:
    params, world = call.params, call.world
    if params.need("mode") != "subscription":
        raise ApiError(400, "The simulator knows mode=subscription only.", param="mode")
    customer, address = params.text("customer"), email(params, "customer_email")
    if customer is not None and address is not None:
        raise ApiError(400, "You may only specify one of these parameters: customer, customer_email.", param="customer")
    if customer is not None:
        world.store.live_customer(customer)
    success_url = url(params, "success_url")
    if success_url is None:
        raise params.required("success_url")
    reference = params.text("client_reference_id")
    if reference is not None and len(reference) > 200:
        raise ApiError(
            400, "Invalid string: client_reference_id must be at most 200 characters.", param="client_reference_id"
        )
    now, subscription = world.billing.now, params.table("subscription_data")
    session = CheckoutSession(
        id=world.store.new_id("cs_test"),
        created=now,
        expires_at=_expires_at(params, now),
        line_items=_line_items(call),
        success_url=success_url,
        cancel_url=url(params, "cancel_url"),
        customer=customer,
        customer_email=address,
        client_reference_id=reference,
        metadata=params.metadata({}),
        subscription_metadata=subscription.metadata({}),
        subscription_description=subscription.text("description"),
        trial_days=subscription.whole("trial_period_days", least=1, most=730),
        trial_end=moment_ahead(subscription, "trial_end", now, years=2),
        missing_payment_method=missing_card_of(subscription),
        payment_method_collection=params.choice("payment_method_collection", ("always", "if_required")) or "always",
    )
    world.store.sessions[session.id] = session
    world.schedule.watch(session)  # there is no event for it
    return world.journal.render(session)


def _expires_at(params: Params, now: int) -> int:
    wanted = params.whole("expires_at")
    if wanted is None:
        return now + LONGEST_SECONDS
    # A caller computes it from its own clock a moment before: a minute's grace at the short end, as Stripe's own.
    if not now + SHORTEST_SECONDS - 60 <= wanted <= now + LONGEST_SECONDS + 60:
        raise ApiError(
            400,
            "The `expires_at` timestamp must be at least 30 minutes and at most 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    return wanted


def _line_items(call: Call) -> tuple[LineItem, ...]:
    lines = call.params.children("line_items")
    if not lines:
        raise call.params.required("line_items")
    if len(lines) > 20:
        raise ApiError(
            400, "A Checkout session in subscription mode holds at most 20 recurring prices.", param="line_items"
        )
    store, found, currency = call.world.store, [], None
    for line in lines:
        price = line.need("price")
        recurring_price(call.world.billing, price, line.name("price"), currency)
        currency = store.prices[price].currency
        quantity = line.whole("quantity", least=1, most=1_000_000)
        if quantity is None:
            raise line.required("quantity")
        found.append(LineItem(store.new_id("li"), price, quantity))
    return tuple(found)


def _named(call: Call) -> CheckoutSession:
    store = call.world.store
    return store.get(store.sessions, call.path["id"])


def _get(call: Call) -> Json:
    return call.world.journal.render(_named(call))


def _list(call: Call) -> Json:
    params, store = call.params, call.world.store
    customer, subscription = params.text("customer"), params.text("subscription")
    status = params.choice("status", ("open", "complete", "expired"))
    found = [
        one
        for one in store.sessions.values()
        if (customer is None or one.customer == customer)
        and (subscription is None or one.subscription == subscription)
        and (status is None or one.status == status)
    ]
    return answer_list(call, store.sessions, found, "/v1/checkout/sessions")


def _update(call: Call) -> Json:
    session = _named(call)
    session.metadata = call.params.metadata(session.metadata)
    return call.world.journal.render(session)


def _expire(call: Call) -> Json:
    session = _named(call)
    call.world.checkout.expire(session)
    return call.world.journal.render(session)


def _lines(call: Call) -> Json:
    session = _named(call)
    data = [line_item_json(line, call.world.store) for line in session.line_items]
    return answer_rows(call, data, "item", f"/v1/checkout/sessions/{session.id}/line_items")


ENDPOINTS = (
    Endpoint("POST", "/v1/checkout/sessions", _create),
    Endpoint("GET", "/v1/checkout/sessions", _list),
    Endpoint("GET", "/v1/checkout/sessions/{id}", _get),
    Endpoint("POST", "/v1/checkout/sessions/{id}", _update),
    Endpoint("POST", "/v1/checkout/sessions/{id}/expire", _expire),
    Endpoint("GET", "/v1/checkout/sessions/{id}/line_items", _lines),
)
