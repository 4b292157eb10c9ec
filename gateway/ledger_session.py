"""The ledger of one gateway.yaml, opened for a command: the same parts as the operator's API, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from admin.control import Ledger, LedgerRecords
from admin.ledger.customer_records import CustomerRecord
from admin.ledger.engine import LedgerDownError
from admin.ledger.opening import LedgerUnavailable
from admin.ledger.pair import Pair
from admin.ledger.schema import open_ledger
from admin.operations import Done, Operations, Rejected
from admin.operator.views import CustomerLine, CustomerView, customer_line, customer_view
from admin.stripe.account import AccountProblem, known_pair, open_account, simulator_address
from admin.stripe.budget import Priority
from admin.stripe.catalog import PriceCatalog
from admin.stripe.client import StripeGateway
from admin.stripe.fetch import Failed
from admin.stripe.sync import CustomerSync
from gateway.bootstrap import NO_ACCOUNT
from gateway.clock import EntitlementClock
from policies.entitlement import BillingRules, Entitlement, Standing, derive, edge_after
from policies.facts import CustomerFacts
from policies.offers import Offer
from policies.schema import Config
from policies.tiers import build_ladder

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class SessionProblem:
    """Why the ledger can't be worked on."""

    detail: str


class LedgerSession:
    """What a command works on. `derive` is the configuration's reading of facts."""

    def __init__(self, config: Config, ledger: Ledger, pair: Pair, now: Callable[[], float]) -> None:
        self._config = config
        self._ledger = ledger
        self._pair = pair
        self._now = now
        self.pins: dict[str, str] = {}
        self._rules = BillingRules(config.billing.renewal_leeway, config.billing.past_due_grace)
        self.ladder = build_ladder(config.tiers)
        self.records = LedgerRecords(ledger, pair, now)
        self.operations = Operations(ledger.customers, ladder=lambda: self.ladder, standing=self._standing, now=now)

    async def load_pins(self) -> None:
        """Prices pinned to tiers. Raises LedgerDownError."""
        self.pins = await self._ledger.catalog.pins(self._pair)
        self.ladder = build_ladder(self._config.tiers, self.pins)

    def now(self) -> float:
        """The entitlement clock: real time, or the simulator's."""
        return self._now()

    async def facts_of(self, customer: str) -> CustomerFacts:
        """All that is on record of a customer; version 0 and nothing of an unknown one."""
        return await self._ledger.customers.read_facts(self._pair, customer, self._now())

    async def all_facts(self) -> AsyncIterator[CustomerFacts]:
        """Of every customer on record."""
        after = ""
        while page := await self.records.find_customers("", PAGE, after):
            for one in page:
                yield one.facts
            after = page[-1].customer

    async def signing_key(self) -> str | None:
        """What payment links are signed with; None until a gateway has made it."""
        return self._config.server.signing_key.get_secret_value() or await self._ledger.meta.get("signing_key")

    async def offers(self) -> Callable[[str], tuple[Offer, ...]]:
        """What each tier costs, as the gateways of this ledger have last heard of Stripe."""
        settings = self._config.billing.stripe
        if not settings.secret_key.get_secret_value():
            return lambda _tier: ()
        stripe = StripeGateway(settings.secret_key.get_secret_value(), settings.api_base)
        prices = PriceCatalog(stripe, self._ledger.catalog, self._pair, tiers=lambda: self._config.tiers, now=self._now)
        try:
            await prices.load()
        finally:
            await stripe.aclose()
        return lambda tier: tuple(prices.offers_for(tier))

    def derive(self, facts: CustomerFacts) -> Entitlement:
        """What these facts give."""
        return derive(facts, self.ladder, self._rules)

    def view(self, record: CustomerRecord) -> CustomerView:
        """One customer with everything on record."""
        return customer_view(record, self.derive(record.facts), self._now())

    async def lines(self, search: str, limit: int) -> list[CustomerLine]:
        """Customers whose name or Stripe id holds `search`."""
        found = await self.records.find_customers(search, limit, "")
        return [customer_line(one, self.derive(one.facts), self._now()) for one in found]

    async def sync(self, customer: str | None) -> Done | Rejected:
        """Fetch from Stripe now. A running gateway hears of it from the ledger, and publishes to Redis."""
        account = await open_account(self._config.billing.stripe, self._ledger.meta)
        if account is None:
            return Rejected("there is no Stripe key in gateway.yaml, so there is nothing to fetch.")
        if isinstance(account, AccountProblem):
            return Rejected(account.detail)
        customer_sync = CustomerSync(
            account.gateway,
            self._ledger.stripe_customers,
            account.pair,
            edge_after=lambda subscriptions, at: edge_after(subscriptions, self._rules, at),
            now=self._now,
            published=_left_to_the_gateway,
        )
        try:
            return await self._sync_each(customer_sync, account.pair, customer)
        finally:
            await customer_sync.aclose()
            await account.gateway.aclose()

    async def _sync_each(self, customer_sync: CustomerSync, pair: Pair, customer: str | None) -> Done | Rejected:
        links = self._ledger.stripe_customers
        if customer is not None:
            named = await links.links_of(pair, customer) or ((customer,) if customer.startswith("cus_") else ())
            if not named:
                return Rejected(f"no Stripe customer is linked to {customer}.")
            return await _sync_all(customer_sync, named)
        after, done, failed = "", 0, 0
        while page := await links.all_ids(pair, after, PAGE):
            outcome = await _sync_all(customer_sync, tuple(page))
            done += len(page)
            failed += isinstance(outcome, Rejected)
            after = page[-1]
        if failed:
            return Rejected(f"{done} Stripe customers were looked at, and some could not be fetched; run it again.")
        return Done(f"{done} Stripe customers fetched.")

    async def _standing(self, customer: str) -> Standing:
        facts = await self._ledger.customers.read_facts(self._pair, customer, self._now())
        return self.derive(facts).at(self._now())


