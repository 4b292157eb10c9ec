"""Stripe's endpoints for subscriptions and their items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from admin.simulator.changes import (
    PAYMENT_BEHAVIORS,
    PRORATIONS,
    apply_change,
    new_item,
    read_change,
    recurring_price,
    refuse_unpayable,
)
from admin.simulator.entities import ENDED, STATUSES, PauseCollection, Subscription
from admin.simulator.objects import item_json
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list, answer_rows, moment_ahead
from admin.simulator.wire import ApiError, missing

if TYPE_CHECKING:
    from admin.simulator.entities import Customer
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json, Params

MISSING_CARD = ("create_invoice", "cancel", "pause")


@dataclass(frozen=True, slots=True)
class PlannedEnd:
    """An end that was asked for, or asked to be taken back. `at` only where it is a moment."""

    kind: Literal["first", "last", "moment", "period_end", "no_period_end", "none"]
    at: int | None = None


def _create(call: Call) -> Json:
    params, world, now = call.params, call.world, call.world.billing.now
    customer = world.store.live_customer(params.need("customer"))
    wanted = params.children("items")
    if not wanted:
        raise params.required("items")
    prices = [(one.need("price"), one.whole("quantity", least=0, most=1_000_000), one) for one in wanted]
    currency = world.store.get(world.store.prices, prices[0][0], param=prices[0][2].name("price")).currency
    for price, _, one in prices:
        recurring_price(world.billing, price, one.name("price"), currency)
    if len({price for price, _, _ in prices}) < len(prices):
        raise ApiError(400, "Two items have the same price.", param="items")
    trial_end = trial_end_of(params, now)
    collection = params.choice("collection_method", ("charge_automatically", "send_invoice")) or "charge_automatically"
    behavior = params.choice("payment_behavior", PAYMENT_BEHAVIORS) or "allow_incomplete"
    days = params.whole("days_until_due", least=0, most=365)
    if collection == "send_invoice" and days is None:
        raise params.required("days_until_due")
    planned = _planned_end(call)
    subscription = Subscription(
        id=world.store.new_id("sub"),
        customer=customer.id,
        currency=currency,
        created=now,
        anchor=trial_end or now,
        items=[],
        billing_mode=params.table("billing_mode").choice("type", ("classic", "flexible")) or "flexible",
        collection_method=collection,
        days_until_due=days,
        description=params.text("description"),
        metadata=params.metadata({}),
        trial_start=now if trial_end is not None else None,
        trial_end=trial_end,
        missing_payment_method=missing_card_of(params),
    )
    for price, quantity, one in prices:
        item = new_item(world.billing, subscription, price, 1 if quantity is None else quantity)
        item.metadata = one.metadata({})
        subscription.items.append(item)
    _plan_end(call, subscription, planned)
    if behavior == "error_if_incomplete" and trial_end is None and _would_fail(call, customer, subscription):
        raise world.billing.invoicing.decline(customer)
    world.billing.begin(subscription, paid_already=False, charge=behavior != "default_incomplete")
    return world.journal.render(subscription)


def trial_end_of(params: Params, now: int) -> int | None:
    """When the trial that `trial_end` or `trial_period_days` asks for is over; None for no trial."""
    if params.has("trial_end") and params.has("trial_period_days"):
        raise ApiError(400, "You can only use one of trial_end and trial_period_days.", param=params.name("trial_end"))
    days = params.whole("trial_period_days", least=0, most=730)
    if days is not None:
        return now + days * 86400 if days else None
    return None if params.text("trial_end") == "now" else moment_ahead(params, "trial_end", now, years=2)


def missing_card_of(params: Params) -> str:
    """`trial_settings[end_behavior][missing_payment_method]`, as Stripe defaults it."""
    return (
        params.table("trial_settings").table("end_behavior").choice("missing_payment_method", MISSING_CARD)
        or "create_invoice"
    )


def _would_fail(call: Call, customer: Customer, subscription: Subscription) -> bool:
    prices = call.world.store.prices
    due = sum(prices[item.price].unit_amount * item.quantity for item in subscription.items) + customer.balance
    return due > 0 and customer.card in ("fails", "none") and subscription.collection_method == "charge_automatically"


def _planned_end(call: Call) -> PlannedEnd | None:
    """What is asked of `cancel_at` and `cancel_at_period_end`; None for nothing."""
    params = call.params
    at, at_period_end = params.text("cancel_at"), params.flag("cancel_at_period_end")
    if at is not None and at_period_end:
        raise ApiError(400, "You can only use one of cancel_at and cancel_at_period_end.", param="cancel_at")
    if at in ("min_period_end", "max_period_end"):
        return PlannedEnd("first" if at == "min_period_end" else "last")
    if at is not None:
        return PlannedEnd("moment", moment_ahead(params, "cancel_at", call.world.billing.now, years=5))
    if at_period_end is not None:
        return PlannedEnd("period_end" if at_period_end else "no_period_end")
    return PlannedEnd("none") if params.has("cancel_at") else None


def _plan_end(call: Call, subscription: Subscription, wanted: PlannedEnd | None) -> None:
    """Put it in force, after the items are what they will be."""
    billing, ends = call.world.billing, [item.period_end for item in subscription.items]
    match wanted:
        case PlannedEnd("first"):
            billing.set_planned_end(subscription, min(ends), at_period_end=False)
        case PlannedEnd("last"):
            billing.set_planned_end(subscription, max(ends), at_period_end=False)
        case PlannedEnd("period_end") if not subscription.cancel_at_period_end:
            billing.set_planned_end(subscription, min(ends), at_period_end=True)
        case PlannedEnd("no_period_end") if subscription.cancel_at_period_end:
            billing.set_planned_end(subscription, None, at_period_end=False)
        case PlannedEnd("moment" | "none"):
            billing.set_planned_end(subscription, wanted.at, at_period_end=False)
        case _:
            pass


def _named(call: Call) -> Subscription:
    store = call.world.store
    return store.get(store.subscriptions, call.path["id"])


def _get(call: Call) -> Json:
    return call.world.journal.render(_named(call))


def _list(call: Call) -> Json:
    params, store = call.params, call.world.store
    customer, price = params.text("customer"), params.text("price")
    status = params.choice("status", (*STATUSES, "all", "ended"))
    clock = params.text("test_clock")
    if customer is not None:
        store.get(store.customers, customer, param="customer")
    if clock is not None:
        store.get(store.test_clocks, clock, param="test_clock")
    found = [
        one
        for one in (store.subscriptions.values() if customer is None else store.subscriptions_of(customer))
        if ((customer is not None and clock is None) or store.customers[one.customer].test_clock == clock)
        and (price is None or any(item.price == price for item in one.items))
        and _status_wanted(one, status)
    ]
    return answer_list(call, store.subscriptions, found, "/v1/subscriptions")


def _status_wanted(subscription: Subscription, status: str | None) -> bool:
    match status:
        case None:
            return subscription.status != "canceled"
        case "all":
            return True
        case "ended":
            return subscription.status in ENDED
        case _:
            return subscription.status == status


def _update(call: Call) -> Json:
    params, world, subscription = call.params, call.world, _named(call)
    billing = world.billing
    if subscription.ended:
        raise ApiError(
            400, f"A {subscription.status} subscription can only update its cancellation_details and metadata."
        )
    proration = params.choice("proration_behavior", PRORATIONS) or "create_prorations"
    payment = params.choice("payment_behavior", PAYMENT_BEHAVIORS) or "allow_incomplete"
    wanted = params.children("items")
    change = read_change(billing, subscription, wanted) if wanted else None
    metadata, pause = params.metadata(subscription.metadata), _pause_collection(call)
    trial_end = trial_end_of(params, billing.now) if params.has("trial_end") else None
    planned = _planned_end(call)
    if change is not None and payment == "error_if_incomplete":
        refuse_unpayable(billing, subscription, change, proration)
    with world.journal.changing("customer.subscription.updated", subscription):
        if change is not None:
            apply_change(billing, subscription, change, proration=proration, payment=payment)
        _plan_end(call, subscription, planned)
        subscription.metadata = metadata
        if params.has("description"):
            subscription.description = params.text("description")
        if params.has("pause_collection"):
            subscription.pause_collection = pause
        if trial_end is not None:
            _move_trial(subscription, trial_end, billing.now)
        elif params.text("trial_end") == "now" and subscription.status == "trialing":
            # Everything then falls due at this very second.
            _move_trial(subscription, billing.now, billing.now)
    return world.journal.render(subscription)


def _move_trial(subscription: Subscription, trial_end: int, now: int) -> None:
    subscription.status = "trialing"
    subscription.trial_start = subscription.trial_start or now
    subscription.trial_end = subscription.anchor = trial_end
    for item in subscription.items:
        item.period_start = min(item.period_start, trial_end)
        item.anchor = item.period_end = trial_end


def _pause_collection(call: Call) -> PauseCollection | None:
    asked = call.params.child("pause_collection")
    if asked is None:
        return None
    behavior = asked.choice("behavior", ("keep_as_draft", "mark_uncollectible", "void"))
    if behavior is None:
        raise asked.required("behavior")
    return PauseCollection(behavior, moment_ahead(asked, "resumes_at", call.world.billing.now, years=5))


def _cancel(call: Call) -> Json:
    subscription = _named(call)
    if subscription.ended:
        raise missing("subscription", subscription.id)
    call.world.billing.cancel(subscription)
    return call.world.journal.render(subscription)


def _pause(call: Call) -> Json:
    subscription = _named(call)
    if (
        subscription.status not in ("active", "trialing", "past_due")
        or subscription.collection_method == "send_invoice"
    ):
        raise ApiError(400, f"This subscription is {subscription.status}, so it can't be paused.")
    call.world.billing.pause(subscription, "pause_requested")
    return call.world.journal.render(subscription)


def _resume(call: Call) -> Json:
    subscription = _named(call)
    behaviors = ("resume_on_payment_success", "resume_on_payment_attempt")
    behavior = call.params.choice("payment_behavior", behaviors) or behaviors[0]
    if subscription.status != "paused":
        raise ApiError(400, f"This subscription is {subscription.status}; only a paused one can be resumed.")
    call.world.billing.resume(subscription, wait_for_payment=behavior == behaviors[0])
    return call.world.journal.render(subscription)


def _list_items(call: Call) -> Json:
    params, store = call.params, call.world.store
    subscription = store.get(store.subscriptions, params.need("subscription"), param="subscription")
    rows = [item_json(item, subscription, store) for item in subscription.items]
    return answer_rows(call, rows, "subscription_item", "/v1/subscription_items")


def _get_item(call: Call) -> Json:
    found = call.world.store.find_item(call.path["id"])
    if found is None:
        raise missing("subscription_item", call.path["id"][:255])
    return item_json(found[1], found[0], call.world.store)


ENDPOINTS = (
    Endpoint("POST", "/v1/subscriptions", _create),
    Endpoint("GET", "/v1/subscriptions", _list),
    Endpoint("GET", "/v1/subscriptions/{id}", _get),
    Endpoint("POST", "/v1/subscriptions/{id}", _update),
    Endpoint("DELETE", "/v1/subscriptions/{id}", _cancel),
    Endpoint("POST", "/v1/subscriptions/{id}/pause", _pause),
    Endpoint("POST", "/v1/subscriptions/{id}/resume", _resume),
    Endpoint("GET", "/v1/subscription_items", _list_items),
    Endpoint("GET", "/v1/subscription_items/{id}", _get_item),
)
