"""The simulator as one ASGI app: Stripe's API, its pages, and the controls.

It decides what belongs together. It must never speak to anything but the webhook endpoints that it was given: no key,
customer or event of it has to do with the real Stripe.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.routing import Route

from admin.operator.docs_page import docs_page
from admin.simulator import (
    api_catalog,
    api_checkout,
    api_customers,
    api_features,
    api_invoices,
    api_money,
    api_portal,
    api_subscriptions,
    api_test_clocks,
    seeding,
    thin,
)
from admin.simulator.api_portal import standard_features
from admin.simulator.billing import Billing
from admin.simulator.checkout import Checkout
from admin.simulator.clock import SimulatedClock
from admin.simulator.control import control_router
from admin.simulator.control_merchant import merchant_router
from admin.simulator.control_money import money_router
from admin.simulator.delivery import DEFAULT_RETRY_SECONDS, Webhooks
from admin.simulator.entities import PortalConfiguration
from admin.simulator.entitlements import Entitlements
from admin.simulator.faults import Faults
from admin.simulator.journal import Journal
from admin.simulator.older import older_event
from admin.simulator.pages import Pages
from admin.simulator.protocol import Protocol, World
from admin.simulator.schedule import Schedule
from admin.simulator.store import Store
from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from admin.simulator.protocol import Endpoint
    from admin.simulator.seeding import Offer
    from policies.schema import SimulatedPrice, Tier

DEFAULT_API_KEY: Final = "sk_test_simulator"
TICK_SECONDS: Final = 0.5
"""How late, at most, something happens that falls due while nobody asks."""

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *api_catalog.ENDPOINTS,
    *api_customers.ENDPOINTS,
    *api_subscriptions.ENDPOINTS,
    *api_invoices.ENDPOINTS,
    *api_checkout.ENDPOINTS,
    *api_portal.ENDPOINTS,
    *api_money.ENDPOINTS,
    *api_features.ENDPOINTS,
    *api_test_clocks.ENDPOINTS,
    *thin.ENDPOINTS,
)


class Simulator:
    """A local Stripe. Everything runs in the event loop that serves `asgi`; use it from elsewhere over HTTP only."""

    def __init__(
        self,
        *,
        wall_clock: Callable[[], float],
        webhook: Iterable[tuple[str, str]] = (),
        api_key: str = DEFAULT_API_KEY,
        public_base: str,
        retry_seconds: tuple[float, ...] = DEFAULT_RETRY_SECONDS,
        token: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        endpoints = list(webhook)
        for url in (public_base, *(url for url, _ in endpoints)):
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ValueError(f"{url!r} is not a URL; it must begin with http:// or https://")
        self.clock = SimulatedClock(wall_clock)
        store, faults = Store(token), Faults()
        journal = Journal(store, self.clock, public_base.rstrip("/"))
        billing = Billing(store, self.clock, journal)
        schedule = Schedule(store, self.clock, journal, billing)
        self.world = World(
            f"acct_sim{token()}", store, journal, billing, Checkout(billing, journal), schedule, faults, self.advance
        )
        self.webhooks = Webhooks(
            endpoints,
            wall_clock=wall_clock,
            render=journal.render,
            render_older=lambda event: older_event(event, store),
            faults=faults,
            retry_seconds=retry_seconds,
        )
        journal.on_change = schedule.watch
        journal.on_event = self.webhooks.offer
        journal.on_said = Entitlements(store, self.clock, journal).follow
        journal.pending_webhooks = self.webhooks.undelivered
        self._add_default_portal()
        self.asgi = self._build(api_key)

    def now(self) -> float:
        """Simulated UTC seconds."""
        return self.clock.now()

    def advance(self, seconds: float) -> float:
        """Move the clock forward and work off what falls due; ValueError when it can't be moved so."""
        self.world.schedule.catch_up()
        moment = self.clock.advance(seconds)
        self.world.schedule.watch_everything()
        self.world.schedule.catch_up()
        return moment

    def seed(self, offers: Iterable[Offer]) -> None:
        """Add these products and prices, with exactly these ids."""
        seeding.seed(self.world.store, offers, int(self.now()))

    def seed_from_tiers(self, tiers: Sequence[Tier], stated: Mapping[str, SimulatedPrice] | None = None) -> None:
        """Add whatever the tiers of a gateway.yaml name, as `stated` says, and with made-up amounts where it doesn't."""
        self.seed(seeding.offers_from(tiers, stated))

    def _add_default_portal(self) -> None:
        store, now = self.world.store, int(self.now())
        configuration = PortalConfiguration(
            id=store.new_id("bpc"),
            created=now,
            updated=now,
            is_default=True,
            active=True,
            name=None,
            default_return_url=None,
            business_profile={"headline": None, "privacy_policy_url": None, "terms_of_service_url": None},
            features=standard_features(),
            products=[],
            metadata={},
        )
        store.portal_configurations[configuration.id] = configuration

    def _build(self, api_key: str) -> FastAPI:
        app = FastAPI(
            title="Stripe simulator",
            description="A local Stripe with a clock that can be moved. Stripe's own endpoints are under /v1.",
            version="1",
            lifespan=self._lifespan,
            redoc_url=None,
            docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        )
        app.add_route("/docs", lambda _request: docs_page(app.openapi()), methods=["GET"])
        protocol = Protocol(self.world, api_key=api_key, now=self.now)
        for endpoint in ENDPOINTS:
            app.router.routes.append(Route(endpoint.path, protocol.handler(endpoint), methods=[endpoint.method]))
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app.router.routes.extend(
            Route(path, protocol.unknown, methods=methods) for path in ("/v1/{rest:path}", "/v2/{rest:path}")
        )
        app.include_router(control_router(self))
        app.include_router(money_router(self))
        app.include_router(merchant_router(self, ENDPOINTS))
        pages = Pages(self)
        app.router.routes.extend(pages.routes())
        app.add_exception_handler(ApiError, pages.refusal)
        return app

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        async with self.webhooks.run():
            ticker = asyncio.create_task(self._tick())
            try:
                yield
            finally:
                ticker.cancel()
                await asyncio.gather(ticker, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            self.world.schedule.catch_up()
            await asyncio.sleep(TICK_SECONDS)
