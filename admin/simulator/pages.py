"""The pages that people see: Checkout, an invoice, the Billing portal, and the simulator's own front page.

It decides what each button does; all work without JavaScript. Like Stripe, Checkout holds the payer until the webhook of
the payment was answered, ten seconds at most. It must never trust a form: every button is checked as an API call is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from admin.simulator.control import FINAL
from admin.simulator.entities import CARDS
from admin.simulator.faults import API_KINDS, DELIVERY_KINDS
from admin.simulator.portal import Portal
from admin.simulator.protocol import read_params
from admin.simulator.thin import PAYLOADS
from admin.simulator.wire import ApiError, Params

if TYPE_CHECKING:
    from starlette.requests import Request

    from admin.simulator.app import Simulator
    from admin.simulator.entities import Card, CheckoutSession, Invoice, Price, Product
    from admin.simulator.entities_features import Feature

REDIRECT_WAIT_SECONDS: Final = 10.0
CUSTOMERS_SHOWN: Final = 100
CARDS_SHOWN: Final[tuple[tuple[Card, str], ...]] = (
    ("works", "works"),
    ("fails", "is declined"),
    ("none", "is not there"),
    ("debit", "is a bank debit: there in 5 days"),
    ("debit_bounces", "is a bank debit: comes back after 5 days"),
)
SESSION_PLACEHOLDER: Final = "{CHECKOUT_SESSION_ID}"
_Handler = Callable[["Request"], Awaitable[Response]]


def money(amount: int, currency: str) -> str:
    """`USD 29.00`."""
    return f"{'-' if amount < 0 else ''}{currency.upper()} {abs(amount) // 100:,}.{abs(amount) % 100:02d}"


def date(moment: float | None) -> str:
    """A simulated moment for people."""
    return "" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%-d %B %Y, %H:%M UTC")


def rhythm(price: Price) -> str:
    """`per month`, `every 3 months`."""
    return f"per {price.interval}" if price.interval_count == 1 else f"every {price.interval_count} {price.interval}s"


class Pages:
    """Renders the pages and acts on their buttons."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._world = simulator.world
        self._portal = Portal(simulator.world)
        self._templates = Environment(
            loader=PackageLoader("admin.simulator"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters.update(money=money, date=date, rhythm=rhythm)

    def routes(self) -> list[Route]:
        """Every page."""
        return [
            Route("/", self._guarded(self._front), methods=["GET"]),
            Route("/customers/{id}", self._guarded(self._customer), methods=["GET"]),
            Route("/c/pay/{id}", self._guarded(self._checkout), methods=["GET"]),
            Route("/c/pay/{id}", self._guarded(self._pay), methods=["POST"]),
            Route("/i/{id}", self._guarded(self._invoice), methods=["GET"]),
            Route("/i/{id}", self._guarded(self._pay_invoice), methods=["POST"]),
            Route("/p/session/{id}", self._guarded(self._portal_page), methods=["GET"]),
            Route("/p/session/{id}/{action}", self._guarded(self._portal_action), methods=["POST"]),
        ]

    def _guarded(self, handler: _Handler) -> _Handler:
        async def handle(request: Request) -> Response:
            self._world.schedule.catch_up()
            try:
                return await handler(request)
            except ApiError as error:
                return self._page("message.html", error.status, title="That did not work", text=error.message)

        return handle

    def _page(self, template: str, status: int = 200, **values: object) -> Response:
        store = self._world.store
        shown = self._templates.get_template(template).render(
            now=self._simulator.now(), prices=store.prices, products=store.products, cards=CARDS_SHOWN, **values
        )
        return HTMLResponse(shown, status, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})

    async def _front(self, _request: Request) -> Response:
        store, webhooks = self._world.store, self._simulator.webhooks
        customers = [
            (one, store.subscriptions_of(one.id)) for one in reversed(store.customers.values()) if not one.deleted
        ]
        return self._page(
            "front.html",
            offset=self._simulator.clock.offset,
            enabled=webhooks.enabled,
            endpoints=[url for url, _ in webhooks.endpoints],
            customers=customers,
            deliveries=list(reversed(webhooks.records))[:20],
            settings=self._world.billing.settings,
            finals=FINAL,
            catalogue=self._catalogue(),
            payload=webhooks.payload,
            payloads=PAYLOADS,
            api_faults=self._world.faults.api,
            delivery_faults=self._world.faults.delivery,
            api_kinds=API_KINDS,
            delivery_kinds=DELIVERY_KINDS,
        )

    async def _customer(self, request: Request) -> Response:
        store = self._world.store
        customer = store.get(store.customers, request.path_params["id"])
        charges = [one for one in reversed(store.charges.values()) if one.customer == customer.id]
        return self._page(
            "customer.html",
            customer=customer,
            subscriptions=list(reversed(store.subscriptions_of(customer.id))),
            invoices=[one for one in reversed(store.invoices.values()) if one.customer == customer.id],
            # Those that let plans be changed first: a gateway keeps one of its own.
            configurations=sorted(
                (one for one in store.portal_configurations.values() if one.active),
                key=lambda one: not one.features["subscription_update"]["enabled"],
            ),
            charges=[(one, store.disputes_of(one.id)) for one in charges],
            entitlements=store.entitlements_of(customer.id),
        )

    def _catalogue(self) -> list[tuple[Product, list[Price], list[Feature]]]:
        store = self._world.store
        return [
            (
                product,
                [one for one in store.prices.values() if one.product == product.id],
                [store.features[one.feature] for one in store.product_features.values() if one.product == product.id],
            )
            for product in store.products.values()
        ]

    async def refusal(self, request: Request, error: Exception) -> Response:
        """What a control refuses: a page for people, Stripe's JSON for programs."""
        assert isinstance(error, ApiError)  # noqa: S101 - registered for this type only
        if "text/html" in request.headers.get("accept", ""):
            return self._page("message.html", error.status, title="That did not work", text=error.message)
        return JSONResponse(error.body(), error.status)

    # Checkout

    def _session(self, request: Request) -> CheckoutSession:
        return self._world.store.get(self._world.store.sessions, request.path_params["id"])

    async def _checkout(self, request: Request) -> Response:
        return self._show_checkout(self._session(request))

    def _show_checkout(self, session: CheckoutSession, *, error: str | None = None) -> Response:
        if session.status == "complete":
            return self._page(
                "message.html", title="You're all done here", text="You have already completed your payment."
            )
        if session.status == "expired":
            text = "This Checkout session has expired. Go back to where you came from and start again."
            return self._page("message.html", 410, title="This page has expired", text=text)
        prices = self._world.store.prices
        total = sum(prices[line.price].unit_amount * line.quantity for line in session.line_items)
        currency = prices[session.line_items[0].price].currency
        return self._page(
            "checkout.html", 402 if error else 200, session=session, total=total, currency=currency, error=error
        )

    async def _pay(self, request: Request) -> Response:
        session, sent = self._session(request), Params(await read_params(request))
        choice = sent.choice("card", ("works", "declined", "fails_later", "none", "debit", "debit_bounces")) or "works"
        if session.status != "open":
            return self._show_checkout(session)
        if choice == "declined":
            return self._show_checkout(session, error="Your card was declined. Try another one.")
        is_trial = session.trial_days is not None or session.trial_end is not None
        if choice == "none" and not (is_trial and session.payment_method_collection == "if_required"):
            return self._show_checkout(session, error="A card is needed here.")
        cards: dict[str, Card] = {one: one for one in CARDS} | {"fails_later": "fails"}
        event = self._world.checkout.pay(session, card=cards[choice], email=sent.text("email"))
        await self._simulator.webhooks.acknowledged(event.id, REDIRECT_WAIT_SECONDS)
        return RedirectResponse(session.success_url.replace(SESSION_PLACEHOLDER, session.id), status_code=303)

    # Invoices

    def _named_invoice(self, request: Request) -> Invoice:
        invoice = self._world.store.get(self._world.store.invoices, request.path_params["id"])
        if invoice.status == "draft":
            raise ApiError(404, "This invoice has not been finalized yet.")
        return invoice

    async def _invoice(self, request: Request) -> Response:
        return self._page("invoice.html", invoice=self._named_invoice(request), error=None)

    async def _pay_invoice(self, request: Request) -> Response:
        invoice, sent = self._named_invoice(request), Params(await read_params(request))
        if invoice.status in ("open", "uncollectible"):
            if (sent.choice("card", ("works", "declined")) or "works") == "declined":
                return self._page(
                    "invoice.html", 402, invoice=invoice, error="Your card was declined. Try another one."
                )
            self._world.store.customers[invoice.customer].card = "works"
            self._world.billing.pay_now(invoice)
        return RedirectResponse(f"/i/{invoice.id}", status_code=303)

    # Portal

    async def _portal_page(self, request: Request) -> Response:
        return self._portal_view(request.path_params["id"], 200, None)

    async def _portal_action(self, request: Request) -> Response:
        identifier, action = request.path_params["id"], request.path_params["action"]
        sent = Params(await read_params(request))
        try:
            leads_to = self._portal.act(identifier, action, sent)
        except ApiError as error:
            if error.status == 404:
                raise
            return self._portal_view(identifier, error.status, error.message)
        # What the change made due at this very second, such as its charge, happens before the page is shown again.
        self._world.schedule.catch_up()
        return RedirectResponse(leads_to, status_code=303)

    def _portal_view(self, identifier: str, status: int, error: str | None) -> Response:
        values = dict(self._portal.view(identifier))
        return self._page("portal.html", status, error=error, **values)
