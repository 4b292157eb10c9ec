"""The money side as the public endpoints see it: outcomes of `admin.stripe` turned into reasons and sentences.

Where there is no Stripe key, `NoBilling` says so, and everything that takes no money works all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from admin.ledger.engine import LedgerDownError
from admin.public.ports import Bought, NotBought, Received
from admin.stripe.results import (
    AlreadySubscribed,
    BillingNotConfigured,
    BillingUnavailable,
    CheckoutUrl,
    NoCustomer,
    NotForSale,
    PortalUrl,
)
from admin.stripe.returned import CouldNotSettle, NotOurs, ReturnDesk
from policies.reasons import Reason

if TYPE_CHECKING:
    from admin.stripe.checkout import CheckoutDesk
    from admin.stripe.portal import Portal
    from admin.stripe.webhook import Verdict, WebhookReceiver

_NOT_CONFIGURED: Final = "This gateway has no Stripe key. Set STRIPE_SECRET_KEY, or billing.stripe.secret_key."
_LEDGER_DOWN: Final = NotBought(
    Reason.BILLING_UNAVAILABLE, "What you have can't be looked up right now; nothing was charged."
)
_TOO_MANY: Final = NotBought(
    Reason.BILLING_UNAVAILABLE, "Too many requests of this customer's wait for Stripe already. Try again in a moment."
)
TURN_SECONDS: Final = 20.0
"""As long as checkout takes at most, which has turns of its own."""

_WEBHOOK_REASONS: Final = {400: Reason.BAD_REQUEST, 413: Reason.BODY_TOO_LARGE, 503: Reason.BILLING_UNAVAILABLE}


class NoBilling:
    """`admin.public.ports.Billing` without Stripe."""

    async def receive_event(self, _body: bytes, _signature: str | None) -> Received:
        """An event without a key to understand it: Stripe keeps it and delivers it again."""
        return Received(_NOT_CONFIGURED, Reason.BILLING_NOT_CONFIGURED)

    async def open_checkout(
        self, _customer: str, _tier: str, _price: str | None, _interval: str | None, _success_url: str
    ) -> Bought | NotBought:
        """Nowhere to pay."""
        return NotBought(Reason.BILLING_NOT_CONFIGURED, _NOT_CONFIGURED)

    async def open_portal(self, _customer: str, _return_url: str) -> Bought | NotBought:
        """Nothing to manage."""
        return NotBought(Reason.BILLING_NOT_CONFIGURED, _NOT_CONFIGURED)

    async def settle_session(self, _session_id: str, _customer: str) -> NotBought | None:
        """Nothing was bought here."""
        return NotBought(Reason.BILLING_NOT_CONFIGURED, _NOT_CONFIGURED)


class StripeBilling:
    """`admin.public.ports.Billing` over Stripe. `count` is told what became of each webhook delivery."""

    def __init__(
        self,
        receiver: WebhookReceiver,
        desk: CheckoutDesk,
        portal: Portal,
        returns: ReturnDesk,
        *,
        return_url: Callable[[], str],
        wall: Callable[[], float],
        count: Callable[[Verdict], None],
    ) -> None:
        self._receiver = receiver
        self._desk = desk
        self._portal = portal
        self._returns = returns
        self._return_url = return_url
        self._wall = wall
        self._count = count
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def receive_event(self, body: bytes, signature: str | None) -> Received:
        """Verify and store an event, and try to act on it."""
        verdict = await self._receiver.receive(body, signature, self._wall())
        self._count(verdict)
        if verdict.status < 300:
            return Received(verdict.reception.value)
        return Received(_sentence(verdict.detail), _WEBHOOK_REASONS.get(verdict.status, Reason.BAD_REQUEST))

    async def open_checkout(
        self, customer: str, tier: str, price: str | None, interval: str | None, success_url: str
    ) -> Bought | NotBought:
        """The page on which `customer` can pay for `tier`: Checkout, an open invoice, or a change to confirm."""
        try:
            outcome = await self._desk.open_checkout(
                customer, tier, success_url=success_url, return_url=self._return_url(), price=price, interval=interval
            )
        except LedgerDownError:
            return _LEDGER_DOWN
        match outcome:
            case CheckoutUrl():
                return Bought(outcome.url)
            case AlreadySubscribed():
                return NotBought(Reason.ALREADY_SUBSCRIBED, _already(customer, outcome))
            case NotForSale():
                return NotBought(Reason.BAD_REQUEST, _sentence(outcome.detail))
            case BillingUnavailable() | BillingNotConfigured():
                return _unavailable(outcome)

    async def open_portal(self, customer: str, return_url: str) -> Bought | NotBought:
        """The billing portal of `customer`."""
        try:
            async with self._turn_of(customer):
                outcome = await self._portal.open_portal(customer, return_url)
        except LedgerDownError:
            return _LEDGER_DOWN
        except TimeoutError:
            return _TOO_MANY
        match outcome:
            case PortalUrl():
                return Bought(outcome.url)
            case NoCustomer():
                detail = f"{customer} has never bought anything here, so there is nothing to manage."
                return NotBought(Reason.SUBSCRIPTION_REQUIRED, detail)
            case BillingUnavailable() | BillingNotConfigured():
                return _unavailable(outcome)

    async def settle_session(self, session_id: str, customer: str) -> NotBought | None:
        """Sync at once after a return from Checkout; None when done, whatever it found."""
        try:
            async with self._turn_of(customer):
                settled = await self._returns.settle_session(session_id)
        except LedgerDownError:
            return _LEDGER_DOWN
        except TimeoutError:
            return _TOO_MANY
        if isinstance(settled, NotOurs) or settled.customer != customer:
            return NotBought(Reason.BAD_REQUEST, "This page is for a payment that did not begin here.")
        if isinstance(settled, CouldNotSettle):
            detail = "Stripe can't be asked right now. If you have paid, your access begins as soon as it answers."
            return NotBought(Reason.BILLING_UNAVAILABLE, detail)
        return None

    @asynccontextmanager
    async def _turn_of(self, customer: str) -> AsyncIterator[None]:
        """One question to Stripe at a time for one customer, or the one who asks most would spend the calls of all.

        Raises TimeoutError when the turn doesn't come.
        """
        turn = self._turns.setdefault(customer, asyncio.Lock())
        async with asyncio.timeout(TURN_SECONDS):
            await turn.acquire()
        try:
            yield
        finally:
            turn.release()


def _unavailable(outcome: BillingUnavailable | BillingNotConfigured) -> NotBought:
    if isinstance(outcome, BillingNotConfigured):
        return NotBought(Reason.BILLING_NOT_CONFIGURED, _NOT_CONFIGURED)
    return NotBought(Reason.BILLING_UNAVAILABLE, f"Stripe could not be used: {outcome.detail}. Nothing was charged.")


def _already(customer: str, outcome: AlreadySubscribed) -> str:
    what = f"'{outcome.tier}'" if outcome.tier else "a subscription"
    more = f": {outcome.detail}" if outcome.detail else ""
    return f"{customer} already has {what} ({outcome.status}){more}."


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text[:1].upper()}{text[1:]}."
