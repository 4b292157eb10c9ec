"""Stripe's endpoints for the Billing portal: its configurations and sessions.

It decides which flows a configuration allows, as strictly as Stripe: a plan that it does not list can't be confirmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.changes import PRORATIONS, read_change, recurring_price
from admin.simulator.entities import PortalConfiguration, PortalSession
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list, url
from admin.simulator.wire import ApiError, Params

if TYPE_CHECKING:
    from admin.simulator.entities import Subscription
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

FLOWS = ("payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm")
_TOGGLES = ("customer_update", "invoice_history", "payment_method_update", "subscription_cancel", "subscription_update")


def standard_features() -> Json:
    """What a portal offers where nothing was configured: everything but a change of plan, as Stripe starts out."""
    return {
        "customer_update": {"allowed_updates": [], "enabled": False},
        "invoice_history": {"enabled": True},
        "payment_method_update": {"enabled": True, "payment_method_configuration": None},
        "subscription_cancel": {
            "cancellation_reason": {"enabled": False, "options": []},
            "enabled": True,
            "mode": "at_period_end",
            "proration_behavior": "none",
        },
        "subscription_update": {
            "billing_cycle_anchor": None,
            "default_allowed_updates": [],
            "enabled": False,
            "proration_behavior": "none",
            "schedule_at_period_end": {"conditions": []},
            "trial_update_behavior": "end_trial",
        },
    }


def _read_features(call: Call, features: Json, products: list[Json]) -> tuple[Json, list[Json]]:
    """The features and products after what was sent; what was not sent stays."""
    sent = call.params.table("features")
    unknown = [name for name in sent.tree if name not in _TOGGLES]
    if unknown:
        name = sent.name(unknown[0])
        raise ApiError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    result = {name: dict(value) for name, value in features.items()}
    for name in sent.tree:
        feature = sent.table(name)
        enabled = feature.flag("enabled")
        if enabled is not None:
            result[name]["enabled"] = enabled
    cancel, update = sent.table("subscription_cancel"), sent.table("subscription_update")
    mode = cancel.choice("mode", ("at_period_end", "immediately"))
    if mode is not None:
        result["subscription_cancel"]["mode"] = mode
    proration = update.choice("proration_behavior", PRORATIONS)
    if proration is not None:
        result["subscription_update"]["proration_behavior"] = proration
    if update.has("default_allowed_updates"):
        result["subscription_update"]["default_allowed_updates"] = update.texts("default_allowed_updates")
    customer = sent.table("customer_update")
    if customer.has("allowed_updates"):
        result["customer_update"]["allowed_updates"] = customer.texts("allowed_updates")
    listed = [_read_product(call, one) for one in update.children("products")] if update.has("products") else products
    named = [one["product"] for one in listed]
    if len(set(named)) < len(named):
        raise ApiError(400, "A product may be listed once only.", param=update.name("products"))
    if result["subscription_update"]["enabled"] and not listed:
        raise update.required("products")
    if result["subscription_update"]["enabled"] and not result["subscription_update"]["default_allowed_updates"]:
        raise update.required("default_allowed_updates")
    return result, listed


def _read_product(call: Call, sent: Params) -> Json:
    store, product, prices = call.world.store, sent.need("product"), sent.texts("prices")
    store.get(store.products, product, param=sent.name("product"))
    if not prices:
        raise sent.required("prices")
    rhythms = set()
    for price in prices:
        recurring_price(call.world.billing, price, sent.name("prices"))
        found = store.prices[price]
        if found.product != product:
            raise ApiError(
                400, f"The price {price} belongs to {found.product}, not to {product}.", param=sent.name("prices")
            )
        if (found.interval, found.interval_count, found.currency) in rhythms:
            raise ApiError(
                400,
                f"Two prices of {product} have the same billing interval; the portal takes one of each.",
                param=sent.name("prices"),
            )
        rhythms.add((found.interval, found.interval_count, found.currency))
    adjustable = {"enabled": False, "maximum": None, "minimum": 1}
    return {"adjustable_quantity": adjustable, "prices": prices, "product": product}


def _profile(params: Params, before: Json) -> Json:
    sent = params.table("business_profile")
    known = ("headline", "privacy_policy_url", "terms_of_service_url")
    return {name: sent.text(name) if sent.has(name) else before.get(name) for name in known}


def _create_configuration(call: Call) -> Json:
    params, world = call.params, call.world
    if params.child("features") is None:
        raise params.required("features")
    off: Json = {name: {**feature, "enabled": False} for name, feature in standard_features().items()}
    features, products = _read_features(call, off, [])
    now = world.billing.now
    configuration = PortalConfiguration(
        id=world.store.new_id("bpc"),
        created=now,
        updated=now,
        is_default=False,
        active=True,
        name=params.text("name"),
        default_return_url=url(params, "default_return_url"),
        business_profile=_profile(params, {}),
        features=features,
        products=products,
        metadata=params.metadata({}),
    )
    world.store.portal_configurations[configuration.id] = configuration
    world.journal.say("billing_portal.configuration.created", configuration)
    return world.journal.render(configuration)


def _update_configuration(call: Call) -> Json:
    params, world = call.params, call.world
    configuration = world.store.get(world.store.portal_configurations, call.path["id"])
    features, products = _read_features(call, configuration.features, configuration.products)
    metadata, active = params.metadata(configuration.metadata), params.flag("active")
    return_url, profile = url(params, "default_return_url"), _profile(params, configuration.business_profile)
    if active is False and configuration.is_default:
        raise ApiError(400, "The default configuration can't be made inactive.", param="active")
    with world.journal.changing("billing_portal.configuration.updated", configuration):
        configuration.features, configuration.products, configuration.metadata = features, products, metadata
        configuration.business_profile = profile
        configuration.active = configuration.active if active is None else active
        configuration.name = params.text("name") if params.has("name") else configuration.name
        if params.has("default_return_url"):
            configuration.default_return_url = return_url
        configuration.updated = world.billing.now
    return world.journal.render(configuration)


def _get_configuration(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.portal_configurations, call.path["id"]))


def _list_configurations(call: Call) -> Json:
    params, store = call.params, call.world.store
    active, is_default = params.flag("active"), params.flag("is_default")
    found = [
        one
        for one in store.portal_configurations.values()
        if (active is None or one.active == active) and (is_default is None or one.is_default == is_default)
    ]
    return answer_list(call, store.portal_configurations, found, "/v1/billing_portal/configurations")


def _create_session(call: Call) -> Json:
    params, world = call.params, call.world
    customer = world.store.live_customer(params.need("customer"))
    named = params.text("configuration")
    if named is not None:
        configuration = world.store.get(world.store.portal_configurations, named, param="configuration")
        if not configuration.active:
            raise ApiError(400, f"The portal configuration {named} is inactive.", param="configuration")
    else:
        configuration = next(one for one in world.store.portal_configurations.values() if one.is_default)
    flow_data = params.child("flow_data")
    session = PortalSession(
        id=world.store.new_id("bps"),
        created=world.billing.now,
        customer=customer.id,
        configuration=configuration.id,
        return_url=url(params, "return_url") or configuration.default_return_url,
        locale=params.text("locale"),
        flow=_flow(call, flow_data, configuration, customer.id) if flow_data is not None else None,
    )
    world.store.portal_sessions[session.id] = session
    world.journal.say("billing_portal.session.created", session)
    return world.journal.render(session)


def _flow(call: Call, sent: Params, configuration: PortalConfiguration, customer: str) -> Json:
    kind = sent.choice("type", FLOWS)
    if kind is None:
        raise sent.required("type")
    feature = {"subscription_update_confirm": "subscription_update"}.get(kind, kind)
    if not configuration.features[feature]["enabled"]:
        raise ApiError(
            400,
            f"This flow can't be used because the {feature.replace('_', ' ')} feature in the portal configuration "
            f"{configuration.id} is disabled.",
            param=sent.name("type"),
        )
    details: Json = dict.fromkeys(FLOWS[1:])
    if kind != "payment_method_update":
        target = sent.child(kind)
        if target is None:
            raise sent.required(kind)
        subscription = call.world.store.get(
            call.world.store.subscriptions, target.need("subscription"), param=target.name("subscription")
        )
        if subscription.customer != customer or subscription.ended:
            raise ApiError(
                400,
                f"The subscription {subscription.id} is not a running one of {customer}.",
                param=target.name("subscription"),
            )
        details[kind] = {"subscription": subscription.id}
        if kind == "subscription_update_confirm":
            details[kind] |= {"discounts": None, "items": _confirmed_items(call, target, configuration, subscription)}
        elif kind == "subscription_cancel":
            details[kind]["retention"] = None
    return {"after_completion": _after_completion(sent), "type": kind, **details}


def _confirmed_items(
    call: Call, target: Params, configuration: PortalConfiguration, subscription: Subscription
) -> list[Json]:
    items = target.children("items")
    if len(items) != 1:
        raise ApiError(400, "Exactly one item must be given to confirm.", param=target.name("items"))
    item, sellable = items[0], {price for product in configuration.products for price in product["prices"]}
    item.need("id")
    price = item.need("price")
    if price not in sellable:
        raise ApiError(
            400,
            f"The price {price} is not among the products of the portal configuration {configuration.id}.",
            param=item.name("price"),
        )
    change = read_change(call.world.billing, subscription, items)
    if change.items == subscription.items:
        raise ApiError(400, "The subscription update has no changes to confirm.", param=target.name("items"))
    return [{"id": item.need("id"), "price": price, "quantity": item.whole("quantity") or 1}]


def _after_completion(sent: Params) -> Json:
    after = sent.table("after_completion")
    kind = after.choice("type", ("hosted_confirmation", "portal_homepage", "redirect")) or "portal_homepage"
    redirect = after.table("redirect")
    if kind == "redirect" and url(redirect, "return_url") is None:
        raise redirect.required("return_url")
    confirmation = {"custom_message": after.table("hosted_confirmation").text("custom_message")}
    return {
        "hosted_confirmation": confirmation if kind == "hosted_confirmation" else None,
        "redirect": {"return_url": url(redirect, "return_url")} if kind == "redirect" else None,
        "type": kind,
    }


ENDPOINTS = (
    Endpoint("POST", "/v1/billing_portal/configurations", _create_configuration),
    Endpoint("GET", "/v1/billing_portal/configurations", _list_configurations),
    Endpoint("GET", "/v1/billing_portal/configurations/{id}", _get_configuration),
    Endpoint("POST", "/v1/billing_portal/configurations/{id}", _update_configuration),
    Endpoint("POST", "/v1/billing_portal/sessions", _create_session),
)
