"""The configuration in force, and what follows from it: one place that a reload or a moved lookup key swaps whole.

Whoever asks here gets the answer of the generation in force at that moment; a request under way keeps the plan it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Counter
from starlette.responses import Response

from gateway.answers import Answers, Asked, raw_refusal
from gateway.credentials import ApiKeys, Authenticator
from gateway.own_endpoints import ASKED_KEY
from gateway.plan import Plan
from gateway.telemetry import Metrics
from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import TrustedProxies
from gateway.walk import new_request_id
from policies.entitlement import BillingRules, Entitlement, derive
from policies.facts import CustomerFacts
from policies.offers import Offer, Payment
from policies.reasons import ANSWERS, Reason
from policies.routes import RouteTable
from policies.schema import Config
from policies.scopes import asked_claims
from policies.tiers import build_ladder

Offers = Callable[[str], tuple[Offer, ...]]


class InForce:
    """`offers` is what Stripe has been seen to sell for a tier; empty until it has been asked."""

    def __init__(
        self,
        config: Config,
        routes: RouteTable,
        *,
        signing_key: str,
        metrics: Metrics,
        api_keys: ApiKeys | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.routes = routes
        self.signing_key = signing_key.encode()
        self.rules = BillingRules.of(config.billing)
        self.ladder = build_ladder(config.tiers)
        self.authenticator = Authenticator(config.auth, now=wall, api_keys=api_keys, kept_claims=asked_claims(config))
        self.known_offers: Offers = lambda _tier: ()
        self._upstreams = Upstreams(config.upstreams)
        self._metrics = metrics
        self._lookup_counters: dict[str, Counter] = {}
        self._wall = wall
        self.plan = self._make_plan()

    def use_pins(self, pins: Mapping[str, str]) -> None:
        """Prices pinned to tiers have changed: a new generation."""
        self.ladder = build_ladder(self.config.tiers, pins)
        self.plan = self._make_plan()

    def derive(self, facts: CustomerFacts) -> Entitlement:
        """What these facts give; what can't be understood is counted."""
        entitlement = derive(facts, self.ladder, self.rules)
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
        return derive(facts, self.ladder, self.rules).next_edge(now)

    def offers(self, tier: str) -> tuple[Offer, ...]:
        """What a tier costs; before Stripe has been asked, the prices' ids alone."""
        known = self.known_offers(tier)
        if known:
            return known
        rank = self.ladder.rank(tier)
        return tuple(Offer(tier, price) for price in self.config.tiers[rank].prices) if rank >= 0 else ()

    def refuse(self, scope: Mapping[str, Any], reason: Reason, detail: str, payment: Payment | None = None) -> Response:
        """A refusal of the gateway's own endpoints, in the one shape of all; with a `payment`, a whole 402."""
        asked: Asked = scope[ASKED_KEY]
        answers = self.plan.answers
        if payment is not None:
            answer = answers.payment_required(reason, payment, asked)
        else:
            answer = answers.refuse(reason, detail, asked)
        response = Response(answer.body, status_code=answer.status)
        response.raw_headers = list(answer.headers)
        return response

    def refuse_raw(self, reason: Reason, detail: str) -> bytes:
        """A refusal of what never became a request, as bytes that end the connection; it is counted all the same."""
        self._metrics.requests.labels("_none", "_other", str(ANSWERS[reason].status), reason.value).inc()
        return raw_refusal(self.plan.answers.refuse(reason, detail, Asked("", "", new_request_id())))

    def _make_plan(self) -> Plan:
        server = self.config.server
        public = urlsplit(server.public_url)
        return Plan(
            config=self.config,
            routes=self.routes,
            ladder=self.ladder,
            authenticator=self.authenticator,
            answers=Answers(
                public_url=server.public_url,
                signing_key=self.signing_key,
                pay_link_ttl=self.config.billing.pay_link_ttl,
                cors_origins=server.cors_origins,
                cors_credentials=any(source.kind == "cookie" for source in self.authenticator.sources),
                offers=self.offers,
                wall=self._wall,
            ),
            upstreams=self._upstreams,
            trusted_proxies=TrustedProxies(server.trusted_proxies),
            own_origins=frozenset(
                origin.encode() for origin in (*server.cors_origins, f"{public.scheme}://{public.netloc}")
            ),
        )
