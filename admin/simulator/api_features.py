"""Stripe's endpoints for Entitlements: features, which products come with them, and who has them now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.simulator.entities_features import Feature, ProductFeature
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list
from admin.simulator.wire import ApiError, missing

if TYPE_CHECKING:
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json

LONGEST_KEY = 80


def _create(call: Call) -> Json:
    params, store = call.params, call.world.store
    key = params.need("lookup_key")
    if len(key) > LONGEST_KEY:
        raise ApiError(400, f"A lookup key is at most {LONGEST_KEY} characters long.", param="lookup_key")
    if any(one.lookup_key == key for one in store.features.values()):
        raise ApiError(
            400,
            f"A feature with the lookup key {key} exists already.",
            code="resource_already_exists",
            param="lookup_key",
        )
    feature = Feature(
        store.new_id("feat"), key, params.need("name"), call.world.billing.now, metadata=params.metadata({})
    )
    store.features[feature.id] = feature
    return call.world.journal.render(feature)


def _get(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.features, call.path["id"]))


def _update(call: Call) -> Json:
    params, store = call.params, call.world.store
    feature = store.get(store.features, call.path["id"])
    active, metadata, name = params.flag("active"), params.metadata(feature.metadata), params.text("name")
    feature.active = feature.active if active is None else active
    feature.metadata, feature.name = metadata, name or feature.name
    return call.world.journal.render(feature)


def _list(call: Call) -> Json:
    params, store = call.params, call.world.store
    archived, key = params.flag("archived"), params.text("lookup_key")
    found = [
        one
        for one in store.features.values()
        if (archived is None or one.active != archived) and (key is None or one.lookup_key == key)
    ]
    return answer_list(call, store.features, found, "/v1/entitlements/features")


def _attach(call: Call) -> Json:
    params, store = call.params, call.world.store
    product = store.get(store.products, call.path["id"])
    feature = store.get(store.features, params.need("entitlement_feature"), param="entitlement_feature")
    if not feature.active:
        raise ApiError(400, f"The feature {feature.id} is archived.", param="entitlement_feature")
    if any(one.product == product.id and one.feature == feature.id for one in store.product_features.values()):
        raise ApiError(400, f"The feature {feature.id} is attached to {product.id} already.")
    attached = ProductFeature(store.new_id("prodft"), product.id, feature.id, call.world.billing.now)
    store.product_features[attached.id] = attached
    return call.world.journal.render(attached)


def _attached(call: Call) -> ProductFeature:
    store = call.world.store
    store.get(store.products, call.path["id"])
    found = store.product_features.get(call.path["feature"])
    if found is None or found.product != call.path["id"]:
        raise missing("product_feature", call.path["feature"][:255])
    return found


def _get_attached(call: Call) -> Json:
    return call.world.journal.render(_attached(call))


def _detach(call: Call) -> Json:
    found = _attached(call)
    del call.world.store.product_features[found.id]
    return {"id": found.id, "object": "product_feature", "deleted": True}


def _list_attached(call: Call) -> Json:
    store = call.world.store
    product = store.get(store.products, call.path["id"])
    found = [one for one in store.product_features.values() if one.product == product.id]
    return answer_list(call, store.product_features, found, f"/v1/products/{product.id}/features")


def _list_active(call: Call) -> Json:
    store = call.world.store
    customer = store.live_customer(call.params.need("customer"))
    return answer_list(
        call, store.entitlements, store.entitlements_of(customer.id), "/v1/entitlements/active_entitlements"
    )


def _get_active(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.entitlements, call.path["id"]))


ENDPOINTS = (
    Endpoint("POST", "/v1/entitlements/features", _create),
    Endpoint("GET", "/v1/entitlements/features", _list),
    Endpoint("GET", "/v1/entitlements/features/{id}", _get),
    Endpoint("POST", "/v1/entitlements/features/{id}", _update),
    Endpoint("GET", "/v1/entitlements/active_entitlements", _list_active),
    Endpoint("GET", "/v1/entitlements/active_entitlements/{id}", _get_active),
    Endpoint("POST", "/v1/products/{id}/features", _attach),
    Endpoint("GET", "/v1/products/{id}/features", _list_attached),
    Endpoint("GET", "/v1/products/{id}/features/{feature}", _get_attached),
    Endpoint("DELETE", "/v1/products/{id}/features/{feature}", _detach),
)
