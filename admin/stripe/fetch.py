"""What Stripe says of one of its customers, now: the only source of facts.

It decides which calls make up one look, all of them within ten seconds: every subscription in every status on every
page, all items, the oldest open invoice of those past due, and whose customer it says it is. It must never return half
of that: a look that could not be finished is a `Failed`, and what was known stays in force.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from admin.stripe.budget import Priority
from admin.stripe.client import Failure, StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.fields import Json, child, reference
from admin.stripe.objects import (
    Malformed,
    ReadCustomer,
    ReadInvoice,
    ReadSubscription,
    read_customer,
    read_invoice,
    read_items,
    read_session,
    read_subscription,
    with_items,
)
from admin.stripe.payments import MovedOn, Wanted, features_of, with_payments
from policies.facts import SubscriptionFact

LOOK_SECONDS: Final = 10.0
NOTHING_MORE: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Fetched:
    """One customer of Stripe's as it is. `own_claim` is from its own metadata, the merchant's word.

    `other_claims` are from its subscriptions' metadata and from Checkout sessions that completed. `features` are those
    that Stripe's Entitlements grant, where they were wanted.
    """

    subscriptions: tuple[SubscriptionFact, ...]
    item_ids: dict[str, tuple[str, ...]]
    deleted: bool = False
    own_claim: str | None = None
    other_claims: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was learned. `unavailable`: about anybody else there would be no answer either, from a Stripe that is away
    or doesn't take the key; else it is about this one alone.
    """

    detail: str
    unavailable: bool = True
    retry_after: float | None = None


async def fetch_customer(
    gateway: StripeGateway,
    stripe_customer: str,
    priority: Priority,
    seconds: float = LOOK_SECONDS,
    wanted: Wanted = NOTHING_MORE,
) -> Fetched | Failed:
    """Look once, within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await _look(gateway, stripe_customer, priority, wanted)
    except TimeoutError:
        return Failed("Stripe took too long to tell all of a customer")


async def session_claims(gateway: StripeGateway, stripe_customer: str, priority: Priority) -> tuple[str, ...] | Failed:
    """Whom the customer's completed Checkout sessions name: asked only where nothing else says whose it is."""
    answer = await gateway.list_all(
        "/v1/checkout/sessions", {**payer(stripe_customer), "status": "complete"}, priority=priority
    )
    if isinstance(answer, StripeRefused):
        return ()  # a restricted key may not see sessions; the event of the session says it, too
    if isinstance(answer, StripeUnavailable):
        return failed(answer)
    sessions = [session for entry in answer if not isinstance(session := read_session(entry), Malformed)]
    return tuple(session.claim for session in sessions if session.status == "complete" and session.claim)


async def open_invoices(
    gateway: StripeGateway, subscription: str, priority: Priority
) -> tuple[ReadInvoice, ...] | Failure:
    """The subscription's open invoices, the longest owed first. One that can't be read is left out."""
    query = {"subscription": subscription, "status": "open"}
    answer = await gateway.list_all("/v1/invoices", query, priority=priority)
    if isinstance(answer, StripeUnavailable | StripeRefused):
        return answer
    invoices = [invoice for entry in answer if not isinstance(invoice := read_invoice(entry), Malformed)]
    still_open = (invoice for invoice in invoices if invoice.status == "open")
    return tuple(sorted(still_open, key=lambda invoice: (invoice.owed_since, invoice.id)))


def failed(failure: Failure) -> Failed:
    """A failed call as a failed look."""
    if isinstance(failure, StripeUnavailable):
        return Failed(failure.detail, retry_after=failure.retry_after)
    of_the_key = failure.status in {401, 403}
    return Failed(f"Stripe refused: {failure.code}: {failure.message}", unavailable=of_the_key)


def payer(stripe_customer: str) -> dict[str, str]:
    """The parameter that names a payer: Accounts v2 has accounts where there were customers."""
    return {"customer_account" if stripe_customer.startswith("acct_") else "customer": stripe_customer}