@asynccontextmanager
async def open_session(config: Config) -> AsyncIterator[LedgerSession | SessionProblem]:
    """The ledger of `config`, closed again at the end of the block."""
    async with AsyncExitStack() as stack:
        database = await open_ledger(config.database.get_secret_value())
        if isinstance(database, LedgerUnavailable):
            yield SessionProblem(database.detail)
            return
        stack.push_async_callback(database.dispose)
        ledger = Ledger.over(database)
        try:
            session = LedgerSession(config, ledger, await _pair(config, ledger), await _clock(config))
            await session.load_pins()
        except LedgerDownError as error:
            yield SessionProblem(f"the ledger could not be used: {error}")
            return
        yield session


async def _pair(config: Config, ledger: Ledger) -> Pair:
    """The pair that a gateway with this key last ran under; nothing of Stripe's is read before one has."""
    settings = config.billing.stripe
    if not settings.secret_key.get_secret_value():
        return NO_ACCOUNT
    return await known_pair(settings, ledger.meta) or NO_ACCOUNT


async def _clock(config: Config) -> EntitlementClock:
    clock = EntitlementClock()
    simulator = simulator_address(config.billing.stripe)
    if simulator is not None:
        async with httpx.AsyncClient() as client:
            await clock.read(simulator, client)
    return clock


async def _sync_all(customer_sync: CustomerSync, stripe_customers: tuple[str, ...]) -> Done | Rejected:
    for one in stripe_customers:
        outcome = await customer_sync.sync_customer(one, Priority.CUSTOMER)
        if isinstance(outcome, Failed):
            return Rejected(f"{one} could not be fetched: {outcome.detail}.")
    return Done(f"Fetched from Stripe: {', '.join(stripe_customers)}.")


async def _left_to_the_gateway(_versions: dict[str, int]) -> None:
    """Whoever follows the ledger forgets by itself; one of them publishes to Redis."""
