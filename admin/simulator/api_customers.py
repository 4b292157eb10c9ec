"""Stripe's endpoints for customers and for the events that tell of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.entities import Customer
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list, email
from admin.simulator.wire import missing

if TYPE_CHECKING:
    from admin.simulator.entities import Event
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json


def _create(call: Call) -> Json:
    params, world = call.params, call.world
    customer = Customer(
        id=world.store.new_id("cus"),
        created=world.billing.now,
        email=email(params, "email"),
        name=params.text("name"),
        description=params.text("description"),
        phone=params.text("phone"),
        metadata=params.metadata({}),
        balance=params.whole("balance") or 0,
        test_clock=_clock(call),
    )
    world.store.customers[customer.id] = customer
    world.journal.say("customer.created", customer)
    return world.journal.render(customer)


def _clock(call: Call) -> str | None:
    """The test clock under which a customer is made or looked for."""
    store, named = call.world.store, call.params.text("test_clock")
    return store.get(store.test_clocks, named, param="test_clock").id if named is not None else None


def _get(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.customers, call.path["id"]))


def _live(call: Call) -> Customer:
    store = call.world.store
    customer = store.get(store.customers, call.path["id"])
    if customer.deleted:
        raise missing("customer", customer.id)
    return customer


def _update(call: Call) -> Json:
    params, customer = call.params, _live(call)
    address, metadata, balance = email(params, "email"), params.metadata(customer.metadata), params.whole("balance")
    texts = {name: params.text(name) for name in ("name", "description", "phone") if params.has(name)}
    with call.world.journal.changing("customer.updated", customer):
        customer.metadata = metadata
        customer.email = address if params.has("email") else customer.email
        customer.balance = customer.balance if balance is None else balance
        customer.name = texts.get("name", customer.name)
        customer.description = texts.get("description", customer.description)
        customer.phone = texts.get("phone", customer.phone)
    return call.world.journal.render(customer)


def _delete(call: Call) -> Json:
    world, customer = call.world, _live(call)
    world.billing.delete_customer(customer)
    return world.journal.render(customer)


def _list(call: Call) -> Json:
    store, address, clock = call.world.store, call.params.text("email"), _clock(call)
    found = [
        one
        for one in store.customers.values()
        if not one.deleted and (address is None or one.email == address) and one.test_clock == clock
    ]
    return answer_list(call, store.customers, found, "/v1/customers")


def _get_event(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.events, call.path["id"]))


def _list_events(call: Call) -> Json:
    params, world = call.params, call.world
    kinds = [*params.texts("types"), *params.texts("type")]
    delivered = params.flag("delivery_success")

    def wanted(event: Event) -> bool:
        matches = not kinds or any(
            event.type == kind or (kind.endswith("*") and event.type.startswith(kind[:-1])) for kind in kinds
        )
        return matches and (delivered is None or (world.journal.pending_webhooks(event.id) == 0) == delivered)

    found = [event for event in world.store.events.values() if wanted(event)]
    return answer_list(call, world.store.events, found, "/v1/events")


ENDPOINTS = (
    Endpoint("POST", "/v1/customers", _create),
    Endpoint("GET", "/v1/customers", _list),
    Endpoint("GET", "/v1/customers/{id}", _get),
    Endpoint("POST", "/v1/customers/{id}", _update),
    Endpoint("DELETE", "/v1/customers/{id}", _delete),
    Endpoint("GET", "/v1/events", _list_events),
    Endpoint("GET", "/v1/events/{id}", _get_event),
)
