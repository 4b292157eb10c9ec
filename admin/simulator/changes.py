"""A change of plan in the middle of a period: which items there are afterwards, and what it costs.

It decides prorations to the second and when a change waits for its payment (`pending_update`). It must never leave a
subscription half changed: everything that can be refused is refused before the first item moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from admin.simulator.entities import Item, PendingUpdate
from admin.simulator.wire import ApiError, missing
from policies.money import format_offer
from policies.offers import Offer

if TYPE_CHECKING:
    from admin.simulator.billing import Billing
    from admin.simulator.entities import Line, Price, Subscription
    from admin.simulator.wire import Params

PENDING_SECONDS = 23 * 3600
MOST_LISTED = 20
PRORATIONS = ("always_invoice", "create_prorations", "none")
PAYMENT_BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete")
_UNCHARGED = ("trialing", "paused", "incomplete")


@dataclass(frozen=True, slots=True)
class Change:
    """The items as they will be, what that costs now, and whether the billing day moves to today.

    `prorations` gives back the rest of what was had, and charges the rest of what is had from now on. `is_charged` is
    false where nothing that costs anything changes, or nothing is being paid for at present.
    """

    items: list[Item]
    prorations: list[Line]
    restarts: bool
    is_charged: bool


def read_change(billing: Billing, subscription: Subscription, wanted: list[Params]) -> Change:
    """What `items[]` of an update asks for; raises ApiError for what can't be."""
    items = billing.copies(subscription)
    by_id = {item.id: item for item in items}
    restarts = False
    for one in wanted:
        identifier = one.text("id")
        if identifier is not None and identifier not in by_id:
            raise missing("subscription_item", identifier, param=one.name("id"), status=400)
        if identifier is not None and one.flag("deleted"):
            items.remove(by_id.pop(identifier))
            continue
        price = one.text("price")
        if price is not None:
            recurring_price(billing, price, one.name("price"), subscription.currency)
        quantity = one.whole("quantity", least=0, most=1_000_000)
        if identifier is None:
            price = one.need("price")
            _refuse_twice(items, price, one)
            items.append(new_item(billing, subscription, price, 1 if quantity is None else quantity))
            continue
        item = by_id[identifier]
        if price is not None and price != item.price:
            _refuse_twice(items, price, one)
            old, new = billing.store.prices[item.price], billing.store.prices[price]
            restarts |= (old.interval, old.interval_count) != (new.interval, new.interval_count)
            item.price = price
        item.quantity = item.quantity if quantity is None else quantity
        item.metadata = one.metadata(item.metadata)
    if not items:
        raise ApiError(
            400, "A subscription must have at least one active plan. To remove the last item, cancel it.", param="items"
        )
    restarts = restarts and subscription.status not in _UNCHARGED
    if restarts:
        for item in items:
            item.anchor = item.period_start = billing.now
            item.period_end = billing.period_from(item.price, billing.now, billing.now)
    is_charged = subscription.status not in _UNCHARGED and _bought(items) != _bought(subscription.items)
    return Change(items, _prorations(billing, subscription, items, restarts=restarts), restarts, is_charged)


def new_item(billing: Billing, subscription: Subscription, price: str, quantity: int) -> Item:
    """A further item; its period runs with the subscription's trial or anchor."""
    now, ends = billing.now, subscription.trial_end
    if ends is None or ends <= now:
        ends = billing.period_from(price, subscription.anchor, now)
    return Item(billing.store.new_id("si"), price, quantity, now, subscription.anchor, now, ends)


def recurring_price(billing: Billing, price: str, param: str, currency: str | None = None) -> None:
    """Refuse a price that can't be subscribed to."""
    if price not in billing.store.prices:
        sold = [price_in_words(one) for one in billing.store.prices.values() if one.active and one.interval is not None]
        more = f" and {len(sold) - MOST_LISTED} more" if len(sold) > MOST_LISTED else ""
        raise ApiError(
            400,
            f"No such price: '{price[:255]}'. The simulator sells what the tiers of gateway.yaml name: "
            f"{', '.join(sold[:MOST_LISTED])}{more}.",
            code="resource_missing",
            param=param,
        )
    found = billing.store.prices[price]
    if found.interval is None:
        raise ApiError(400, f"The price {price} is one-time; a subscription needs a recurring price.", param=param)
    if not found.active:
        raise ApiError(400, f"The price {price} is inactive, so it can't be subscribed to.", param=param)
    if currency is not None and found.currency != currency:
        raise ApiError(400, f"The price {price} is in {found.currency}; the others are in {currency}.", param=param)


