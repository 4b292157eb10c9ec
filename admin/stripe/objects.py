"""What we read of Stripe's objects, from any API version since 2020.

It decides where a field lives: the period on the item (2025-03-31 and later) or on the subscription, `price` or `plan`,
a customer as id, as object or as account. It must never do I/O, and never raise on what Stripe, or someone who claims to
be Stripe, sends: what can't be read is a `Malformed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from admin.stripe.fields import (
    Json,
    UnreadableError,
    child,
    entries,
    identifier,
    mapping,
    merchant_id,
    moment,
    reference,
    required_id,
    text,
    whole,
)
from policies.caller import customer_problem
from policies.facts import ItemFact, SubscriptionFact

CLAIM_KEY: Final = "gateway_customer"
"""The metadata key by which a customer or a subscription names whom it belongs to."""

PRICE_KEY: Final = "gateway_price"
"""The metadata key by which a Checkout session names the price it sells: line items would cost a call."""

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Malformed:
    """An object that isn't what Stripe documents. `detail` names the field, never its value."""

    detail: str


@dataclass(frozen=True, slots=True)
class ReadSubscription:
    """A subscription, whose it is, and whether items are missing: Stripe cuts the list at ten."""

    fact: SubscriptionFact
    item_ids: tuple[str, ...]
    stripe_customer: str | None
    claim: str | None
    has_more_items: bool


@dataclass(frozen=True, slots=True)
class ReadCustomer:
    """A Stripe customer; `deleted` ones keep nothing but their id."""

    id: str
    deleted: bool
    claim: str | None


@dataclass(frozen=True, slots=True)
class ReadInvoice:
    """An invoice as past_due grace needs it. `owed_since` is `due_date`, else `created`."""

    id: str
    status: str
    owed_since: int
    hosted_invoice_url: str | None


@dataclass(frozen=True, slots=True)
class ReadSession:
    """A Checkout session. `claim` is its `client_reference_id`, else what its metadata names."""

    id: str
    status: str
    url: str | None
    stripe_customer: str | None
    claim: str | None
    price: str | None
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class ReadPrice:
    """A price as it is sold. `amount` is None for tiered and custom prices."""

    id: str
    product: str
    lookup_key: str | None
    active: bool
    amount: int | None
    currency: str
    interval: str | None
    interval_count: int
    metered: bool


def read_subscription(source: object) -> ReadSubscription | Malformed:
    """The facts of one subscription, in whichever shape it was sent."""
    return _read(_subscription, source)


def read_items(source: object, subscription: Json) -> tuple[tuple[str, ItemFact], ...] | Malformed:
    """The items of one page of `/v1/subscription_items`, with their ids; `subscription` lends the older period."""
    return _read(lambda page: _items(entries(page, "data"), subscription), source)


def read_customer(source: object) -> ReadCustomer | Malformed:
    """A customer as retrieved, deleted or not."""
    return _read(_customer, source)


def read_invoice(source: object) -> ReadInvoice | Malformed:
    """One invoice."""
    return _read(_invoice, source)


def read_session(source: object) -> ReadSession | Malformed:
    """One Checkout session."""
    return _read(_session, source)


def read_price(source: object) -> ReadPrice | Malformed:
    """One price."""
    return _read(_price, source)


def customer_of(source: Json) -> str | None:
    """The Stripe customer that an object belongs to: `customer`, else `customer_account` (Accounts v2)."""
    return reference(source.get("customer")) or reference(source.get("customer_account"))


def claim_of(source: Json) -> str | None:
    """The gateway customer that an object's metadata names, if it can be one."""
    return _as_customer(child(source, "metadata").get(CLAIM_KEY))


def with_items(subscription: ReadSubscription, items: tuple[tuple[str, ItemFact], ...]) -> ReadSubscription:
    """`subscription` with all of its items, in place of the first ten that came with it."""
    return replace(
        subscription,
        fact=replace(subscription.fact, items=tuple(item for _, item in items)),
        item_ids=tuple(item_id for item_id, _ in items),
        has_more_items=False,
    )


def _read(reader: Callable[[Json], _Read], source: object) -> _Read | Malformed:
    try:
        return reader(mapping(source, "the object"))
    except UnreadableError as problem:
        return Malformed(str(problem))


