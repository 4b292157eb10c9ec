"""Opens the way to pay for a tier: at most one subscription, whoever clicks how often, wherever.

It decides from what Stripe says at this moment: somebody who pays already gets no second subscription, an open session
for the same offer is used again, others are expired first. Keys name customer and attempt, so a try that was cut off
meets its own session when it is made again, and of two at once in two processes one looks anew. It must never open a
session for a customer it could not look at.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakValueDictionary

from admin.ledger.stripe_customers import Conflict
from admin.stripe.budget import Priority
from admin.stripe.client import StripeGateway, StripeRefused, StripeUnavailable, path
from admin.stripe.existing import Enough, Less, Nothing, Owes, choose
from admin.stripe.fetch import Failed, Fetched, open_invoices
from admin.stripe.fields import identifier
from admin.stripe.objects import CLAIM_KEY, PRICE_KEY, Malformed, ReadSession, read_session
from admin.stripe.results import (
    AlreadySubscribed,
    BillingNotConfigured,
    BillingUnavailable,
    CheckoutUrl,
    NotForSale,
    PortalUrl,
    unavailable,
)
from admin.stripe.sync import CustomerSync
from admin.stripe.work import EventWork, NotYet
from policies.money import format_offer

if TYPE_CHECKING:
    from admin.ledger.checkouts import Checkouts
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers
    from admin.stripe.catalog import PriceCatalog
    from admin.stripe.portal import Portal
    from policies.offers import Offer
    from policies.tiers import Ladder

SESSION_SECONDS: Final = 3600
"""Long enough to find a card, short enough that a price of yesterday isn't paid tomorrow; Stripe allows 30 min to 24 h."""

ALMOST_OVER_SECONDS: Final = 300
WHOLE_SECONDS: Final = 20.0
ROUNDS: Final = 4
LONGEST_REFERENCE: Final = 200
"""Stripe's limit on `client_reference_id`; a longer customer is named by metadata alone."""

CheckoutOutcome: TypeAlias = CheckoutUrl | AlreadySubscribed | NotForSale | BillingUnavailable | BillingNotConfigured


@dataclass(frozen=True, slots=True)
class _Wish:
    """One request, with everything that stays the same from round to round."""

    customer: str
    offer: Offer
    rank: int
    success_url: str
    cancel_url: str | None
    return_url: str


class _Again:
    """Something changed under our hands: look anew."""


_AGAIN: Final = _Again()


