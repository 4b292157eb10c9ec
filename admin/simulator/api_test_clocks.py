"""Stripe's endpoints for test clocks.

The simulator has one clock. Making or advancing a test clock moves that one, for everybody, and real time goes on beside
it; what is made under a clock is hidden from lists that don't name it or its customer, as with Stripe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from admin.simulator.entities_clock import TestClock
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

OLDEST_SECONDS: Final = 86400
"""A clock that begins today: its maker computed the moment a little earlier, or rounded it down to the day."""


def _move(call: Call, moment: int) -> None:
    try:
        call.world.advance(moment - call.world.billing.now)
    except ValueError as error:
        raise ApiError(400, f"{error}.", param="frozen_time") from error


def _create(call: Call) -> Json:
    params, world = call.params, call.world
    params.need("frozen_time")
    moment = params.whole("frozen_time") or 0
    if moment < world.billing.now - OLDEST_SECONDS:
        raise ApiError(
            400, f"The simulator's clock is at {world.billing.now} and never goes back.", param="frozen_time"
        )
    if moment > world.billing.now:
        _move(call, moment)
    clock = TestClock(world.store.new_id("clock"), world.billing.now, moment, params.text("name"))
    world.store.test_clocks[clock.id] = clock
    world.journal.say("test_helpers.test_clock.created", clock)
    return world.journal.render(clock)


def _named(call: Call) -> TestClock:
    store = call.world.store
    return store.get(store.test_clocks, call.path["id"])


def _get(call: Call) -> Json:
    return call.world.journal.render(_named(call))


def _advance(call: Call) -> Json:
    clock, params = _named(call), call.params
    params.need("frozen_time")
    moment = params.whole("frozen_time") or 0
    if moment <= clock.frozen_time:
        raise ApiError(400, "A test clock can only be advanced to a later time.", param="frozen_time")
    if moment > call.world.billing.now:
        _move(call, moment)
    with call.world.journal.changing("test_helpers.test_clock.ready", clock):
        clock.frozen_time = moment
    return call.world.journal.render(clock)


def _list(call: Call) -> Json:
    store = call.world.store
    return answer_list(call, store.test_clocks, list(store.test_clocks.values()), "/v1/test_helpers/test_clocks")


def _delete(call: Call) -> Json:
    """Whoever was made under it goes with it."""
    clock, world = _named(call), call.world
    for customer in [one for one in world.store.customers.values() if one.test_clock == clock.id and not one.deleted]:
        world.billing.delete_customer(customer)
    world.journal.say("test_helpers.test_clock.deleted", clock)
    del world.store.test_clocks[clock.id]
    return {"id": clock.id, "object": "test_helpers.test_clock", "deleted": True}


ENDPOINTS = (
    Endpoint("POST", "/v1/test_helpers/test_clocks", _create),
    Endpoint("GET", "/v1/test_helpers/test_clocks", _list),
    Endpoint("GET", "/v1/test_helpers/test_clocks/{id}", _get),
    Endpoint("POST", "/v1/test_helpers/test_clocks/{id}/advance", _advance),
    Endpoint("DELETE", "/v1/test_helpers/test_clocks/{id}", _delete),
)