def _subscription(source: Json) -> ReadSubscription:
    subscription_id = required_id(source, "id", "a subscription")
    what = f"subscription {subscription_id}"
    status = required_id(source, "status", what)
    listed = child(source, "items")
    found = _items(entries(listed, "data"), source)
    if not listed and isinstance(source.get("plan"), dict):  # one plan and no items: how subscriptions began
        found = ((subscription_id, _item({**source, "current_period_start": None}, source)),)
    fact = SubscriptionFact(
        id=subscription_id,
        status=status,
        items=tuple(item for _, item in found),
        created=moment(source, "created", what) or moment(source, "start_date", what) or 0,
        trial_end=moment(source, "trial_end", what),
        cancel_at=moment(source, "cancel_at", what),
        cancel_at_period_end=source.get("cancel_at_period_end") is True,
        ended_at=moment(source, "ended_at", what),
    )
    return ReadSubscription(
        fact=fact,
        item_ids=tuple(item_id for item_id, _ in found),
        stripe_customer=customer_of(source),
        claim=claim_of(source),
        has_more_items=listed.get("has_more") is True,
    )


def _items(data: object, subscription: Json) -> tuple[tuple[str, ItemFact], ...]:
    items = []
    for entry in data if isinstance(data, list | tuple) else ():
        item = mapping(entry, "an item")
        if item.get("deleted") is not True:
            items.append((required_id(item, "id", "an item"), _item(item, subscription)))
    return tuple(items)


def _item(item: Json, subscription: Json) -> ItemFact:
    what = f"item {identifier(item.get('id')) or '?'}"
    price = item.get("price") if isinstance(item.get("price"), dict) else item.get("plan")
    if not isinstance(price, dict):
        price = {"id": item.get("price") or item.get("plan")}
    price_id = merchant_id(price)
    if price_id is None:
        raise UnreadableError(f"{what} has neither price nor plan")
    usage = child(price, "recurring").get("usage_type") or price.get("usage_type")
    period_start = moment(item, "current_period_start", what)
    period_end = moment(item, "current_period_end", what)
    return ItemFact(
        price=price_id,
        product=merchant_id(price.get("product")) or "",
        lookup_key=text(price, "lookup_key", 255),
        period_start=moment(subscription, "current_period_start", what) if period_start is None else period_start,
        period_end=moment(subscription, "current_period_end", what) if period_end is None else period_end,
        quantity=None if usage == "metered" else whole(item, "quantity"),
    )


def _customer(source: Json) -> ReadCustomer:
    return ReadCustomer(
        id=required_id(source, "id", "a customer"), deleted=source.get("deleted") is True, claim=claim_of(source)
    )


def _invoice(source: Json) -> ReadInvoice:
    invoice_id = required_id(source, "id", "an invoice")
    what = f"invoice {invoice_id}"
    owed_since = moment(source, "due_date", what)
    if owed_since is None:
        owed_since = moment(source, "created", what)
    if owed_since is None:
        raise UnreadableError(f"{what} has neither due_date nor created")
    return ReadInvoice(
        id=invoice_id,
        status=required_id(source, "status", what),
        owed_since=owed_since,
        hosted_invoice_url=_web_address(source, "hosted_invoice_url"),
    )


def _session(source: Json) -> ReadSession:
    session_id = required_id(source, "id", "a Checkout session")
    what = f"Checkout session {session_id}"
    return ReadSession(
        id=session_id,
        status=identifier(source.get("status")) or "open",
        url=_web_address(source, "url"),
        stripe_customer=customer_of(source),
        claim=_as_customer(source.get("client_reference_id")) or claim_of(source),
        price=merchant_id(child(source, "metadata").get(PRICE_KEY)),
        expires_at=moment(source, "expires_at", what),
    )


def _price(source: Json) -> ReadPrice:
    price_id = merchant_id(source)
    product = merchant_id(source.get("product"))
    if price_id is None or product is None:
        raise UnreadableError("a price has no usable id or product")
    what = f"price {price_id}"
    recurring = child(source, "recurring")
    return ReadPrice(
        id=price_id,
        product=product,
        lookup_key=text(source, "lookup_key", 255),
        active=source.get("active") is not False,
        amount=whole(source, "unit_amount"),
        currency=required_id(source, "currency", what),
        interval=identifier(recurring.get("interval")),
        interval_count=whole(recurring, "interval_count") or 1,
        metered=recurring.get("usage_type") == "metered",
    )


def _as_customer(value: object) -> str | None:
    return value if isinstance(value, str) and customer_problem(value) is None else None


def _web_address(source: Json, key: str) -> str | None:
    """Stripe's own pages only ever have http(s) addresses; anything else must not end up in a Location header."""
    address = text(source, key)
    return address if address is not None and address.startswith(("https://", "http://")) else None
