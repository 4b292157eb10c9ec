"""The configuration in force, and what follows from it: one place that a reload or a moved lookup key swaps whole.

Whoever asks here gets the answer of the generation in force at that moment; a request under way keeps the plan it took.
A new one is made beside the old (`prepare`, which may fail and changes nothing) and put in its place at once (`take`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from gateway.answers import Answers, Asked, raw_refusal
from gateway.credentials import ApiKeys, Authenticator
from gateway.plan import App, Plan
from gateway.tallies import Count
from gateway.telemetry import Metrics
from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import TrustedProxies
from gateway.upstream.outcome import Receive, Scope, Send
from gateway.walk import new_request_id
from policies.entitlement import BillingRules, Entitlement
from policies.facts import CustomerFacts
from policies.offers import Offer
from policies.reasons import ANSWERS, Reason
from policies.routes import RouteTable
from policies.schema import Config
from policies.scopes import asked_claims
from policies.tiers import Ladder, build_ladder

Offers = Callable[[str], tuple[Offer, ...]]
OwnApp = Callable[[Callable[[], Plan]], App]
"""Makes what serves the gateway's own endpoints under one plan, which is there once the app is asked something."""


async def _none(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("no own endpoints are served here")


_NO_PINS: Final[Mapping[str, str]] = {}


class InForce:
    """`known_offers` is what Stripe has been seen to sell for a tier; empty until it has been asked."""

    def __init__(
        self,
        config: Config,
        routes: RouteTable,
        *,
        signing_key: str,
        metrics: Metrics,
        api_keys: ApiKeys | None = None,
        own_app: OwnApp = lambda _plan: _none,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.known_offers: Offers = lambda _tier: ()
        self._metrics = metrics
        self._lookup_counters: dict[str, Count] = {}
        self._api_keys = api_keys
        self._own_app = own_app
        self._wall = wall
        self._pins = _NO_PINS
        self.plan = self._make_plan(
            config, routes, signing_key, self._make_authenticator(config), Upstreams(config.upstreams)
        )

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.plan.config

    @property
    def routes(self) -> RouteTable:
        """Its routes."""
        return self.plan.routes

    @property
    def ladder(self) -> Ladder:
        """Its tiers."""
        return self.plan.ladder

    @property
    def rules(self) -> BillingRules:
        """How late money may be."""
        return self.plan.rules

    @property
    def authenticator(self) -> Authenticator:
        """Whose tokens are good."""
        return self.plan.authenticator

    def prepare(self, config: Config, routes: RouteTable, signing_key: str) -> Plan:
        """The plan of another configuration, with what stays of this one. It may run in a thread; nothing changes yet.

        Raises TlsFilesError.
        """
        old = self.plan
        if config.auth == old.config.auth and asked_claims(config) == asked_claims(old.config):
            authenticator = old.authenticator
        else:
            # Tokens that were verified under other rules are forgotten; keys that were fetched are kept.
            authenticator = self._make_authenticator(config)
            authenticator.inherit_keys(old.authenticator)
        upstreams = Upstreams(config.upstreams, predecessor=old.upstreams)
        return self._make_plan(config, routes, signing_key, authenticator, upstreams)

    def take(self, plan: Plan) -> None:
        """This one is in force."""
        self.plan = plan
        self.use_pins(self._pins)  # they may have moved since it was made

    def use_pins(self, pins: Mapping[str, str]) -> None:
        """Prices pinned to tiers have changed: another plan of the same configuration."""
        self._pins = dict(pins)
        old = self.plan
        self.plan = self._make_plan(old.config, old.routes, old.signing_key, old.authenticator, old.upstreams)

    def derive(self, facts: CustomerFacts) -> Entitlement:
        """What these facts give; what can't be understood is counted."""
        entitlement = self.plan.derive(facts)
        if entitlement.unmapped:
            self._metrics.unmapped.inc(len(entitlement.unmapped))
        if entitlement.unknown_statuses:
            self._metrics.unknown_statuses.inc(len(entitlement.unknown_statuses))
        return entitlement

    def count_lookup(self, result: str) -> None:
        """Where an entitlement came from."""
        counter = self._lookup_counters.get(result)
        if counter is None:
            counter = self._lookup_counters[result] = self._metrics.lookups.labels(result)
        counter.inc()

    def next_edge(self, facts: CustomerFacts, now: float) -> float | None:
        """When the answer to these facts may change by itself."""
        return self.plan.derive(facts).next_edge(now)

    def refuse_raw(self, reason: Reason, detail: str) -> bytes:
        """A refusal of what never became a request, as bytes that end the connection; it is counted all the same."""
        self._metrics.requests.labels("_none", "_other", str(ANSWERS[reason].status), reason.value).inc()
        return raw_refusal(self.plan.answers.refuse(reason, detail, Asked("", "", new_request_id())))

    def _make_authenticator(self, config: Config) -> Authenticator:
        return Authenticator(config.auth, now=self._wall, api_keys=self._api_keys, kept_claims=asked_claims(config))

    def _offers_of(self, config: Config, ladder: Ladder) -> Offers:
        def offers(tier: str) -> tuple[Offer, ...]:
            """What a tier costs; before Stripe has been asked, the prices' ids alone."""
            known = self.known_offers(tier)
            if known:
                return known
            rank = ladder.rank(tier)
            return tuple(Offer(tier, price) for price in config.tiers[rank].prices) if rank >= 0 else ()

        return offers

    def _make_plan(
        self,
        config: Config,
        routes: RouteTable,
        signing_key: str,
        authenticator: Authenticator,
        upstreams: Upstreams,
    ) -> Plan:
        server = config.server
        public = urlsplit(server.public_url)
        ladder = build_ladder(config.tiers, self._pins)
        offers = self._offers_of(config, ladder)
        plan = Plan(
            config=config,
            routes=routes,
            ladder=ladder,
            rules=BillingRules.of(config.billing),
            signing_key=signing_key,
            authenticator=authenticator,
            answers=Answers(
                public_url=server.public_url,
                signing_key=signing_key.encode(),
                pay_link_ttl=config.billing.pay_link_ttl,
                cors_origins=server.cors_origins,
                cors_credentials=any(source.kind == "cookie" for source in authenticator.sources),
                offers=offers,
                wall=self._wall,
            ),
            upstreams=upstreams,
            trusted_proxies=TrustedProxies(server.trusted_proxies),
            own_origins=frozenset(
                origin.encode() for origin in (*server.cors_origins, f"{public.scheme}://{public.netloc}")
            ),
            offers=offers,
            own_app=self._own_app(lambda: plan),
        )
        return plan