class CheckoutDesk:
    """Checkout for one account in one mode. `gateway` None: there is no Stripe key."""

    def __init__(
        self,
        gateway: StripeGateway | None,
        sync: CustomerSync,
        work: EventWork,
        catalog: PriceCatalog,
        portal: Portal,
        *,
        pair: Pair,
        stripe_customers: StripeCustomers,
        checkouts: Checkouts,
        ladder: Callable[[], Ladder],
        now: Callable[[], float],
        namespace: str,
        seconds: float = WHOLE_SECONDS,
        require_paid: Callable[[], bool] = lambda: False,
    ) -> None:
        self._gateway = gateway
        self._sync = sync
        self._work = work
        self._catalog = catalog
        self._portal = portal
        self._pair = pair
        self._stripe_customers = stripe_customers
        self._checkouts = checkouts
        self._ladder = ladder
        self._now = now
        self._namespace = namespace
        self._seconds = seconds
        self._require_paid = require_paid
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open_checkout(
        self,
        customer: str,
        tier: str,
        *,
        success_url: str,
        return_url: str,
        cancel_url: str | None = None,
        price: str | None = None,
        interval: str | None = None,
    ) -> CheckoutOutcome:
        """Where `customer` pays for `tier`. `success_url` may hold ``{CHECKOUT_SESSION_ID}``; `return_url` is for the portal."""
        gateway = self._gateway
        if gateway is None:
            return BillingNotConfigured()
        offer = self._offer(tier, price, interval)
        if isinstance(offer, NotForSale):
            ladder = self._ladder()
            rank = ladder.rank(tier)
            is_sold = rank >= 0 and ladder.sold[rank]
            may_be_offered = not self._catalog.offers_for(tier) or interval is not None
            if is_sold and may_be_offered and not self._catalog.has_asked(tier):
                return BillingUnavailable("what this tier sells has not been asked yet", retry_after=2)
            return offer
        wish = _Wish(customer, offer, self._ladder().rank(tier), success_url, cancel_url, return_url)
        lock = self._locks.setdefault(customer, asyncio.Lock())
        try:
            async with asyncio.timeout(self._seconds), lock:
                for _ in range(ROUNDS):
                    outcome = await self._round(gateway, wish)
                    if not isinstance(outcome, _Again):
                        return outcome
        except TimeoutError:
            return BillingUnavailable("Stripe took too long")
        return BillingUnavailable("the customer's subscriptions change too fast", retry_after=2)

    def _offer(self, tier: str, price: str | None, interval: str | None) -> Offer | NotForSale:
        offers = self._catalog.offers_for(tier)
        if not offers:
            return NotForSale(f"tier {tier!r} has no price on offer")
        for offer in offers:
            if (price is None or offer.price == price) and (interval is None or offer.interval == interval):
                return offer
        listed = ", ".join(f"{offer.price} ({format_offer(offer)})" for offer in offers)
        return NotForSale(f"tier {tier!r} is not offered like that; on offer are: {listed}")

    async def _round(self, gateway: StripeGateway, wish: _Wish) -> CheckoutOutcome | _Again:
        # The number first: whoever has seen an attempt that was used up also sees the customer that it linked.
        attempt = await self._checkouts.next_attempt_number(self._pair, wish.customer)
        looked: dict[str, Fetched] = {}
        for stripe_customer in await self._stripe_customers.links_of(self._pair, wish.customer):
            outcome = await self._sync.sync_customer(stripe_customer, Priority.CUSTOMER)
            if isinstance(outcome, Failed):
                return unavailable(outcome)
            if not outcome.fetched.deleted:
                looked[stripe_customer] = outcome.fetched
        instead = await self._instead(gateway, wish, looked)
        if instead is not None:
            return instead
        payer = next((one for one, fetched in looked.items() if fetched.own_claim == wish.customer), None)
        known = await self._open_sessions(gateway, wish, payer)
        if not isinstance(known, dict):
            return known
        usable = await self._only_usable(gateway, wish, known, attempt)
        if usable is not None:
            return usable
        if payer is None:
            made = await self._new_customer(gateway, wish.customer, attempt)
            if not isinstance(made, str):
                return made
            payer = made
        return await self._new_session(gateway, wish, payer, attempt)

    async def _instead(self, gateway: StripeGateway, wish: _Wish, looked: dict[str, Fetched]) -> CheckoutOutcome | None:
        """What a running subscription leads to, None when there is none."""
        subscriptions = [subscription for fetched in looked.values() for subscription in fetched.subscriptions]
        existing = choose(subscriptions, self._ladder(), wish.rank, require_paid=self._require_paid())
        if isinstance(existing, Nothing):
            return None
        enough = existing if isinstance(existing, Enough) else None
        subscription, tier = existing.subscription, self._ladder().name(existing.rank)
        if enough is None and isinstance(existing, Owes):
            invoices = await open_invoices(gateway, subscription.id, Priority.CUSTOMER)
            if isinstance(invoices, StripeUnavailable | StripeRefused):
                return unavailable(invoices)
            url = next((invoice.hosted_invoice_url for invoice in invoices if invoice.hosted_invoice_url), None)
            if url is not None:
                return CheckoutUrl(url, "invoice")
            return AlreadySubscribed(tier, subscription.status, "no open invoice can be paid; use the billing portal")
        if enough is None and isinstance(existing, Less):
            owner, item_id = next(
                (one, fetched.item_ids[subscription.id][0])
                for one, fetched in looked.items()
                if subscription.id in fetched.item_ids
            )
            confirmed = await self._portal.confirm_change(owner, existing, item_id, wish.offer.price, wish.return_url)
            return CheckoutUrl(confirmed.url, "portal") if isinstance(confirmed, PortalUrl) else confirmed
        return AlreadySubscribed(tier, subscription.status, enough.detail if enough else "")

    async def _open_sessions(
        self, gateway: StripeGateway, wish: _Wish, payer: str | None
    ) -> dict[str, ReadSession] | BillingUnavailable | _Again:
        """Every session of ours that can still be paid, also one whose making was cut off before we noted it."""
        found: dict[str, ReadSession] = {}
        if payer is not None:
            query = {"customer": payer, "status": "open"}
            answer = await gateway.list_all("/v1/checkout/sessions", query, priority=Priority.CUSTOMER)
            if isinstance(answer, StripeUnavailable | StripeRefused):
                return unavailable(answer)
            sessions = [session for entry in answer if not isinstance(session := read_session(entry), Malformed)]
            ours = (session for session in sessions if session.status == "open" and session.claim == wish.customer)
            found = {session.id: session for session in ours}
        for row in await self._checkouts.open_for(self._pair, wish.customer, self._now()):
            if row.id in found:
                continue
            outcome = await self._work.look_at_session(row.id, Priority.CUSTOMER)
            if isinstance(outcome, NotYet):
                return unavailable(outcome)
            if outcome == "complete":
                return _AGAIN  # it was paid meanwhile, and the customer looked at
            if outcome == "open":
                claim, price = row.customer, row.price
                found[row.id] = ReadSession(row.id, "open", row.url, row.stripe_customer, claim, price, row.expires_at)
        return found

    async def _only_usable(
        self, gateway: StripeGateway, wish: _Wish, known: dict[str, ReadSession], attempt: int
    ) -> CheckoutOutcome | _Again | None:
        """The open session for this very offer, after all others are expired."""
        usable: ReadSession | None = None
        for session in known.values():
            lasting = session.expires_at is None or session.expires_at > self._now() + ALMOST_OVER_SECONDS
            if usable is None and session.price == wish.offer.price and session.url and lasting:
                usable = session
                continue
            where = path("checkout", "sessions", session.id, "expire")
            answer = await gateway.post(where, priority=Priority.CUSTOMER)
            if isinstance(answer, StripeUnavailable):
                return unavailable(answer)
            if isinstance(answer, StripeRefused):
                # It can't be expired because it has ended; if it was paid, the next round sees the subscription.
                outcome = await self._work.look_at_session(session.id, Priority.CUSTOMER)
                return unavailable(outcome) if isinstance(outcome, NotYet) else _AGAIN
            await self._checkouts.close(self._pair, session.id, "expired", self._now())
        if usable is None or usable.url is None:
            return None
        if await self._checkouts.get(self._pair, usable.id) is None:
            await self._note(wish, usable, usable.url, attempt)
        return CheckoutUrl(usable.url, "checkout")

    async def _new_customer(
        self, gateway: StripeGateway, customer: str, attempt: int
    ) -> str | BillingUnavailable | _Again:
        answer = await gateway.post(
            "/v1/customers",
            {"metadata": {CLAIM_KEY: customer}},
            priority=Priority.CUSTOMER,
            idempotency_key=self._key("customer", customer, attempt),
        )
        if isinstance(answer, StripeUnavailable | StripeRefused):
            await self._checkouts.spend_attempt(self._pair, customer, attempt)
            return unavailable(answer)
        stripe_customer = identifier(answer.get("id"))
        if stripe_customer is None:
            return BillingUnavailable("Stripe's customer has no id")
        linked = await self._stripe_customers.link(self._pair, stripe_customer, customer, "checkout", self._now())
        if isinstance(linked, Conflict):
            return BillingUnavailable("the Stripe customer that was made belongs to somebody else")
        return stripe_customer

    async def _new_session(
        self, gateway: StripeGateway, wish: _Wish, payer: str, attempt: int
    ) -> CheckoutOutcome | _Again:
        metered = await self._catalog.is_metered(wish.offer.price, Priority.CUSTOMER)
        if metered is None:
            return BillingUnavailable("the price could not be fetched")
        answer = await gateway.post(
            "/v1/checkout/sessions",
            self._session_params(wish, payer, metered=metered),
            priority=Priority.CUSTOMER,
            # Without the offer: of two processes that are asked for two offers at once, one is refused and looks anew.
            # With it both would get a session, and both could be paid.
            idempotency_key=self._key("checkout", wish.customer, attempt),
        )
        if isinstance(answer, StripeUnavailable | StripeRefused):
            # Stripe answers a key for a day with what it said first, errors too. A session that was made after all is
            # in the list of open ones, so a new number can't make two.
            await self._checkouts.spend_attempt(self._pair, wish.customer, attempt)
            if isinstance(answer, StripeRefused) and answer.is_reused_key:
                return _AGAIN
            return unavailable(answer)
        session = read_session(answer)
        if isinstance(session, Malformed) or session.url is None:
            return BillingUnavailable("Stripe's Checkout session can't be read")
        await self._note(wish, session, session.url, attempt)
        return CheckoutUrl(session.url, "checkout")

    def _session_params(self, wish: _Wish, payer: str, *, metered: bool) -> dict[str, Any]:
        line: dict[str, Any] = {"price": wish.offer.price}
        if not metered:  # what is metered has no quantity, and Stripe refuses one
            line["quantity"] = 1
        params: dict[str, Any] = {
            "mode": "subscription",
            "customer": payer,
            "line_items": [line],
            "success_url": wish.success_url,
            "expires_at": int(self._now()) + SESSION_SECONDS,
            "metadata": {CLAIM_KEY: wish.customer, PRICE_KEY: wish.offer.price},
            # Stripe copies no metadata of a session to its subscription.
            "subscription_data": {"metadata": {CLAIM_KEY: wish.customer}},
        }
        if len(wish.customer) <= LONGEST_REFERENCE:
            params["client_reference_id"] = wish.customer
        if wish.cancel_url is not None:
            params["cancel_url"] = wish.cancel_url
        return params

    async def _note(self, wish: _Wish, session: ReadSession, url: str, attempt: int) -> None:
        now = self._now()
        await self._checkouts.record_opened(
            self._pair,
            id=session.id,
            customer=wish.customer,
            tier=wish.offer.tier,
            price=wish.offer.price,
            stripe_customer=session.stripe_customer,
            url=url,
            expires_at=session.expires_at or int(now) + SESSION_SECONDS,
            attempt=attempt,
            now=now,
        )

    def _key(self, what: str, customer: str, attempt: int) -> str:
        """An idempotency key of at most 255 plain characters that names all of it, and this ledger."""
        named = "\x00".join((self._pair.account, str(self._pair.livemode), self._namespace, customer))
        return f"gateway-{what}-{hashlib.sha256(named.encode()).hexdigest()[:40]}-{attempt}"
