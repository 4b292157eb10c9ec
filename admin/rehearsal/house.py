"""The product's whole Stripe side in one process with a simulated world: real code, real ledger, no sockets, no waiting.

Its clock is the world's. `restart` is what a killed process leaves behind: the ledger, and nothing in memory.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import httpx

from admin.ledger.catalog import Catalog
from admin.ledger.changes import Changes
from admin.ledger.checkouts import Checkouts
from admin.ledger.customers import Customers
from admin.ledger.engine import Database
from admin.ledger.inbox import Inbox
from admin.ledger.meta import Meta
from admin.ledger.opening import open_database
from admin.ledger.pair import Pair
from admin.ledger.stored_facts import facts_of
from admin.ledger.stripe_customers import StripeCustomers
from admin.rehearsal.chronicle import Chronicle
from admin.rehearsal.letters import SECRET
from admin.rehearsal.wires import Wire
from admin.simulator import DEFAULT_API_KEY, Simulator, protocol
from admin.simulator.delivery import sign
from admin.stripe import client as stripe_client
from admin.stripe.account import find_pair
from admin.stripe.budget import Priority
from admin.stripe.catalog import PriceCatalog
from admin.stripe.checkout import CheckoutDesk
from admin.stripe.client import StripeGateway
from admin.stripe.payments import Wanted
from admin.stripe.portal import Portal
from admin.stripe.reconcile import CaughtUp, EventsCatchUp, NightlyDiff
from admin.stripe.returned import ReturnDesk
from admin.stripe.sync import CustomerSync
from admin.stripe.verify import VerifyNow
from admin.stripe.webhook import KNOWN_TYPES, Verdict, WebhookReceiver
from admin.stripe.work import EventWork
from admin.stripe.worker import EdgeWatch, InboxWorker
from policies.entitlement import Entitlement, derive, edge_after
from policies.facts import CustomerFacts
from policies.tiers import Ladder, build_ladder

if TYPE_CHECKING:
    from admin.rehearsal.terms import Terms
    from admin.simulator.entities import Event

BASE: Final = "http://stripe.test"
HOUR, DAY = 3600, 86_400
_PATIENCE_SECONDS: Final = 60.0
BEGINNING: Final = 1_800_000_000.0


class BrokenPromiseError(AssertionError):
    """The product did not do what it always does, whatever the oracle thinks of the result."""


class Unhurried:
    """A budget that never runs out: how it is shared has tests of its own."""

    async def acquire(self, priority: Priority) -> None:
        """At once."""


@dataclass(slots=True)
class Clock:
    """Everybody's time."""

    now: float = BEGINNING

    def __call__(self) -> float:
        """The time."""
        return self.now


