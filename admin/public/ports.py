"""What the public endpoints need of the rest of the house, as the composition root hands it over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response

from policies.entitlement import Entitlement
from policies.offers import Offer
from policies.reasons import Reason
from policies.routes import CompiledRoute
from policies.tiers import Ladder


class RefusalWriter(Protocol):
    """Builds a refusal in the gateway's one shape, from the request's scope."""

    def __call__(
        self, scope: Mapping[str, Any], reason: Reason, detail: str, facts: dict[str, Any] | None = None
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
    signing_key: bytes
    public_url: str
    success_url: str