def price_in_words(price: Price) -> str:
    """`price_pro (29.00 USD per month)`."""
    offer = Offer("", price.id, price.unit_amount, price.currency, price.interval, price.interval_count)
    return f"{price.id} ({format_offer(offer)})"


def refuse_unpayable(billing: Billing, subscription: Subscription, change: Change, proration: str) -> None:
    """`payment_behavior=error_if_incomplete`: what can't be charged at once is refused before anything changes."""
    charged_now = change.is_charged and (change.restarts or proration == "always_invoice")
    if charged_now and _is_declined(billing, subscription, _charged(billing, change, proration)):
        raise billing.invoicing.decline(billing.store.customers[subscription.customer])


def apply_change(billing: Billing, subscription: Subscription, change: Change, *, proration: str, payment: str) -> None:
    """Put the change in force, or leave it pending. To be called within the event that says it."""
    if not change.is_charged or (proration == "none" and not change.restarts):
        subscription.items = change.items
        return
    lines = _charged(billing, change, proration)
    if proration == "create_prorations" and not change.restarts:
        subscription.items = change.items
        subscription.owed_prorations += lines
        return
    charges = subscription.collection_method == "charge_automatically" and not subscription.ended
    if payment == "pending_if_incomplete" and _is_declined(billing, subscription, lines):
        invoice = billing.invoicing.draft(subscription, "subscription_update", lines, finalizes_in=None)
        subscription.pending_update = PendingUpdate(change.items, invoice.id, billing.now + PENDING_SECONDS)
        billing.pay_now(invoice)
        return
    subscription.items = change.items
    if change.restarts:
        subscription.anchor = billing.now
    invoice = billing.invoicing.draft(subscription, "subscription_update", lines, finalizes_in=0)
    billing.invoicing.finalize(invoice, days_until_due=subscription.days_until_due)
    if charges:
        # Charged by the schedule at this very second, after the change itself has been said.
        invoice.next_payment_attempt = billing.now


def _charged(billing: Billing, change: Change, proration: str) -> list[Line]:
    """What is billed at once: the rest of the period, or where a new one begins without prorations all of it."""
    return change.prorations if proration != "none" else [billing.line(item) for item in change.items]


def _is_declined(billing: Billing, subscription: Subscription, lines: list[Line]) -> bool:
    amount = sum(line.amount for line in lines)
    customer = billing.store.customers[subscription.customer]
    automatic = subscription.collection_method == "charge_automatically"
    return automatic and amount + customer.balance > 0 and customer.card in ("fails", "none")


def _refuse_twice(items: list[Item], price: str, one: Params) -> None:
    if any(item.price == price for item in items):
        raise ApiError(400, f"The subscription already has an item with the price {price}.", param=one.name("price"))


def _bought(items: list[Item]) -> list[tuple[str, str, int]]:
    return [(item.id, item.price, item.quantity) for item in items]


def _prorations(billing: Billing, subscription: Subscription, items: list[Item], *, restarts: bool) -> list[Line]:
    """The rest of the period: less what was paid for it before, and its price afterwards; nothing during a trial."""
    if subscription.status in _UNCHARGED:
        return []
    before = {item.id: item for item in subscription.items}
    after = {item.id: item for item in items}
    lines: list[Line] = []
    for identifier in [*before, *(new for new in after if new not in before)]:
        old, new = before.get(identifier), after.get(identifier)
        if (
            not restarts
            and old is not None
            and new is not None
            and (old.price, old.quantity) == (new.price, new.quantity)
        ):
            continue
        lines += _rest(billing, old, "Unused time on", -1)
        lines += _rest(billing, new, "Remaining time on", 1)
    return lines


def _rest(billing: Billing, item: Item | None, what: str, sign: int) -> list[Line]:
    """What is left of an item's period, as a line of its own; none where nothing is."""
    if item is None or item.quantity == 0 or item.period_end <= item.period_start:
        return []
    left = max(0, item.period_end - billing.now)
    whole = billing.line(item)
    amount = sign * round(whole.amount * left / (item.period_end - item.period_start))
    return [
        replace(
            whole, description=f"{what} {whole.description}", amount=amount, period_start=billing.now, proration=True
        )
    ]
