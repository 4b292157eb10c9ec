"""The gateway's own endpoints on the public listener (docs/design.md, section 4).

It turns outcomes of `admin.stripe` into answers and decides nothing about money or access itself. Who is calling is
already known: the walk verified the token and put a `Caller` in the scope; without one these routes are not reached.
GET never changes anything: links are fetched by mail scanners and chat previews before a person sees them.
"""

from __future__ import annotations

import re
from typing import Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from admin.public.body import LARGEST_EVENT, Choice, Malformed, TooLarge, read_bounded, read_choice
from admin.public.keys import KeyEndpoints
from admin.public.pages import page
from admin.public.ports import Billing, NotBought, PublicPorts
from admin.public.standing import me, plans
from policies.api_key import PREFIX
from policies.caller import SCOPE_KEY, Caller
from policies.decision import Refuse, decide
from policies.entitlement import Entitlement
from policies.offers import Payment
from policies.reason_pages import PAGES
from policies.reasons import ANSWERS, Reason
from policies.requirement import Access, Requirement
from policies.signed import Claim, LinkExpired, LinkInvalid, Purpose, sign, verify
from policies.tiers import NO_TIER

RETURN_LIFETIME_SECONDS: Final = 24 * 3600
"""A Checkout session lives a day at most, so a return later than that is nobody's."""

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_]{1,255}")
_BLOCKED: Final = "This customer has been blocked by the API's owner, so nothing is sold to them."

_HEADINGS: Final = {
    Reason.PAYMENT_FAILED: "Pay the open invoice for {tier}",
    Reason.SUBSCRIPTION_PAUSED: "Resume {tier}",
    Reason.SUBSCRIPTION_EXPIRED: "Subscribe to {tier} again",
    Reason.TIER_REQUIRED: "Upgrade to {tier}",
}


