"""Everything that one configuration generation decides with, swapped whole (P10).

A request takes the plan once, at its start, and finishes on it: a reload never shows it half of each. That holds for
what a customer has, too: a rank means a rung of one ladder, so facts are read by the plan that judges them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.answers import Answers
from gateway.credentials import Authenticator
from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import TrustedProxies
from gateway.upstream.outcome import Receive, Scope, Send
from policies.entitlement import BillingRules, Entitlement, derive
from policies.facts import CustomerFacts
from policies.offers import Offer
from policies.routes import RouteTable
from policies.schema import Config
from policies.tiers import Ladder

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One loaded configuration, compiled. `own_origins` may use a cookie token on the gateway's own endpoints.

    `own_app` serves those endpoints, `offers` is what a tier costs.
    """

    config: Config
    routes: RouteTable
    ladder: Ladder
    rules: BillingRules
    signing_key: str = field(repr=False)
    authenticator: Authenticator
    answers: Answers
    upstreams: Upstreams
    trusted_proxies: TrustedProxies
    own_origins: frozenset[bytes]
    offers: Callable[[str], tuple[Offer, ...]]
    own_app: App

    def derive(self, facts: CustomerFacts) -> Entitlement:
        """What these facts give under this configuration."""
        return derive(facts, self.ladder, self.rules)