async def _look(gateway: StripeGateway, stripe_customer: str, priority: Priority, wanted: Wanted) -> Fetched | Failed:
    own = await _own(gateway, stripe_customer, priority)
    if isinstance(own, Failed):
        return own
    if own.deleted:
        return Fetched((), {}, deleted=True)
    query = {**payer(stripe_customer), "status": "all"}  # unset, Stripe hides the canceled ones
    listed = await gateway.list_all("/v1/subscriptions", query, priority=priority)
    if isinstance(listed, StripeUnavailable | StripeRefused):
        return failed(listed)
    found: list[ReadSubscription] = []
    for source in listed:
        subscription = await whole(gateway, source, priority, wanted)
        if isinstance(subscription, Failed):
            return subscription
        found.append(subscription)
    features: tuple[str, ...] | Failure = ()
    if wanted.features and not stripe_customer.startswith("acct_"):
        features = await features_of(gateway, stripe_customer, priority)
    if isinstance(features, StripeUnavailable | StripeRefused):
        return failed(features)
    claims = dict.fromkeys(subscription.claim for subscription in found if subscription.claim)
    return Fetched(
        subscriptions=tuple(subscription.fact for subscription in found),
        item_ids={subscription.fact.id: subscription.item_ids for subscription in found},
        own_claim=own.claim,
        other_claims=tuple(claims),
        features=features,
    )


async def _own(gateway: StripeGateway, stripe_customer: str, priority: Priority) -> ReadCustomer | Failed:
    if stripe_customer.startswith("acct_"):  # Accounts v2: an account stands in for the customer and has no such object
        return ReadCustomer(stripe_customer, deleted=False, claim=None)
    answer = await gateway.get(path("customers", stripe_customer), priority=priority)
    if isinstance(answer, StripeRefused) and answer.is_missing:
        return ReadCustomer(stripe_customer, deleted=True, claim=None)
    if isinstance(answer, StripeUnavailable | StripeRefused):
        return failed(answer)
    customer = read_customer(answer)
    return Failed(customer.detail, unavailable=False) if isinstance(customer, Malformed) else customer


async def whole(
    gateway: StripeGateway, source: Json, priority: Priority, wanted: Wanted, *, is_second_look: bool = False
) -> ReadSubscription | Failed:
    """A subscription out of a list, with every item and what is owed for it."""
    subscription = read_subscription(source)
    if isinstance(subscription, Malformed):
        return Failed(subscription.detail, unavailable=False)
    subscription_id = subscription.fact.id
    if subscription.has_more_items:
        pages = await gateway.list_all("/v1/subscription_items", {"subscription": subscription_id}, priority=priority)
        if isinstance(pages, StripeUnavailable | StripeRefused):
            return failed(pages)
        items = read_items({"data": list(pages)}, source)
        if isinstance(items, Malformed):
            return Failed(items.detail, unavailable=False)
        first = zip(subscription.item_ids, subscription.fact.items, strict=True)
        if not is_second_look and not set(first) <= set(items):
            # Renewed or changed between the two answers: the first ten would be of before, and the others of after it.
            again = await gateway.get(path("subscriptions", subscription_id), priority=priority)
            if isinstance(again, StripeUnavailable | StripeRefused):
                return failed(again)
            return await whole(gateway, again, priority, wanted, is_second_look=True)
        subscription = with_items(subscription, items)
    if subscription.fact.status == "past_due":
        invoices = await open_invoices(gateway, subscription_id, priority)
        if isinstance(invoices, StripeUnavailable):
            return failed(invoices)
        if not isinstance(invoices, StripeRefused) and not invoices and not is_second_look:
            # Owing and yet nothing owed: most likely it was paid between the two answers. Kept, that would refuse a payer
            # until something else is heard of them.
            again = await gateway.get(path("subscriptions", subscription_id), priority=priority)
            if isinstance(again, StripeUnavailable):
                return failed(again)
            if not isinstance(again, StripeRefused):
                return await whole(gateway, again, priority, wanted, is_second_look=True)
        # Refused, such as by a restricted key: no readable open invoice, and grace counts from the unpaid period.
        if not isinstance(invoices, StripeRefused) and invoices:
            since = invoices[0].owed_since
            subscription = replace(subscription, fact=replace(subscription.fact, oldest_open_invoice_at=since))
    named = None if is_second_look else reference(source.get("latest_invoice"))
    is_change_pending = bool(child(source, "pending_update"))
    paid = await with_payments(gateway, subscription.fact, wanted, priority, named, is_change_pending=is_change_pending)
    if isinstance(paid, MovedOn):
        # What was bought and what was paid are of two moments: together they might open what nobody paid for.
        again = await gateway.get(path("subscriptions", subscription_id), priority=priority)
        if isinstance(again, StripeUnavailable | StripeRefused):
            return failed(again)
        return await whole(gateway, again, priority, wanted, is_second_look=True)
    return failed(paid) if isinstance(paid, StripeUnavailable | StripeRefused) else replace(subscription, fact=paid)
