"""Features that Stripe grants, and the guard: whoever has them from Stripe has no other route's tier by them (P1)."""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING, Final

import pytest

from policies.compiled_route import asking_also, asking_for_both
from policies.decision import Forward, decide
from policies.entitlement import BillingRules, derive
from policies.facts import CustomerFacts, GrantFact
from policies.routes import Matched, compile_routes
from policies.schema import Billing, Config, Route
from policies.supposed import Supposition, suppose
from policies.tiers import build_ladder
from tests.support.route_tables import TIERS, config_of, route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.compiled_route import CompiledRoute
    from policies.entitlement import Entitlement
    from policies.requirement import Requirement
    from policies.routes import RouteTable

NOW: Final = 1_800_000_000
LADDER: Final = build_ladder(TIERS)
BY_STRIPE: Final = BillingRules(0, 0, features_from_stripe=True)


def subsets(of: Iterable[str]) -> list[tuple[str, ...]]:
    names = tuple(of)
    return list(chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))


def somebody(tier: str | None, features: tuple[str, ...]) -> Entitlement:
    """On this tier, paying for something, and granted these features by Stripe."""
    facts = suppose(Supposition("pro"), TIERS, NOW)
    assert isinstance(facts, CustomerFacts)
    if tier is None:  # paid for, and of no tier
        paid = facts.subscriptions[0]
        item = type(paid.items[0])("price_addon", "", None, NOW - 1, NOW + 86_400, 1)
        facts = CustomerFacts("a", 1, (type(paid)("sub_a", "active", (item,), created=NOW - 1),), fetched_at=NOW)
    grants = () if tier in {None, "pro"} else (GrantFact(1, str(tier), None, "x", "x"),)
    return derive(
        CustomerFacts("a", 1, facts.subscriptions, grants, fetched_at=NOW, features=features), LADDER, BY_STRIPE
    )


EVERYBODY: Final = [
    somebody(tier, has) for tier in (None, "pro", "enterprise") for has in subsets(("sso", "beta", "gamma"))
]


def let_in(needs: Requirement) -> frozenset[int]:
    """Who of everybody is."""
    return frozenset(
        number for number, one in enumerate(EVERYBODY) if isinstance(decide(needs, one, LADDER, NOW), Forward)
    )


def granting(*routes: Route) -> RouteTable:
    config: Config = config_of(*routes).model_copy(update={"billing": Billing(features_from="stripe")})
    outcome = compile_routes(config)
    assert outcome.table is not None, outcome.problems
    return outcome.table


def test_a_route_asks_as_much_as_another_only_where_it_lets_nobody_else_in() -> None:
    routes = [
        route(f"/r{number}", **({"tier": tier} if tier else {}), features=features)
        for number, (tier, features) in enumerate(
            (tier, features)
            for tier in (None, "free", "pro", "enterprise")
            for features in subsets(("export", "sso", "beta", "gamma"))
            if tier or features
        )
    ]
    compiled: tuple[CompiledRoute, ...] = granting(*routes).routes
    admitted = {one.label: let_in(one.requirement) for one in compiled}
    assert len(set(admitted.values())) > 10
    for one in compiled:
        for other in compiled:
            if one.asks_as_much_as(other):
                assert admitted[one.label] <= admitted[other.label], (one, other)
            assert let_in(asking_also(one, other).requirement) <= admitted[one.label] & admitted[other.label], (
                one,
                other,
            )
            assert let_in(asking_for_both(one, other).requirement) <= admitted[one.label] & admitted[other.label]
            if one.assured >= other.demanded:  # then the guard isn't even asked
                assert admitted[one.label] <= admitted[other.label], (one, other)


@pytest.mark.parametrize("raw", ["/v1/admin%20", "/v1/%61dmin%20", "/v1%2Fadmin", "/v1%3F/admin", "/v1/admin%2F"])
def test_no_respelling_reaches_a_tiers_route_by_what_stripe_grants(raw: str) -> None:
    table = granting(
        route("/v1/admin/**", tier="enterprise"),
        route("/v1", tier="enterprise"),
        route("/**", features=("beta",), encoded_slash="literal"),
    )
    plain = table.find("GET", "", b"/other")
    assert isinstance(plain, Matched)
    assert isinstance(decide(plain.route.requirement, somebody("pro", ("beta",)), LADDER, NOW), Forward)
    found = table.find("GET", "", raw.encode())
    assert isinstance(found, Matched)
    assert not isinstance(decide(found.route.requirement, somebody("pro", ("beta",)), LADDER, NOW), Forward)
    both = somebody("enterprise", ("beta",))
    assert isinstance(decide(found.route.requirement, both, LADDER, NOW), Forward)
