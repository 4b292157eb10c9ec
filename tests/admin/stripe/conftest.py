"""A whole shop for pipeline tests: the real SDK against the simulator over sockets, and a ledger on SQLite."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from admin.ledger.catalog import Catalog
from admin.ledger.changes import Changes
from admin.ledger.checkouts import Checkouts
from admin.ledger.customers import Customers
from admin.ledger.engine import Database
from admin.ledger.inbox import Inbox
from admin.ledger.meta import Meta
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import StripeCustomers
from admin.simulator import DEFAULT_API_KEY, Simulator
from admin.stripe.account import find_pair
from admin.stripe.budget import PacedBudget
from admin.stripe.catalog import PriceCatalog
from admin.stripe.checkout import CheckoutDesk
from admin.stripe.client import HttpxTransport, StripeGateway
from admin.stripe.portal import Portal
from admin.stripe.returned import ReturnDesk
from admin.stripe.sync import CustomerSync
from admin.stripe.verify import VerifyNow
from admin.stripe.webhook import Verdict, WebhookReceiver
from admin.stripe.work import EventWork
from admin.stripe.worker import InboxWorker
from policies.entitlement import BillingRules, Standing, derive, edge_after
from policies.schema import Tier
from policies.tiers import Ladder, build_ladder
from tests.support.ledgers import fresh_sqlite, opened
from tests.support.paid_customer import paid_customer, unhurried
from tests.support.scripted_stripe import ScriptedStripe
from tests.support.simulator import WEBHOOK_SECRET, Receiver, free_socket, serving, serving_simulator

TIERS = (
    Tier(name="free"),
    Tier(name="pro", prices=("price_pro_monthly", "price_pro_yearly")),
    Tier(name="enterprise", prices=("price_ent",)),
)
RULES = BillingRules(renewal_leeway=48 * 3600.0, past_due_grace=72 * 3600.0)
SUCCESS = "http://127.0.0.1:9/return?session={CHECKOUT_SESSION_ID}"
BACK = "http://127.0.0.1:9/back"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook as the simulator sent it."""

    body: bytes
    signature: str

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def type(self) -> str:
        return str(self.event["type"])


