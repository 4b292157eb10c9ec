"""What the public endpoints need of the rest of the house, as the composition root hands it over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response

from admin.api_keys import KeyOperations
from policies.entitlement import Entitlement
from policies.offers import Offer, Payment
from policies.reasons import Reason
from policies.routes import CompiledRoute
from policies.tiers import Ladder


class RefusalWriter(Protocol):
    """Builds a refusal in the gateway's one shape, from the request's scope; with a `payment`, a whole 402."""

    def __call__(
        self, scope: Mapping[str, Any], reason: Reason, detail: str, payment: Payment | None = None
    ) -> Response:
        """The whole answer."""


@dataclass(frozen=True, slots=True)
class PublicPorts:
    """Views of the configuration in force, and the way to a customer's entitlement.

    `entitlement` gives None where nothing could be looked up. `entitlement_now` is the entitlement clock, `wall` real
    UTC seconds: links and signatures keep real time.
    """

    refuse: RefusalWriter
    entitlement: Callable[[str], Awaitable[Entitlement | None]]
    ladder: Callable[[], Ladder]
    routes: Callable[[], tuple[CompiledRoute, ...]]
    offers: Callable[[str], tuple[Offer, ...]]
    entitlement_now: Callable[[], float]
    wall: Callable[[], float]
    signing_key: bytes = field(repr=False)
    public_url: str
    success_url: str
    keys: KeyOperations | None = None


@dataclass(frozen=True, slots=True)
class Bought:
    """A page of Stripe's to send the payer to; whoever holds its address may use it."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotBought:
    """Why there is no such page."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a webhook call: `reason` is None when it was taken in and Stripe may forget it."""

    detail: str
    reason: Reason | None = None


class Billing(Protocol):
    """The money side, as `admin.stripe` carries it out."""

    async def receive_event(self, body: bytes, signature: str | None) -> Received:
        """Verify and store an event, and try to act on it."""

    async def open_checkout(
        self, customer: str, tier: str, price: str | None, interval: str | None, success_url: str
    ) -> Bought | NotBought:
        """The page on which `customer` can pay for `tier`."""

    async def open_portal(self, customer: str, return_url: str) -> Bought | NotBought:
        """The billing portal of `customer`."""

    async def settle_session(self, session_id: str, customer: str) -> NotBought | None:
        """Sync at once after a return from Checkout; None when done, whatever it found."""