@dataclass(slots=True)
class House:
    """One world, one ledger, one gateway."""

    terms: Terms
    clock: Clock
    simulator: Simulator
    chronicle: Chronicle
    wire: Wire
    database: Database
    pair: Pair
    gateway: StripeGateway
    merchant: httpx.AsyncClient
    mail: list[Event] = field(default_factory=list)
    published: Callable[[dict[str, int]], Awaitable[None]] | None = None
    secrets: tuple[str, ...] = (SECRET,)
    """Of the webhook; more than one while it is rolled."""
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
    edges: EdgeWatch = field(init=False)
    events: EventsCatchUp = field(init=False)
    night: NightlyDiff = field(init=False)
    portal: Portal = field(init=False)
    desk: CheckoutDesk = field(init=False)
    verify: VerifyNow = field(init=False)
    returns: ReturnDesk = field(init=False)

    def __post_init__(self) -> None:
        self.ladder = build_ladder(self.terms.tiers)
        self.meta, self.inbox = Meta(self.database), Inbox(self.database)
        self.customers, self.stripe_customers = Customers(self.database), StripeCustomers(self.database)
        self.checkouts, self.changes = Checkouts(self.database), Changes(self.database)
        self._wire_up()

    def _wire_up(self) -> None:
        pair, now, rules = self.pair, self.clock, self.terms.rules
        self.sync = CustomerSync(
            self.gateway,
            self.stripe_customers,
            pair,
            edge_after=lambda subscriptions, at: edge_after(subscriptions, self.terms.rules, at, self.ladder),
            now=now,
            published=self._publish,
            wanted=Wanted(
                invoices=rules.require_paid_invoice,
                refunds=rules.revoke_on_refund,
                disputes=rules.revoke_on_dispute,
                features=rules.features_from_stripe,
            ),
        )
        self.catalog = PriceCatalog(self.gateway, Catalog(self.database), pair, tiers=lambda: self.terms.tiers, now=now)
        self.work = EventWork(
            self.gateway,
            self.sync,
            self.catalog,
            pair=pair,
            inbox=self.inbox,
            stripe_customers=self.stripe_customers,
            checkouts=self.checkouts,
            now=now,
        )
        self.receiver = WebhookReceiver(",".join(self.secrets), pair, self.inbox, self.work, wall=now)
        self.worker = InboxWorker(self.work, self.inbox, pair, wall=now)
        self.edges = EdgeWatch(self.work, self.stripe_customers, pair, now=now, wall=now)
        self.events = EventsCatchUp(self.gateway, self.inbox, self.meta, pair, now=now, wall=now)
        self.night = NightlyDiff(self.work, self.stripe_customers, self.meta, pair, wall=now)
        self.portal = Portal(
            self.gateway,
            pair=pair,
            meta=self.meta,
            stripe_customers=self.stripe_customers,
            catalog=self.catalog,
            tiers=lambda: tuple(tier.name for tier in self.terms.tiers),
            namespace="rehearsal",
        )
        self.desk = CheckoutDesk(
            self.gateway,
            self.sync,
            self.work,
            self.catalog,
            self.portal,
            pair=pair,
            stripe_customers=self.stripe_customers,
            checkouts=self.checkouts,
            ladder=lambda: self.ladder,
            now=now,
            namespace="rehearsal",
        )
        self.verify = VerifyNow(
            self.sync,
            self.work,
            pair=pair,
            stripe_customers=self.stripe_customers,
            checkouts=self.checkouts,
            now=now,
            budget=Unhurried(),
            steady=now,
        )
        self.returns = ReturnDesk(self.work, self.checkouts, pair)

    async def _publish(self, versions: dict[str, int]) -> None:
        if self.published is not None:
            await self.published(versions)

    async def open_for_business(self) -> None:
        """Prices are fetched, as at a start."""
        await self.catalog.refresh()
        self.ladder = build_ladder(self.terms.tiers, self.catalog.pins)

    async def stop(self) -> None:
        """As a kill leaves it: whatever was under way never ends."""
        await self.verify.aclose()
        await self.sync.aclose()

    async def restart(self) -> None:
        """The same ledger, nothing in memory, and whatever was held back arrives at a process that is gone."""
        await self.stop()
        self.wire.let_go()
        self._wire_up()
        await self.catalog.load()
        self.ladder = build_ladder(self.terms.tiers, self.catalog.pins)

    def use_secrets(self, *secrets: str) -> None:
        """While a webhook secret is rolled there are several."""
        self.secrets = secrets
        self.receiver.use_secrets(",".join(secrets))

    async def nothing_under_way(self) -> None:
        """Looks that outlived whoever asked for them have come to their end."""
        while self.sync._running or self.sync._next:
            await asyncio.wait({run.task for run in (*self.sync._running.values(), *self.sync._next.values())})
            await asyncio.sleep(0)

    # The post

    def bodies(self, event: Event) -> list[bytes]:
        """The event as it is sent: a snapshot, a thin notification, or both."""
        return [json.dumps(body).encode() for body in self.simulator.webhooks._bodies(event)]

    async def receive(self, body: bytes) -> Verdict:
        """One delivery arrives, signed by one secret."""
        return await self.deliver(body, sign(body, self.secrets[0], int(self.clock())))

    async def deliver(self, body: bytes, signature: str | None) -> Verdict:
        """One delivery arrives, signed in some way or not at all."""
        return await self.receiver.receive(body, signature, self.clock())

    # Questions and controls

    async def entitlements(self, names: Sequence[str]) -> list[Entitlement]:
        """What the ledger holds of each, under the rules."""
        async with self.database.read() as connection:
            found = await facts_of(connection, self.pair, names, self.clock())
        return [derive(found.get(name) or CustomerFacts(name, 0), self.ladder, self.terms.rules) for name in names]

    async def ask(self, method: str, path: str, **form: str) -> httpx.Response:
        """What the merchant or a person at a page does."""
        return await self.merchant.request(method, path, data=form if method == "POST" else None)

    def advance(self, seconds: float) -> None:
        """Time passes, and what falls due in it happens."""
        self.clock.now += seconds
        self.simulator.world.schedule.catch_up()
        self.chronicle.keep()

    async def reconcile(self, *, with_a_night: bool = False) -> None:
        """Everything that is there to find what no webhook told, on a day on which nothing goes wrong."""
        self.wire.cut = 0
        self.wire.let_go()
        self.simulator.world.faults.clear()
        caught_up = await self.events.run_once()
        if not isinstance(caught_up, CaughtUp):
            raise BrokenPromiseError(f"Stripe's events could not be read: {caught_up}")
        # Its clock is ahead, so that what waits for its turn is due at once.
        eager = InboxWorker(self.work, self.inbox, self.pair, wall=lambda: self.clock() + DAY)
        while await eager.run_once():
            pass
        late = EdgeWatch(
            self.work, self.stripe_customers, self.pair, now=lambda: self.clock() + 2 * HOUR, wall=self.clock
        )
        await late.run_once()
        if with_a_night:
            night = await self.night.run_once()
            if not night.finished or night.failed:
                raise BrokenPromiseError(f"the nightly diff did not get through: {night}")


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """The product tries its calls again at once (the pauses have tests of their own), and the simulator's answers are
    not set out for people: with indentation, Python's own encoder is a fifth of a campaign.
    """
    pause, encode = stripe_client.FIRST_PAUSE_SECONDS, protocol._encode
    stripe_client.FIRST_PAUSE_SECONDS = 0.0  # type: ignore[misc]
    protocol._encode = lambda body: json.dumps(body).encode()
    try:
        yield
    finally:
        stripe_client.FIRST_PAUSE_SECONDS, protocol._encode = pause, encode  # type: ignore[misc]


