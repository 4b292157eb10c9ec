"""The ledger of one gateway.yaml, opened for a command: the same parts as the operator's API, without a server."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from admin.api_keys import KeyOperations
from admin.control import Ledger, LedgerRecords
from admin.ledger.api_keys import hash_key
from admin.ledger.budgets import CallBudgets
from admin.ledger.customer_records import CustomerRecord
from admin.ledger.engine import LedgerDownError, normalise_url
from admin.ledger.opening import LedgerUnavailable
from admin.ledger.pair import NO_ACCOUNT, Pair
from admin.ledger.schema import open_ledger
from admin.operations import Operations, Rejected
from admin.operator.views import CustomerLine, CustomerView, customer_line, customer_view
from admin.stripe.account import known_pair, simulator_address
from admin.stripe.catalog import PriceCatalog
from admin.stripe.client import StripeGateway
from admin.stripe.shared_budget import SharedBudget, calls_of
from gateway.clock import EntitlementClock, client_for_simulator
from gateway.credentials import ApiKeys
from gateway.stripe_session import StripeSession, open_stripe
from policies.entitlement import BillingRules, Entitlement, Standing, derive
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
        self._rules = BillingRules.of(config.billing)
        self.ladder = build_ladder(config.tiers)
        self.records = LedgerRecords(ledger, pair, now)
        self.operations = Operations(ledger.customers, ladder=lambda: self.ladder, standing=self._standing, now=now)
        self.keys = KeyOperations(
            ledger.api_keys,
            hash_key=lambda: hash_key(ledger.meta),
            enabled=lambda: config.auth.api_keys.enabled,
            now=time.time,
        )

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

    async def api_keys(self) -> ApiKeys:
        """The keys of this ledger, as a gateway would recognise them; their use is not noted."""
        return ApiKeys(
            self._ledger.api_keys.read,
            hash_key=await hash_key(self._ledger.meta),
            now=time.time,
            monotonic=time.monotonic,
            feed_healthy=lambda: True,
        )

    async def signing_key(self) -> str | None:
        """What payment links are signed with; None until a gateway has made it."""
        return self._config.server.signing_key.get_secret_value() or await self._ledger.meta.get("signing_key")

    async def operator_token(self) -> str | None:
        """The one that the ledger keeps; None until a gateway has made it."""
        return await self._ledger.meta.get("operator_token")

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

    async def share_budget(self, gateway: StripeGateway, stack: AsyncExitStack) -> None:
        """Let `gateway` wait for the calls that all processes share, where the account is known by now."""
        if self._pair != NO_ACCOUNT:
            budget = SharedBudget(CallBudgets(self._ledger.database), calls_of(self._pair))
            stack.push_async_callback(budget.aclose)
            gateway.use_budget(budget)

    @asynccontextmanager
    async def stripe(self) -> AsyncIterator[StripeSession | Rejected]:
        """The Stripe account of this configuration, until the block ends. Raises LedgerDownError."""
        async with open_stripe(self._config, self._ledger, ladder=lambda: self.ladder, now=self._now) as session:
            yield session

    async def _standing(self, customer: str) -> Standing:
        facts = await self._ledger.customers.read_facts(self._pair, customer, self._now())
        return self.derive(facts).at(self._now())


@asynccontextmanager
async def open_session(config: Config) -> AsyncIterator[LedgerSession | SessionProblem]:
    """The ledger of `config`, closed again at the end of the block."""
    async with AsyncExitStack() as stack:
        url = config.database.get_secret_value()
        missing = _missing_file(url)
        if missing is not None:
            yield SessionProblem(
                f"there is no ledger at {missing} yet: start the gateway once, or make one with `gateway db upgrade`."
            )
            return
        database = await open_ledger(url)
        if isinstance(database, LedgerUnavailable):
            yield SessionProblem(database.detail)
            return
        stack.push_async_callback(database.dispose)
        ledger = Ledger.over(database)
        try:
            session = LedgerSession(config, ledger, await _pair(config, ledger), await clock_of(config))
            await session.load_pins()
        except LedgerDownError as error:
            yield SessionProblem(f"the ledger could not be used: {error}")
            return
        yield session


def _missing_file(url: str) -> Path | None:
    """The SQLite file that isn't there: a command that made one would say "done" of a ledger that no gateway reads."""
    if not url.startswith("sqlite:"):
        return None
    try:
        path = Path(normalise_url(url).database or "")
    except ValueError:  # which opening it says in a sentence
        return None
    return None if path.exists() else path


async def _pair(config: Config, ledger: Ledger) -> Pair:
    """The pair that a gateway with this key last ran under; nothing of Stripe's is read before one has."""
    settings = config.billing.stripe
    if not settings.secret_key.get_secret_value():
        return NO_ACCOUNT
    return await known_pair(settings, ledger.meta) or NO_ACCOUNT


async def clock_of(config: Config) -> EntitlementClock:
    """Real time, or that of the simulator that plays Stripe for this file."""
    clock = EntitlementClock()
    simulator = simulator_address(config.billing.stripe)
    if simulator is not None:
        async with client_for_simulator(simulator) as client:
            if not await clock.read(simulator, client):
                sys.stderr.write(
                    f"No Stripe simulator answers at {simulator}, so 'now' is this machine's time; a simulated time may be "
                    "another. Is it running, and is STRIPE_API_BASE what the gateway has?\n"
                )
    return clock
