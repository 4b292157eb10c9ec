"""Stripe's endpoints for the account, products and prices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from admin.simulator.entities import Price, Product
from admin.simulator.periods import INTERVALS, LONGEST_COUNT
from admin.simulator.protocol import Endpoint
from admin.simulator.reading import answer_list
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from admin.simulator.periods import Interval
    from admin.simulator.protocol import Call
    from admin.simulator.wire import Json, Params


def _account(call: Call) -> Json:
    return {
        "id": call.world.account,
        "object": "account",
        "business_profile": {"name": "Simulated account", "url": None},
        "business_type": None,
        "charges_enabled": True,
        "country": "US",
        "created": 1,
        "default_currency": "usd",
        "details_submitted": True,
        "email": None,
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Simulated account", "timezone": "Etc/UTC"}},
        "type": "standard",
    }


def _create_product(call: Call) -> Json:
    params, store = call.params, call.world.store
    now = call.world.billing.now
    identifier = params.text("id") or store.new_id("prod")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", identifier):
        raise ApiError(400, "A product's id may hold letters, digits, '_', '-' and '.'.", param="id")
    if identifier in store.products:
        raise ApiError(400, f"Product already exists: {identifier}", code="resource_already_exists", param="id")
    product = Product(
        identifier, params.need("name"), now, now, params.text("description"), metadata=params.metadata({})
    )
    product.active = params.flag("active") is not False
    default = params.child("default_price_data")
    price = _price(call, default, product) if default is not None else None
    store.products[product.id] = product
    if price is not None:
        store.prices[price.id] = price
        product.default_price = price.id
        call.world.journal.say("price.created", price)
    call.world.journal.say("product.created", product)
    return call.world.journal.render(product)


def _update_product(call: Call) -> Json:
    params, store = call.params, call.world.store
    product = store.get(store.products, call.path["id"])
    metadata = params.metadata(product.metadata)
    name, active, default = params.text("name"), params.flag("active"), params.text("default_price")
    if default is not None and store.get(store.prices, default, param="default_price").product != product.id:
        raise ApiError(400, f"The price {default} belongs to another product.", param="default_price")
    with call.world.journal.changing("product.updated", product):
        product.metadata = metadata
        product.name = name or product.name
        product.active = product.active if active is None else active
        product.default_price = default if params.has("default_price") else product.default_price
        product.description = params.text("description") if params.has("description") else product.description
        product.updated = call.world.billing.now
    return call.world.journal.render(product)


def _get_product(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.products, call.path["id"]))


def _list_products(call: Call) -> Json:
    store, active, ids = call.world.store, call.params.flag("active"), call.params.texts("ids")
    found = [
        one
        for one in store.products.values()
        if (active is None or one.active == active) and (not ids or one.id in ids)
    ]
    return answer_list(call, store.products, found, "/v1/products")


def _price(call: Call, params: Params, product: Product) -> Price:
    recurring = params.child("recurring")
    interval = recurring.choice("interval", INTERVALS) if recurring is not None else None
    if recurring is not None and interval is None:
        raise recurring.required("interval")
    known = cast("Interval | None", interval)
    count = recurring.whole("interval_count", least=1, most=LONGEST_COUNT[known]) if recurring and known else None
    amount = params.whole("unit_amount", least=0)
    if amount is None:
        raise params.required("unit_amount")
    currency = params.need("currency").lower()
    if not re.fullmatch(r"[a-z]{3}", currency):
        raise ApiError(
            400, f"Invalid currency: {currency[:20]}. It has three letters, such as usd.", param=params.name("currency")
        )
    return Price(
        id=call.world.store.new_id("price"),
        product=product.id,
        currency=currency,
        unit_amount=amount,
        created=call.world.billing.now,
        interval=known,
        interval_count=count or 1,
        lookup_key=params.text("lookup_key"),
        nickname=params.text("nickname"),
        metadata=params.metadata({}),
    )


def _claim_key(call: Call, lookup_key: str | None, owner: Price | None) -> Price | None:
    """Who has to give up this lookup key; refuses where a transfer was not asked for."""
    holder = call.world.store.price_with_key(lookup_key) if lookup_key is not None else None
    if holder is None or holder is owner:
        return None
    if not call.params.flag("transfer_lookup_key"):
        raise ApiError(
            400,
            f"A price ({holder.id}) already uses that lookup key; send transfer_lookup_key to move it.",
            param="lookup_key",
        )
    return holder


def _create_price(call: Call) -> Json:
    params, world = call.params, call.world
    data = params.child("product_data")
    if data is not None:
        product = Product(world.store.new_id("prod"), data.need("name"), world.billing.now, world.billing.now)
    else:
        product = world.store.get(world.store.products, params.need("product"), param="product")
    price = _price(call, params, product)
    holder = _claim_key(call, price.lookup_key, None)
    price.active = params.flag("active") is not False
    if data is not None:
        world.store.products[product.id] = product
        world.journal.say("product.created", product)
    if holder is not None:
        with world.journal.changing("price.updated", holder):
            holder.lookup_key = None
    world.store.prices[price.id] = price
    world.journal.say("price.created", price)
    return world.journal.render(price)


def _update_price(call: Call) -> Json:
    params, world = call.params, call.world
    price = world.store.get(world.store.prices, call.path["id"])
    metadata, active, key = params.metadata(price.metadata), params.flag("active"), params.text("lookup_key")
    holder = _claim_key(call, key, price)
    if holder is not None:
        with world.journal.changing("price.updated", holder):
            holder.lookup_key = None
    with world.journal.changing("price.updated", price):
        price.metadata = metadata
        price.active = price.active if active is None else active
        price.lookup_key = key if params.has("lookup_key") else price.lookup_key
        price.nickname = params.text("nickname") if params.has("nickname") else price.nickname
    return world.journal.render(price)


def _get_price(call: Call) -> Json:
    store = call.world.store
    return call.world.journal.render(store.get(store.prices, call.path["id"]))


def _list_prices(call: Call) -> Json:
    store, params = call.world.store, call.params
    active, product, keys = params.flag("active"), params.text("product"), params.texts("lookup_keys")
    currency, kind = params.text("currency"), params.choice("type", ("recurring", "one_time"))
    if len(keys) > 10:
        raise ApiError(400, "lookup_keys holds at most 10 keys.", param="lookup_keys")
    found = [
        one
        for one in store.prices.values()
        if (active is None or one.active == active)
        and (product is None or one.product == product)
        and (not keys or one.lookup_key in keys)
        and (currency is None or one.currency == currency)
        and (kind is None or (one.interval is not None) == (kind == "recurring"))
    ]
    return answer_list(call, store.prices, found, "/v1/prices")


ENDPOINTS = (
    Endpoint("GET", "/v1/account", _account),
    Endpoint("POST", "/v1/products", _create_product),
    Endpoint("GET", "/v1/products", _list_products),
    Endpoint("GET", "/v1/products/{id}", _get_product),
    Endpoint("POST", "/v1/products/{id}", _update_product),
    Endpoint("POST", "/v1/prices", _create_price),
    Endpoint("GET", "/v1/prices", _list_prices),
    Endpoint("GET", "/v1/prices/{id}", _get_price),
    Endpoint("POST", "/v1/prices/{id}", _update_price),
)