def _unhurried(database: Database) -> None:
    """A machine that is busy is not a ledger that is down: what waiting ends in has tests of its own."""
    database.read = partial(database.read, _PATIENCE_SECONDS)  # type: ignore[method-assign]
    database.write = partial(database.write, _PATIENCE_SECONDS)  # type: ignore[method-assign]
    # Nobody cuts its connections: one round trip less for each use.
    database._base.sync_engine.pool._pre_ping = False


@asynccontextmanager
async def opened_house(url: str, terms: Terms, ids: random.Random | None = None) -> AsyncIterator[House]:
    """A house over a migrated ledger. Stripe's ids come from `ids`, so that a seed makes the same world again."""
    source = ids or random.Random(0)  # noqa: S311 -- a world that can be made again
    clock = Clock()
    simulator = Simulator(
        wall_clock=clock,
        webhook=[(f"{BASE}/webhook", SECRET)],
        public_base=BASE,
        token=lambda: f"{source.getrandbits(96):024x}",
    )
    simulator.seed(terms.offers)
    mail: list[Event] = []

    def posted(event: Event) -> None:
        if event.type in KNOWN_TYPES:
            mail.append(event)

    chronicle = Chronicle(simulator, terms, posted)
    wire = Wire(simulator.asgi)
    gateway = StripeGateway(DEFAULT_API_KEY, BASE, budget=Unhurried(), jitter=lambda: 0.0)
    await gateway._http.close_async()  # type: ignore[no-untyped-call]
    gateway._http._client_async = httpx.AsyncClient(transport=wire)
    merchant = httpx.AsyncClient(
        transport=httpx.ASGITransport(simulator.asgi),
        base_url=BASE,
        headers={"Authorization": f"Bearer {DEFAULT_API_KEY}"},
    )
    database = await open_database(url)
    if not isinstance(database, Database):
        raise BrokenPromiseError(f"the temporary ledger can't be opened: {database.detail}")
    try:
        _unhurried(database)
        with in_a_hurry():
            pair = await find_pair(gateway, Meta(database))
            if not isinstance(pair, Pair):
                raise BrokenPromiseError(f"the simulated account can't be found: {pair}")
            house = House(terms, clock, simulator, chronicle, wire, database, pair, gateway, merchant, mail)
            await house.open_for_business()
            yield house
            await house.stop()
            wire.let_go()
            await asyncio.sleep(0)
    finally:
        await merchant.aclose()
        await gateway.aclose()
        await database.dispose()