def build_public_app(ports: PublicPorts, billing: Billing) -> FastAPI:
    """Everything under `/_gateway/`."""
    app = FastAPI(title="Entitlement Gateway", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    endpoints = _Endpoints(ports, billing)
    app.add_exception_handler(StarletteHTTPException, endpoints.unknown)
    for methods, path, endpoint in (
        (["POST"], "/_gateway/stripe/webhook", endpoints.webhook),
        (["GET"], "/_gateway/me", endpoints.me),
        (["GET"], "/_gateway/plans", endpoints.plans),
        (["POST"], "/_gateway/checkout", endpoints.checkout),
        (["POST"], "/_gateway/portal", endpoints.portal),
        (["GET", "POST"], "/_gateway/pay/{link}", endpoints.pay),
        (["GET"], "/_gateway/return", endpoints.returned),
        (["GET"], "/_gateway/problems/{reason}", endpoints.problem),
        *KeyEndpoints(ports).routes(),
    ):
        app.add_route(path, endpoint, methods=methods)
    return app


class _Endpoints:
    def __init__(self, ports: PublicPorts, billing: Billing) -> None:
        self._ports = ports
        self._billing = billing

    async def unknown(self, request: Request, error: Exception) -> Response:
        """No such path of ours, or not with this method."""
        wrong_method = isinstance(error, StarletteHTTPException) and error.status_code == 405
        reason = Reason.METHOD_NOT_ALLOWED if wrong_method else Reason.NO_ROUTE
        response = self._refuse(
            request, reason, f"The gateway has no {_shown_path(request)}{' with this method' if wrong_method else ''}."
        )
        if isinstance(error, StarletteHTTPException):
            response.headers.update(error.headers or {})
        return response

    async def pay(self, request: Request) -> Response:
        """A payment link: fetched, a page that changes nothing; its button, on to Stripe."""
        claim = self._link(request, Purpose.PAY, request.path_params["link"])
        if isinstance(claim, Response):
            return claim
        ladder = self._ports.ladder()
        rank = ladder.rank(claim.tier)
        if rank < 0 or not ladder.sold[rank]:
            return self._refuse(request, Reason.BAD_REQUEST, "This link is for a tier that is no longer offered.")
        if request.method == "POST":
            return await self._paid_by_button(request, claim)
        return await self._pay_page(request, claim, rank)

    async def webhook(self, request: Request) -> Response:
        """Stripe's events, raw: the signature is over the bytes."""
        body = await read_bounded(request, LARGEST_EVENT)
        if isinstance(body, TooLarge):
            return self._refuse_body(request, body)
        received = await self._billing.receive_event(body, request.headers.get("stripe-signature"))
        if received.reason is not None:
            return self._refuse(request, received.reason, received.detail)
        return JSONResponse({"received": True, "outcome": received.detail})

    async def me(self, request: Request) -> Response:
        """What the caller has, and what there is above it."""
        customer = _caller(request).customer
        entitlement = await self._ports.entitlement(customer)
        if entitlement is None:
            return self._refuse(
                request, Reason.ENTITLEMENT_UNAVAILABLE, "Your subscription can't be looked up right now."
            )
        return JSONResponse(me(self._ports, customer, entitlement))

    async def plans(self, _request: Request) -> Response:
        """What is sold, to anyone."""
        return JSONResponse(plans(self._ports))

    async def checkout(self, request: Request) -> Response:
        """A page to pay on, for the caller."""
        choice = await read_choice(request)
        if not isinstance(choice, Choice):
            return self._refuse_body(request, choice)
        if choice.tier is None:
            return self._refuse(request, Reason.BAD_REQUEST, 'Name the tier to buy, such as {"tier": "pro"}.')
        outcome = await self._buy(_caller(request).customer, choice.tier, choice)
        if isinstance(outcome, NotBought):
            return self._refuse(request, outcome.reason, outcome.detail)
        return JSONResponse({"url": outcome})

    async def portal(self, request: Request) -> Response:
        """The caller's billing portal. Only the token opens it, never a link."""
        outcome = await self._billing.open_portal(
            _caller(request).customer, f"{self._ports.public_url}/_gateway/return"
        )
        if isinstance(outcome, NotBought):
            if outcome.reason is Reason.SUBSCRIPTION_REQUIRED:
                return await self._nothing_to_manage(request, outcome)
            return self._refuse(request, outcome.reason, outcome.detail)
        return JSONResponse({"url": outcome.url})

    async def returned(self, request: Request) -> Response:
        """Back from Stripe: sync at once and say what they now have."""
        state = request.query_params.get("state", "")
        if not state and "session_id" in request.query_params:
            return self._refuse(request, Reason.BAD_REQUEST, "This page is for a payment that did not begin here.")
        if not state:
            # The way back from the portal: nothing to settle, and this address proves nothing about anyone.
            return page("returned.html", heading="Back from billing", text="Changes take effect at once.", features=())
        claim = self._link(request, Purpose.RETURN, state)
        if isinstance(claim, Response):
            return claim
        session_id = request.query_params.get("session_id", "")
        if _SESSION_ID.fullmatch(session_id) is None:
            return self._refuse(request, Reason.BAD_REQUEST, "This page is for a payment that did not begin here.")
        problem = await self._billing.settle_session(session_id, claim.customer)
        if problem is not None:
            return self._refuse(request, problem.reason, problem.detail)
        entitlement = await self._ports.entitlement(claim.customer)
        if entitlement is not None:
            standing = entitlement.at(self._ports.entitlement_now())
            if standing.rank >= self._ports.ladder().rank(claim.tier):
                text = f"{claim.customer} is on '{standing.tier}' ({standing.status})."
                heading = f"You now have {standing.tier}"
                return page("returned.html", heading=heading, text=text, features=standing.features)
        text = "Stripe has not confirmed a payment yet. If you have just paid, reload this page in a moment."
        return page("returned.html", heading="Payment not finished", text=text, features=())

    async def problem(self, request: Request) -> Response:
        """What a reason means and what to do: the address in every problem's `type`."""
        named = request.path_params["reason"]
        if named not in set(Reason):
            return self._refuse(request, Reason.NO_ROUTE, "There is no such reason.")
        reason = Reason(named)
        answer, text = ANSWERS[reason], PAGES[reason]
        return page(
            "problem.html",
            reason=reason.value,
            status_code=answer.status,
            title=answer.title,
            cause=text.cause,
            remedy=text.remedy,
        )

    async def _pay_page(self, request: Request, claim: Claim, rank: int) -> Response:
        reason = _why(self._ports, await self._ports.entitlement(claim.customer), claim.tier)
        features = self._ports.ladder().features[rank]
        if reason is None:
            heading = f"You already have {claim.tier}"
            return page("returned.html", heading=heading, text="There is nothing to pay.", features=features)
        if reason is Reason.BLOCKED:
            return self._refuse(request, Reason.BLOCKED, _BLOCKED)
        return page(
            "pay.html",
            heading=_HEADINGS.get(reason, "Subscribe to {tier}").format(tier=claim.tier),
            tier=claim.tier,
            customer=claim.customer,
            features=features,
            # An open invoice has its own amount, which only Stripe knows: its page names it.
            offers=() if reason is Reason.PAYMENT_FAILED else self._ports.offers(claim.tier),
        )

    async def _paid_by_button(self, request: Request, claim: Claim) -> Response:
        choice = await read_choice(request)
        if not isinstance(choice, Choice):
            return self._refuse_body(request, choice)
        if choice.tier is not None and choice.tier != claim.tier:
            return self._refuse(request, Reason.BAD_REQUEST, f"This link sells '{claim.tier}' and nothing else.")
        outcome = await self._buy(claim.customer, claim.tier, choice)
        if isinstance(outcome, NotBought):
            return self._refuse(request, outcome.reason, outcome.detail)
        return RedirectResponse(outcome, status_code=303)

    async def _buy(self, customer: str, tier: str, choice: Choice) -> str | NotBought:
        entitlement = await self._ports.entitlement(customer)
        if entitlement is not None and entitlement.facts.blocked is not None:
            return NotBought(Reason.BLOCKED, _BLOCKED)
        success_url = _success_url(self._ports, customer, tier)
        outcome = await self._billing.open_checkout(customer, tier, choice.price, choice.interval, success_url)
        if not isinstance(outcome, NotBought):
            return outcome.url
        if outcome.reason is Reason.BAD_REQUEST and _prices_are_unknown(self._ports, tier, choice):
            return NotBought(Reason.BILLING_UNAVAILABLE, f"What '{tier}' costs has not been learnt from Stripe yet.")
        return outcome

    async def _nothing_to_manage(self, request: Request, outcome: NotBought) -> Response:
        """A 402 is whole wherever it comes from: it has the link that takes the money."""
        customer, ladder = _caller(request).customer, self._ports.ladder()
        entitlement, rank = await self._ports.entitlement(customer), ladder.cheapest_on_offer(0)
        if entitlement is None:
            detail = "Your subscription can't be looked up right now."
            return self._refuse(request, Reason.ENTITLEMENT_UNAVAILABLE, detail)
        if rank == NO_TIER:
            return self._refuse(request, Reason.BAD_REQUEST, outcome.detail)
        tier = ladder.names[rank]
        standing = entitlement.at(self._ports.entitlement_now())
        payment = Payment(customer, Requirement(Access.TIER, rank, tier), standing, tier, outcome.detail)
        return self._ports.refuse(request.scope, outcome.reason, outcome.detail, payment)

    def _link(self, request: Request, purpose: Purpose, link: str) -> Claim | Response:
        claim = verify(self._ports.signing_key, purpose, link, self._ports.wall())
        if isinstance(claim, LinkExpired):
            detail = "This link has expired. Repeat the request that led here to get a new one."
            return self._refuse(request, Reason.BAD_REQUEST, detail)
        if isinstance(claim, LinkInvalid):
            return self._refuse(request, Reason.BAD_REQUEST, "This link is not one of this gateway's, or was cut off.")
        return claim

    def _refuse_body(self, request: Request, problem: TooLarge | Malformed) -> Response:
        if isinstance(problem, TooLarge):
            detail = f"This endpoint takes at most {problem.limit} bytes."
            return self._refuse(request, Reason.BODY_TOO_LARGE, detail)
        return self._refuse(request, Reason.BAD_REQUEST, problem.detail)

    def _refuse(self, request: Request, reason: Reason, detail: str) -> Response:
        return self._ports.refuse(request.scope, reason, detail)


def _caller(request: Request) -> Caller:
    caller = request.scope[SCOPE_KEY]
    if not isinstance(caller, Caller):
        raise TypeError("an endpoint that needs a caller was reached without one")
    return caller


def _shown_path(request: Request) -> str:
    """The path to name in an answer: never what may be a payment link or an API key, which are secrets (P9)."""
    path: str = request.scope["path"]
    return "/_gateway/…" if "pay" in path.lower() or PREFIX in path else path[:200]


def _why(ports: PublicPorts, entitlement: Entitlement | None, tier: str) -> Reason | None:
    """Why this customer would be refused at `tier`: it names the page. None when they have it already."""
    if entitlement is None:
        return Reason.SUBSCRIPTION_REQUIRED
    requirement = Requirement(Access.TIER, ports.ladder().rank(tier), tier)
    decision = decide(requirement, entitlement, ports.ladder(), ports.entitlement_now())
    return decision.reason if isinstance(decision, Refuse) else None


def _prices_are_unknown(ports: PublicPorts, tier: str, choice: Choice) -> bool:
    """Whether nobody can say yet that the choice is wrong: Stripe has not been asked what the tier's prices are."""
    ladder = ports.ladder()
    rank, offers = ladder.rank(tier), ports.offers(tier)
    if rank < 0 or not ladder.sold[rank]:
        return False
    if choice.price is not None and choice.price not in {offer.price for offer in offers}:
        return not offers
    return all(offer.interval is None for offer in offers)


def _success_url(ports: PublicPorts, customer: str, tier: str) -> str:
    """Where Stripe sends the payer back to; Stripe fills in the session's id."""
    if ports.success_url:
        return ports.success_url
    claim = Claim(Purpose.RETURN, customer, tier, int(ports.wall()) + RETURN_LIFETIME_SECONDS)
    return (
        f"{ports.public_url}/_gateway/return?state={sign(ports.signing_key, claim)}&session_id={{CHECKOUT_SESSION_ID}}"
    )
