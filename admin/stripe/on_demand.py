"""Fetches one customer because an operator asks, by the API or at the command line.

It decides who is meant: every Stripe customer that is linked to the name, or the one whose id was given. It must never
leave a trace of an id that Stripe doesn't know: a slip of the hand is no customer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from admin.operations import Done, Rejected, Unavailable
from admin.stripe.budget import Priority
from admin.stripe.client import StripeRefused, StripeUnavailable, path
from admin.stripe.fetch import Failed, failed

if TYPE_CHECKING:
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers
    from admin.stripe.client import StripeGateway
    from admin.stripe.sync import CustomerSync


async def fetch_now(
    customer: str, *, gateway: StripeGateway, sync: CustomerSync, stripe_customers: StripeCustomers, pair: Pair
) -> Done | Rejected:
    """Everything that Stripe has of this customer, or Stripe customer, into the ledger. Raises LedgerDownError."""
    links = await stripe_customers.links_of(pair, customer)
    named = links or ((customer,) if customer.startswith("cus_") else ())
    if not named:
        return Rejected(f"No Stripe customer is linked to {customer}.")
    if not links and not await stripe_customers.owners(pair, named):
        stranger = await _stranger(gateway, customer)
        if stranger is not None:
            return stranger
    for one in named:
        outcome = await sync.sync_customer(one, Priority.CUSTOMER)
        if isinstance(outcome, Failed):
            return Unavailable(f"{one} could not be fetched: {outcome.detail}.")
        if outcome.fetched.deleted and not links:
            return _unknown(one)
    return Done(f"Fetched from Stripe: {', '.join(named)}.")


async def _stranger(gateway: StripeGateway, stripe_customer: str) -> Rejected | None:
    """Why an id that the ledger has never heard of is nobody's, or could not be asked about; None where it is somebody's."""
    answer = await gateway.get(path("customers", stripe_customer), priority=Priority.CUSTOMER)
    if isinstance(answer, StripeRefused) and answer.is_missing:
        return _unknown(stripe_customer)
    if isinstance(answer, StripeUnavailable | StripeRefused):
        return Unavailable(f"{stripe_customer} could not be fetched: {failed(answer).detail}.")
    if answer.get("deleted") is True:
        return Rejected(f"Stripe customer {stripe_customer} was deleted; nothing is on record, and nothing was stored.")
    return None


def _unknown(stripe_customer: str) -> Rejected:
    return Rejected(f"Stripe has no customer {stripe_customer} in this account and mode.")
