"""`policies.access_diff`: nobody loses a route unseen, and nothing is reported that doesn't change."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.access_cells import OTHER_METHODS
from policies.access_diff import Comparison, affected, compare
from policies.explain import Rules
from policies.facts import CustomerFacts, GrantFact, SubscriptionFact
from policies.paths import Target, read_target
from policies.reasons import Reason
from policies.routes import compile_routes
from policies.schema import Billing, Config, Route, Tier, Upstream
from policies.setting_changes import Effect
from policies.supposed import Supposition, item_of, suppose
from policies.tiers import build_ladder
from policies.verdict import Caller, Question, judge
from tests.support.route_tables import TIERS, config_of, route

NOW = 1_800_000_000


def rules(*routes: Route, tiers: tuple[Tier, ...] = TIERS, **rest: Any) -> Rules:
    billing = rest.pop("billing", Billing())
    config = config_of(*routes, **rest).model_copy(update={"tiers": tiers, "billing": billing})
    return compiled(config)


def compiled(config: Config) -> Rules:
    outcome = compile_routes(config)
    assert outcome.table is not None, outcome.problems
    return Rules(config, outcome.table, build_ladder(config.tiers))


def shown(comparison: Comparison) -> set[tuple[str, str, str, str]]:
    return {(one.effect.value, one.path, one.after, who) for one in comparison.differences for who in one.who}


def test_the_same_rules_differ_in_nothing_whatever_their_order() -> None:
    routes = [route("/a"), route("/a/{x}", tier="pro"), route("/{y}/b", tier="enterprise"), route("/**", tier="free")]

    same = compare(rules(*routes), rules(*reversed(routes)))

    assert (same.differences, same.settings, same.somebody_loses) == ((), (), False)


def test_a_public_route_that_asks_for_a_tier_is_lost_by_everybody_below() -> None:
    comparison = compare(rules(route("/a")), rules(route("/a", tier="pro")))

    assert shown(comparison) == {
        ("loses", "/a", "401 token_missing", "nobody"),
        ("loses", "/a", "402 tier_required", "any token"),
        ("loses", "/a", "402 tier_required", "free"),
        # A public route compares its path exactly; one with a tier also takes these.
        ("differs", "/a/", "401 token_missing", "nobody"),
        ("differs", "/a/", "402 tier_required", "any token"),
        ("differs", "/a/", "402 tier_required", "free"),
        ("gains", "/a/", "forward", "pro"),
        ("gains", "/a/", "forward", "enterprise"),
    }
    assert comparison.somebody_loses


def test_a_route_that_asks_for_less_takes_nothing_from_anybody() -> None:
    comparison = compare(rules(route("/a", tier="enterprise")), rules(route("/a", tier="pro")))

    assert shown(comparison) == {("gains", "/a", "forward", "pro")}
    assert not comparison.somebody_loses


def test_a_method_that_is_no_longer_routed_is_lost_and_the_rest_is_left_out() -> None:
    comparison = compare(rules(route("/a", tier="pro")), rules(route("/a", tier="pro", methods=("GET",))))

    assert {(one.effect, one.methods) for one in comparison.differences} == {
        (Effect.LOSES, (OTHER_METHODS,)),
        (Effect.DIFFERS, (OTHER_METHODS,)),
    }


def test_what_two_patterns_share_is_seen_though_neither_sample_shows_it() -> None:
    old = rules(route("/{y}/b/c", tier="free"))
    new = rules(route("/{y}/b/c", tier="free"), route("/a/{x}/c", tier="enterprise"))

    comparison = compare(old, new)

    assert ("loses", "/a/b/c", "402 tier_required", "pro") in shown(comparison)


def test_a_default_that_closes_is_lost_where_no_route_reaches() -> None:
    comparison = compare(rules(route("/a"), default="public"), rules(route("/a")))

    assert {one.route_before for one in comparison.differences} == {"default"}
    assert comparison.somebody_loses


def test_a_host_that_is_taken_from_a_route_is_compared_under_that_host_and_others() -> None:
    comparison = compare(rules(route("/a", host="h.test")), rules(route("/a")))

    assert {(one.effect.value, one.host) for one in comparison.differences} == {("gains", "")}


def test_a_route_that_becomes_exact_gives_its_other_spellings_to_the_laxer_route() -> None:
    comparison = compare(
        rules(route("/api/x", tier="pro"), route("/**", access="authenticated")),
        rules(route("/api/x", tier="pro", spelling="exact"), route("/**", access="authenticated")),
    )

    # Respelled, the route is the open one's now: more get in, which a reviewer must see. '/api/x/' stands for all of them.
    assert {(one.path, one.route_after, one.effect.value) for one in comparison.differences} == {
        ("/api/x/", "/**", "gains")
    }


def test_another_upstream_is_a_difference_that_takes_nothing() -> None:
    upstreams = {name: Upstream(targets=("http://127.0.0.1:1",)) for name in ("api", "other")}
    old = config_of(route("/a", upstream="api")).model_copy(update={"upstreams": upstreams})
    new = config_of(route("/a", upstream="other")).model_copy(update={"upstreams": upstreams})

    comparison = compare(compiled(old), compiled(new))

    assert {(one.before, one.after, one.effect) for one in comparison.differences} == {
        ("forward to api", "forward to other", Effect.DIFFERS)
    }
    assert not comparison.somebody_loses


def test_a_renamed_tier_takes_nothing_from_those_who_pay_only_from_its_grants() -> None:
    renamed = (TIERS[0], TIERS[1].model_copy(update={"name": "plus"}), TIERS[2])
    comparison = compare(rules(route("/a", tier="pro")), rules(route("/a", tier="plus"), tiers=renamed))

    assert shown(comparison) == {
        ("loses", "/a", "402 tier_required", "pro (a grant)"),
        ("gains", "/a", "forward", "plus"),
    }


def test_a_price_that_moves_to_a_lower_tier_names_that_price() -> None:
    free, pro, enterprise = TIERS
    two = (free, pro, enterprise.model_copy(update={"prices": ("price_ent", "price_old")}))
    moved = (free, pro.model_copy(update={"prices": ("price_pro", "price_old")}), enterprise)

    comparison = compare(
        rules(route("/a", tier="enterprise"), tiers=two), rules(route("/a", tier="enterprise"), tiers=moved)
    )

    assert shown(comparison) == {("loses", "/a", "402 tier_required", "enterprise (price_old)")}


@pytest.mark.parametrize(("before", "after", "loses"), [(72.0, 24.0, True), (24.0, 72.0, False)])
@pytest.mark.parametrize("setting", ["renewal_leeway", "past_due_grace"])
def test_less_time_for_late_money_is_a_loss(setting: str, before: float, after: float, loses: bool) -> None:
    old, new = (
        rules(route("/a"), billing=Billing().model_copy(update={setting: hours * 3600})) for hours in (before, after)
    )

    comparison = compare(old, new)

    assert [(one.name, one.before, one.after) for one in comparison.settings] == [
        (f"billing.{setting}", *(f"{hours:g}h" if hours % 24 else f"{hours / 24:g}d" for hours in (before, after)))
    ]
    assert comparison.somebody_loses is loses


# Customers of a ledger


def pays(customer: str, price: str, status: str = "active", until: int = NOW + 9) -> CustomerFacts:
    subscription = SubscriptionFact("sub", status, (item_of(price=price, until=until),), created=0)
    return CustomerFacts(customer, 1, subscriptions=(subscription,))


def test_the_customers_who_lose_or_gain_a_route_are_counted_and_those_who_pay_apart() -> None:
    old, new = (
        rules(route("/a", tier="free"), route("/b", tier="enterprise")),
        rules(route("/a", tier="pro"), route("/b", tier="pro")),
    )
    granted = CustomerFacts("g", 1, grants=(GrantFact(1, "pro", None, "", ""),))
    nothing, blocked = CustomerFacts("n", 1), CustomerFacts("x", 1, blocked="abuse")
    everybody = [pays("p1", "price_pro"), pays("p2", "price_pro"), pays("e", "price_ent"), granted, nothing, blocked]

    found = {one.path: one for one in affected(compare(old, new), old, new, everybody, NOW)}

    assert set(found) == {"/a", "/b"}
    assert (found["/a"].losing, found["/a"].losing_paying, found["/a"].gaining) == (1, 0, 0)
    assert (found["/b"].gaining, found["/b"].gaining_paying, found["/b"].losing) == (3, 2, 0)


def test_a_shorter_grace_counts_those_whom_it_ends_now() -> None:
    old, new = (rules(route("/a", tier="pro"), billing=Billing(past_due_grace=hours * 3600.0)) for hours in (72, 24))
    late = pays("late", "price_pro", "past_due", until=NOW - 48 * 3600 + 30 * 86_400)

    (found,) = affected(compare(old, new), old, new, [late, pays("fine", "price_pro")], NOW)

    assert (found.path, found.losing, found.losing_paying) == ("/a", 1, 1)


def test_a_ledger_without_customers_is_touched_by_nothing() -> None:
    old, new = rules(route("/a")), rules(route("/a", tier="pro"))

    assert affected(compare(old, new), old, new, [], NOW) == ()


# Nothing is missed: whatever request differs in its outcome for somebody, the comparison has that change.


SEGMENTS = ("a", "b", "{x}", "{y}")
PATHS = st.lists(st.sampled_from(SEGMENTS), max_size=3).map(tuple)
WHO: tuple[dict[str, Any], ...] = (
    {"access": "public"},
    {"access": "authenticated"},
    {"tier": "pro"},
    {"tier": "enterprise"},
    {"tier": "pro", "spelling": "exact"},
)


@st.composite
def some_routes(draw: st.DrawFn, who: tuple[dict[str, Any], ...] = WHO) -> Route:
    segments = draw(PATHS)
    names = [f"{{{segment[1]}{place}}}" if segment[0] == "{" else segment for place, segment in enumerate(segments)]
    tail = draw(st.sampled_from(["", "", "/**"]))
    path = "".join(f"/{name}" for name in names) + tail or "/"
    methods = draw(st.sampled_from([(), (), ("GET",), ("POST",)]))
    host = draw(st.sampled_from([None, None, "h.test"]))
    return Route(path=path, methods=methods, host=host, **draw(st.sampled_from(who)))


def callers(of: Rules) -> list[Caller]:
    found: list[Caller] = [Reason.TOKEN_MISSING]
    for tier in (None, "pro", "enterprise"):
        facts = suppose(Supposition(tier), of.config.tiers, NOW)
        assert isinstance(facts, CustomerFacts)
        found.append(of.derive(facts))
    return found


PLACES = ["/", *("".join(f"/{one}" for one in path) for length in (1, 2, 3) for path in product("abz", repeat=length))]
REQUESTS = [
    (method, host, path)
    for method, host in product(("GET", "POST", "PUT"), ("", "h.test"))
    for place in (*PLACES, "/a/a/a/a", "/z/z/z/z")
    for path in dict.fromkeys((place, place.removesuffix("/") + "/"))
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(some_routes(), max_size=4), st.lists(some_routes(), max_size=4), st.lists(some_routes(), max_size=2),
    st.sampled_from(["deny", "public", "pro"]),
)  # fmt: skip
def test_whatever_changes_for_anybody_is_among_the_differences(
    before: list[Route], after: list[Route], both: list[Route], default: str
) -> None:
    old_config, new_config = config_of(*both, *before), config_of(*both, *after, default=default)
    old_table, new_table = compile_routes(old_config).table, compile_routes(new_config).table
    if old_table is None or new_table is None:
        return
    old = Rules(old_config, old_table, build_ladder(old_config.tiers))
    new = Rules(new_config, new_table, build_ladder(new_config.tiers))
    told = {(one.before, one.after) for one in compare(old, new).differences}

    met: set[tuple[str, str]] = set()
    for method, host, path in REQUESTS:
        target = read_target(path.encode())
        assert isinstance(target, Target)
        for one, other in zip(callers(old), callers(new), strict=True):
            question = Question(method, path.encode(), host)
            was = judge(old.table, old.ladder, question, one, NOW).outcome
            now = judge(new.table, new.ladder, question, other, NOW).outcome
            if was != now:
                met.add((was, now))

    assert met <= told


LITERAL: tuple[dict[str, Any], ...] = (
    {"access": "public", "encoded_slash": "literal"},
    {"tier": "pro", "encoded_slash": "literal", "double_slash": "literal"},
    {"access": "public", "double_slash": "literal"},
)


def with_a_slash_to_take(path: str) -> list[str]:
    """The path with one of its inner slashes encoded, or doubled."""
    inner = [at for at, sign in enumerate(path) if sign == "/" and at]
    return [f"{path[:at]}{how}{path[at + 1 :]}" for at in inner for how in ("%2F", "//")]


SLASHED = [
    (host, path)
    for host in ("", "h.test")
    for place in PLACES
    if "z" not in place
    for path in with_a_slash_to_take(place)
]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(["deny", "public", "pro"]))
def test_whatever_changes_for_a_slash_that_is_taken_literally_is_among_the_differences(
    data: st.DataObject, default: str
) -> None:
    few = st.lists(some_routes(), max_size=1)  # or one difference hides another of the same words
    both = [data.draw(some_routes(LITERAL)), *data.draw(few)]
    old_config, new_config = config_of(*both, *data.draw(few)), config_of(*both, *data.draw(few), default=default)
    old_table, new_table = compile_routes(old_config).table, compile_routes(new_config).table
    if old_table is None or new_table is None or not (old_table.reads_literally and new_table.reads_literally):
        return
    old = Rules(old_config, old_table, build_ladder(old_config.tiers))
    new = Rules(new_config, new_table, build_ladder(new_config.tiers))
    told = {(one.before, one.after) for one in compare(old, new).differences}
    for host, path in SLASHED:
        for one, other in zip(callers(old), callers(new), strict=True):
            question = Question("GET", path.encode(), host)
            was, now = (
                judge(old.table, old.ladder, question, one, NOW),
                judge(new.table, new.ladder, question, other, NOW),
            )
            if was.route is not None and now.route is not None and was.outcome != now.outcome:
                assert (was.outcome, now.outcome) in told, (host, path)


def test_a_route_that_an_encoded_slash_may_mean_takes_something_though_its_own_path_was_nobodys() -> None:
    taking = route("/repos/{id}", tier="pro", encoded_slash="literal")
    comparison = compare(rules(taking), rules(taking, route("/repos/admin/{x}", tier="enterprise")))
    assert comparison.somebody_loses
    assert ("loses", "/repos/admin%2F~", "402 tier_required", "pro") in shown(comparison)
    free = route("/repos/{id}", encoded_slash="literal")
    assert compare(rules(free), rules(free, default="authenticated")).somebody_loses
    merging = route("/fetch/**", double_slash="literal")
    assert ("loses", "/fetch//x/y", "402 tier_required", "free") in shown(
        compare(rules(merging), rules(merging, route("/fetch/x/y", tier="pro")))
    )
    assert not compare(rules(taking), rules(taking, route("/other/admin/{x}", tier="enterprise"))).somebody_loses


BY_STRIPE = Billing(features_from="stripe")


def test_what_stripe_grants_is_lost_where_a_route_asks_for_more_than_that() -> None:
    before = rules(route("/f", features=("beta",)), billing=BY_STRIPE)
    after = rules(route("/f", features=("beta", "gamma")), billing=BY_STRIPE)
    who = {who for one in compare(before, after).differences if one.effect is Effect.LOSES for who in one.who}
    assert who == {"a price of no tier granted beta", "pro granted beta", "enterprise granted beta"}
    again = compare(after, before)
    assert not again.somebody_loses
    assert again.differences
    told = shown(compare(rules(route("/g"), billing=BY_STRIPE), rules(route("/g", tier="pro"), billing=BY_STRIPE)))
    assert not [who for *_, who in told if "granted" in who], "they meet what everybody does"


def test_customers_are_counted_by_what_stripe_grants_them_as_well() -> None:
    old, new = (
        rules(route("/f", tier="pro"), billing=BY_STRIPE),
        rules(route("/f", features=("beta",)), billing=BY_STRIPE),
    )
    paid = SubscriptionFact("sub", "active", (item_of(price="price_pro", until=NOW + 9),), created=NOW - 9)
    customers = [
        CustomerFacts(f"c{number}", 1, (paid,), fetched_at=NOW, features=features)
        for number, features in enumerate([(), ("beta",), (), ("beta", "x")])
    ]
    (counted,) = affected(compare(old, new), old, new, customers, NOW)
    assert (counted.losing, counted.losing_paying, counted.gaining) == (2, 2, 0)


def somebody_on(name: str) -> CustomerFacts:
    """A customer of this name who has bought nothing."""
    return CustomerFacts(name, 1, fetched_at=NOW)
