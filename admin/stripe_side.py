"""Everything of one process that speaks with Stripe, joined: what it sells, receives, verifies and keeps true.

It decides how often each background job looks. It must never let one of them end the process: a look that fails is said
and made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from admin.billing import StripeBilling
from admin.control import BackgroundJob, Ledger
from admin.ledger.budgets import CallBudgets
from admin.ledger.engine import LedgerDownError
from admin.ledger.inbox_rows import STATUSES
from admin.operations import Done, Rejected
from admin.stripe.account import Account
from admin.stripe.budget import Priority
from admin.stripe.catalog import NotRefreshed, PriceCatalog
from admin.stripe.checkout import CheckoutDesk
from admin.stripe.on_demand import fetch_now
from admin.stripe.payments import Wanted
from admin.stripe.portal import Portal
from admin.stripe.reconcile import EventsCatchUp, NightlyDiff, NotCaughtUp, forget_old
from admin.stripe.returned import ReturnDesk
from admin.stripe.shared_budget import SharedBudget, calls_of, looks_of
from admin.stripe.sync import CustomerSync, EdgeAfter, Published
from admin.stripe.verify import Verified, VerifyNow
from admin.stripe.webhook import Verdict, WebhookReceiver
from admin.stripe.work import EventWork
from admin.stripe.worker import EdgeWatch, InboxWorker

if TYPE_CHECKING:
    from policies.offers import Offer
    from policies.schema import Config
    from policies.tiers import Ladder

INBOX_SECONDS: Final = 1.0
EDGES_SECONDS: Final = 60.0
CATALOG_SECONDS: Final = 3600.0
CATALOG_RETRY_SECONDS: Final = 15.0
CATALOG_RELOAD_SECONDS: Final = 30.0
EAGER_SECONDS: Final = 2.0
"""How often the catalog is looked at after a reload, until whoever fetches prices has fetched those of new tiers."""

EVENTS_SECONDS: Final = 600.0
RETENTION_SECONDS: Final = 3600.0
UNHEARD_SECONDS: Final = 3600.0
"""How long /readyz speaks of events that no webhook brought."""

LONGEST_PAUSE_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)
Clock = Callable[[], float]


class StripeSide:
    """One account in one mode. Start its `jobs`; `load` it first."""

    def __init__(
        self,
        account: Account,
        config: Config,
        ledger: Ledger,
        *,
        ladder: Callable[[], Ladder],
        edge_after: EdgeAfter,
        published: Published,
        namespace: str,
        now: Clock,
        wall: Clock,
        registry: CollectorRegistry,
    ) -> None:
        gateway, pair = account.gateway, account.pair
        self._gateway = gateway
        budgets = CallBudgets(ledger.database)
        self._calls = SharedBudget(budgets, calls_of(pair))
        self._looks = SharedBudget(budgets, looks_of(pair))
        gateway.use_budget(self._calls)
        self._ledger = ledger
        self._pair = pair
        self._now = now
        self._wall = wall
        self._publishes = bool(config.redis.get_secret_value())
        self._config = config
        self._catalog = PriceCatalog(gateway, ledger.catalog, pair, tiers=lambda: self._config.tiers, now=now)
        self._sync = CustomerSync(
            gateway,
            ledger.stripe_customers,
            pair,
            edge_after=edge_after,
            now=now,
            published=published,
            wanted=Wanted.of(config.billing),
        )
        self._work = EventWork(
            gateway,
            self._sync,
            self._catalog,
            pair=pair,
            inbox=ledger.inbox,
            stripe_customers=ledger.stripe_customers,
            checkouts=ledger.checkouts,
            now=now,
        )
        portal = Portal(
            gateway,
            pair=pair,
            meta=ledger.meta,
            stripe_customers=ledger.stripe_customers,
            catalog=self._catalog,
            tiers=lambda: tuple(tier.name for tier in self._config.tiers),
            namespace=namespace,
        )
        desk = CheckoutDesk(
            gateway,
            self._sync,
            self._work,
            self._catalog,
            portal,
            pair=pair,
            stripe_customers=ledger.stripe_customers,
            checkouts=ledger.checkouts,
            ladder=ladder,
            now=now,
            namespace=namespace,
            require_paid=lambda: self._config.billing.require_paid_invoice,
        )
        secrets = config.billing.stripe.webhook_secrets.get_secret_value()
        self._receiver = WebhookReceiver(secrets, pair, ledger.inbox, self._work, wall=wall)
        self.billing = StripeBilling(
            self._receiver,
            desk,
            portal,
            ReturnDesk(self._work, ledger.checkouts, pair),
            return_url=lambda: f"{self._config.server.public_url.rstrip('/')}/_gateway/return",
            wall=wall,
            count=self._count,
        )
        self._verify = VerifyNow(
            self._sync,
            self._work,
            pair=pair,
            stripe_customers=ledger.stripe_customers,
            checkouts=ledger.checkouts,
            now=now,
            budget=self._looks,
        )
        self._inbox = InboxWorker(self._work, ledger.inbox, pair, wall=wall)
        self._edges = EdgeWatch(self._work, ledger.stripe_customers, pair, now=now, wall=wall)
        self._events = EventsCatchUp(gateway, ledger.inbox, ledger.meta, pair, now=now, wall=wall)
        self._nightly = NightlyDiff(self._work, ledger.stripe_customers, ledger.meta, pair, wall=wall)
        self._pins_changed: Callable[[dict[str, str]], None] = lambda _pins: None
        self._refresh_at_once = asyncio.Event()
        self._view_at_once = asyncio.Event()
        self._catalog_problem = ""
        self._deliveries = Counter(
            "admin_webhook_events_total",
            "Webhook deliveries by event type and outcome.",
            ("type", "outcome"),
            registry=registry,
        )
        self._skew = Gauge(
            "admin_webhook_clock_skew_seconds",
            "How far Stripe's clock is from ours, at the last delivery.",
            registry=registry,
        )
        self._repaired = Counter(
            "admin_nightly_repairs_total",
            "Customers of whom the nightly diff found the ledger behind Stripe.",
            registry=registry,
        )
        self._lag = Gauge(
            "admin_webhook_lag_seconds", "Age of the oldest event that waits to be acted on.", registry=registry
        )
        self._waiting = Gauge("admin_inbox_events", "Events in the inbox by status.", ("status",), registry=registry)
        self.jobs = (
            BackgroundJob("stripe-inbox", self._regularly("inbox", INBOX_SECONDS, self._inbox.run_once)),
            BackgroundJob("stripe-edges", self._regularly("edges", EDGES_SECONDS, self._edges.run_once)),
            BackgroundJob("stripe-events", self._regularly("events", EVENTS_SECONDS, self._events.run_once)),
            BackgroundJob("stripe-nightly", self._regularly("nightly", EVENTS_SECONDS, self._night)),
            BackgroundJob(
                "stripe-catalog",
                self._regularly("catalog", CATALOG_RETRY_SECONDS, self._refresh_catalog, self._refresh_at_once),
            ),
            BackgroundJob(
                "catalog-view",
                self._regularly("catalog view", CATALOG_RELOAD_SECONDS, self._view_catalog, self._view_at_once),
                leased=False,
            ),
            BackgroundJob("retention", self._regularly("retention", RETENTION_SECONDS, self._forget_old)),
        )
        self._catalog_due_at = 0.0
        self._view_eagerly_until = 0.0

    @property
    def pins(self) -> dict[str, str]:
        """Prices pinned to the tier under whose lookup key they were seen."""
        return self._catalog.pins

    async def load(self) -> None:
        """Take up what the ledger knows of the catalog. Raises LedgerDownError."""
        await self._catalog.load()

    def take(self, config: Config) -> None:
        """This configuration is in force. What it sells is fetched at once, by whichever process that falls to."""
        self._config = config
        self._receiver.use_secrets(config.billing.stripe.webhook_secrets.get_secret_value())
        self._sync.wanted = Wanted.of(config.billing)
        self._catalog_due_at = 0.0
        self._view_eagerly_until = self._wall() + CATALOG_RELOAD_SECONDS
        self._refresh_at_once.set()
        self._view_at_once.set()

    def on_pins(self, changed: Callable[[dict[str, str]], None]) -> None:
        """Whom to tell when pins change."""
        self._pins_changed = changed

    def offers(self, tier: str) -> tuple[Offer, ...]:
        """What the tier costs, as Stripe was last seen to sell it."""
        return tuple(self._catalog.offers_for(tier))

    async def verify(self, customer: str) -> bool:
        """One live look before a refusal; whether the ledger now holds Stripe's word."""
        return isinstance(await self._verify.verify_now(customer), Verified)

    async def sync_now(self, customer: str) -> Done | Rejected:
        """What an operator asks for: every Stripe customer of this customer, now. A Stripe id is taken as well."""
        return await fetch_now(
            customer,
            gateway=self._gateway,
            sync=self._sync,
            stripe_customers=self._ledger.stripe_customers,
            pair=self._pair,
        )

    def health(self) -> dict[str, Any]:
        """For /readyz."""
        if self._catalog_problem:
            return {"state": "unreachable", "detail": self._catalog_problem}
        if isinstance(self._events.last, NotCaughtUp):
            return {"state": "unreachable", "detail": self._events.last.detail}
        if self._gateway.trouble is not None:
            return {"state": "unreachable", "detail": self._gateway.trouble}
        if not self._config.billing.stripe.webhook_secrets.get_secret_value():
            return {"state": "no webhook secret", "detail": "Set STRIPE_WEBHOOK_SECRET; until then events are polled."}
        unheard_at = self._events.unheard_at
        if unheard_at is not None and self._wall() - unheard_at < UNHEARD_SECONDS:
            detail = "Events were found by asking that no webhook brought: is the endpoint set up?"
            return {"state": "webhook not delivering", "detail": detail}
        problems = [f"{one.tier}: {one.setting} {one.id} {one.problem}" for one in self._catalog.problems]
        return {"state": "catalog problems", "detail": problems} if problems else {"state": "ok"}

    async def refresh_metrics(self) -> None:
        """Gauges that are read from the ledger when they are asked for."""
        try:
            self._lag.set(await self._ledger.inbox.lag(self._pair, self._wall()))
            counts = await self._ledger.inbox.counts(self._pair)
            for status in STATUSES:  # also those that nothing is in any more: the last dead one may have been replayed
                self._waiting.labels(status).set(counts.get(status, 0))
        except LedgerDownError as error:
            _log.warning("the inbox can't be counted: %s", error)

    async def aclose(self) -> None:
        """Stop what is under way; what it would have settled stays pending."""
        await self._verify.aclose()
        await self._sync.aclose()
        await self._looks.aclose()
        await self._calls.aclose()

    def _count(self, verdict: Verdict) -> None:
        self._deliveries.labels(verdict.event_type or "_unread", verdict.reception.value).inc()
        if verdict.skew_seconds is not None:
            self._skew.set(verdict.skew_seconds)

    async def _refresh_catalog(self) -> None:
        if self._wall() < self._catalog_due_at:
            return
        config = self._config
        outcome = await self._catalog.refresh(Priority.EDGE)
        self._catalog_problem = outcome.detail if isinstance(outcome, NotRefreshed) else ""
        if isinstance(outcome, NotRefreshed):
            _log.warning("prices can't be fetched: %s", outcome.detail)
            return
        if config is self._config:  # else the tiers of a reload are still to be asked about
            self._catalog_due_at = self._wall() + CATALOG_SECONDS
        for problem in outcome.problems:
            _log.warning("tier %s: %s %s %s", problem.tier, problem.setting, problem.id, problem.problem)
        if outcome.pins_changed:
            self._pins_changed(self._catalog.pins)

    async def _view_catalog(self) -> None:
        """Another process may have fetched prices, or pinned them; after a reload one is about to."""
        before = dict(self._catalog.pins)
        await self._catalog.load()
        if self._catalog.pins != before:
            self._pins_changed(self._catalog.pins)
        if self._wall() < self._view_eagerly_until:
            asyncio.get_running_loop().call_later(EAGER_SECONDS, self._view_at_once.set)

    async def _night(self) -> None:
        if await self._nightly.due_in() > 0:
            return
        night = await self._nightly.run_once()
        self._repaired.inc(night.repaired)
        _log.info("nightly diff: %d looked at, %d repaired, %d failed", night.looked, night.repaired, night.failed)

    async def _forget_old(self) -> None:
        # Rows carry the entitlement clock's time, which a simulator may have moved ahead: the earlier of the two is safe.
        await forget_old(
            self._ledger.inbox,
            self._ledger.changes,
            self._ledger.checkouts,
            min(self._wall(), self._now()),
            publishes=self._publishes,
        )

    def _regularly(
        self,
        name: str,
        seconds: float,
        look: Callable[[], Awaitable[object]],
        at_once: asyncio.Event | None = None,
    ) -> Callable[[], Awaitable[None]]:
        async def job() -> None:
            pause = seconds
            while True:
                try:
                    await look()
                    pause = seconds
                except LedgerDownError as error:
                    _log.warning("%s: the ledger can't be used: %s", name, error)
                    pause = min(max(pause * 2, 1.0), LONGEST_PAUSE_SECONDS)
                except Exception:  # noqa: BLE001 -- a fault of ours in one look must not end the looking
                    _log.exception("%s: a look failed", name)
                    pause = min(max(pause * 2, 1.0), LONGEST_PAUSE_SECONDS)
                await _pause(pause, at_once)

        return job


async def _pause(seconds: float, at_once: asyncio.Event | None) -> None:
    if at_once is None:
        return await asyncio.sleep(seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await at_once.wait()
    at_once.clear()
    return None