@dataclass(slots=True)
class Shop:
    """One gateway's Stripe side. Webhooks are kept in `mailbox`: a test decides when and in which order they arrive."""

    simulator: Simulator
    base: str
    mailbox: Receiver
    database: Database
    pair: Pair
    gateway: StripeGateway
    published: dict[str, int]
    now: Callable[[], float]
    transport: HttpxTransport
    tiers: tuple[Tier, ...] = TIERS
    ladder: Ladder = field(init=False)
    meta: Meta = field(init=False)
    inbox: Inbox = field(init=False)
    customers: Customers = field(init=False)
    stripe_customers: StripeCustomers = field(init=False)
    checkouts: Checkouts = field(init=False)
    changes: Changes = field(init=False)
    sync: CustomerSync = field(init=False)
    catalog: PriceCatalog = field(init=False)
    work: EventWork = field(init=False)
    receiver: WebhookReceiver = field(init=False)
    worker: InboxWorker = field(init=False)
    portal: Portal = field(init=False)
    desk: CheckoutDesk = field(init=False)
    verify: VerifyNow = field(init=False)
    returns: ReturnDesk = field(init=False)
    _delivered: int = 0

    def __post_init__(self) -> None:
        self.ladder = build_ladder(self.tiers)
        self.meta, self.inbox = Meta(self.database), Inbox(self.database)
        self.customers, self.stripe_customers = Customers(self.database), StripeCustomers(self.database)
        self.checkouts, self.changes = Checkouts(self.database), Changes(self.database)
        self.rewire()

    def rewire(self, inline_seconds: float = 5.0, look_seconds: float = 2.0) -> None:
        """As after a restart: nothing in memory, the same ledger."""
        self.sync = CustomerSync(
            self.gateway,
            self.stripe_customers,
            self.pair,
            edge_after=lambda subscriptions, now: edge_after(subscriptions, RULES, now),
            now=self.now,
            published=self._publish,
        )
        self.catalog = PriceCatalog(
            self.gateway, Catalog(self.database), self.pair, tiers=lambda: self.tiers, now=self.now
        )
        self.work = EventWork(
            self.gateway,
            self.sync,
            self.catalog,
            pair=self.pair,
            inbox=self.inbox,
            stripe_customers=self.stripe_customers,
            checkouts=self.checkouts,
            now=self.now,
        )
        self.receiver = WebhookReceiver(
            WEBHOOK_SECRET, self.pair, self.inbox, self.work, wall=time.time, inline_seconds=inline_seconds
        )
        # The worker's clock is ahead, so that what waits for its turn is due at once.
        self.worker = InboxWorker(self.work, self.inbox, self.pair, wall=lambda: time.time() + 3600)
        self.portal = Portal(
            self.gateway,
            pair=self.pair,
            meta=self.meta,
            stripe_customers=self.stripe_customers,
            catalog=self.catalog,
            tiers=lambda: tuple(tier.name for tier in self.tiers),
            namespace="ledger-1",
        )
        self.desk = CheckoutDesk(
            self.gateway,
            self.sync,
            self.work,
            self.catalog,
            self.portal,
            pair=self.pair,
            stripe_customers=self.stripe_customers,
            checkouts=self.checkouts,
            ladder=lambda: self.ladder,
            now=self.now,
            namespace="ledger-1",
        )
        self.verify = VerifyNow(
            self.sync,
            self.work,
            pair=self.pair,
            stripe_customers=self.stripe_customers,
            checkouts=self.checkouts,
            now=self.now,
            look_seconds=look_seconds,
        )
        self.returns = ReturnDesk(self.work, self.checkouts, self.pair)

    async def aclose(self) -> None:
        await self.verify.aclose()
        await self.sync.aclose()

    async def _publish(self, versions: dict[str, int]) -> None:
        self.published |= versions

    @property
    def client(self) -> stripe.StripeClient:
        """The merchant's own way to Stripe."""
        return stripe.StripeClient(DEFAULT_API_KEY, base_addresses={"api": self.base}, http_client=self.transport)

    async def subscribe(self, customer: str | None, price: str = "price_pro_monthly") -> tuple[str, str]:
        """A subscription made behind the gateway's back; its Stripe customer and its own id."""
        claim = {"metadata": {"gateway_customer": customer}} if customer else {}
        made = await self.client.v1.customers.create_async(claim)  # type: ignore[arg-type]
        self.simulator.world.store.customers[made.id].card = "works"
        subscription = await self.client.v1.subscriptions.create_async(
            {"customer": made.id, "items": [{"price": price}]}
        )
        return made.id, subscription.id

    async def pay(self, url: str, **form: str) -> None:
        """Press the button of one of the simulator's pages."""
        async with httpx.AsyncClient(verify=False, trust_env=False) as browser:
            answer = await browser.post(url, data={"card": "works", **form})
        assert answer.status_code == 303, answer.text

    async def mail(self) -> list[Delivery]:
        """What the simulator has sent since the last call, in the order of sending."""
        await self.simulator.webhooks.settled(10)
        found = [Delivery(*one) for one in zip(self.mailbox.bodies, self.mailbox.signatures, strict=True)]
        fresh, self._delivered = found[self._delivered :], len(found)
        return fresh

    async def receive(self, delivery: Delivery) -> Verdict:
        return await self.receiver.receive(delivery.body, delivery.signature, time.time())

    async def receive_all(self) -> list[Verdict]:
        return [await self.receive(delivery) for delivery in await self.mail()]

    async def standing(self, customer: str, later: float = 0.0) -> Standing:
        """What the customer has, by the ledger alone."""
        now = self.now() + later
        return derive(await self.customers.read_facts(self.pair, customer, now), self.ladder, RULES).at(now)

    async def tier(self, customer: str, later: float = 0.0) -> str | None:
        return (await self.standing(customer, later)).tier


@asynccontextmanager
async def open_shop(directory: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        mailbox = Receiver()
        hook = await stack.enter_async_context(serving(mailbox, free_socket(), lifespan="off"))
        simulator, base = await stack.enter_async_context(
            serving_simulator(webhook=[(f"{hook}/webhook", WEBHOOK_SECRET)])
        )
        gateway = StripeGateway(DEFAULT_API_KEY, base, budget=PacedBudget(1000, burst=1000), jitter=lambda: 0.0)
        stack.push_async_callback(gateway.aclose)
        transport = HttpxTransport(10, base)
        stack.push_async_callback(transport.close_async)
        database = await opened(fresh_sqlite(directory))
        stack.push_async_callback(database.dispose)
        pair = await find_pair(gateway, Meta(database))
        assert isinstance(pair, Pair)
        shop = Shop(
            simulator, base, mailbox, database, pair, gateway, published={}, now=simulator.now, transport=transport
        )
        stack.push_async_callback(shop.aclose)
        await shop.catalog.refresh()
        yield shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as found:
        yield found
        await asyncio.sleep(0)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedStripe]:
    async with paid_customer() as found:
        yield found


@pytest.fixture
async def gateway(scripted: ScriptedStripe) -> AsyncIterator[StripeGateway]:
    async with unhurried(scripted) as found:
        yield found
