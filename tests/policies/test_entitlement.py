"""docs/design.md, section 5, line by line: the table, its edges, and properties that hold for any facts."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.entitlement import BillingRules, Entitlement, derive, edge_after
from policies.facts import CustomerFacts, GrantFact, ItemFact, SubscriptionFact, decode, encode
from policies.schema import Tier
from policies.tiers import NO_TIER, Ladder, build_ladder

HOUR, DAY = 3600, 86400
T0 = 1_800_000_000
END = T0 + 30 * DAY
RULES = BillingRules(renewal_leeway=48 * HOUR, past_due_grace=72 * HOUR)
TIERS = (
    Tier(name="free"),
    Tier(name="pro", prices=("price_pro",), lookup_keys=("pro_key",), features=("export",)),
    Tier(name="enterprise", prices=("price_ent",), products=("prod_ent",), features=("sso",)),
)
LADDER = build_ladder(TIERS)
NO_FREE = build_ladder(TIERS[1:])


def item(
    price: str = "price_pro", *, start: int | None = T0, end: int | None = END, quantity: int | None = 1
) -> ItemFact:
    return ItemFact(price, f"prod_of_{price}", None, start, end, quantity)


def sub(status: str = "active", *items: ItemFact, id: str = "sub_1", **more: object) -> SubscriptionFact:  # noqa: A002
    base = SubscriptionFact(id=id, status=status, items=items or (item(),), created=T0)
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def entitled(*subscriptions: SubscriptionFact, ladder: Ladder = LADDER, **more: object) -> Entitlement:
    facts = CustomerFacts(customer="alice", version=1, subscriptions=subscriptions, fetched_at=T0)
    return derive(dataclasses.replace(facts, **more), ladder, RULES)  # type: ignore[arg-type]


def last_second(entitlement: Entitlement, end: float) -> None:
    """Access a second before `end`, none at it."""
    assert entitlement.at(end - 1).tier == "pro"
    assert entitlement.at(end).tier == "free"


@pytest.mark.parametrize("status", ["active", "trialing"])
def test_a_renewing_subscription_admits_until_its_period_and_the_leeway(status: str) -> None:
    last_second(entitled(sub(status)), END + 48 * HOUR)


@pytest.mark.parametrize("status", ["active", "trialing"])
def test_a_planned_end_at_or_before_the_period_end_is_exact(status: str) -> None:
    last_second(entitled(sub(status, cancel_at=END)), END)
    last_second(entitled(sub(status, cancel_at=END - DAY)), END - DAY)


def test_cancel_at_period_end_alone_plans_the_items_own_end() -> None:
    last_second(entitled(sub(cancel_at_period_end=True)), END)


def test_cancel_at_period_end_alone_ends_all_items_with_the_earliest_of_them() -> None:
    yearly, monthly = item(end=END + 300 * DAY), item("price_extra")
    last_second(entitled(sub("active", yearly, monthly, cancel_at_period_end=True)), END)


def test_cancel_at_wins_over_the_boolean() -> None:
    last_second(entitled(sub(cancel_at_period_end=True, cancel_at=END - DAY)), END - DAY)


def test_a_planned_end_after_the_period_still_needs_the_period_to_be_renewed() -> None:
    last_second(entitled(sub(cancel_at=END + 365 * DAY)), END + 48 * HOUR)
    last_second(entitled(sub(cancel_at=END + HOUR)), END + HOUR)


def test_past_due_counts_its_grace_from_the_oldest_open_invoice() -> None:
    rolled = item(start=END, end=END + 30 * DAY)
    last_second(entitled(sub("past_due", rolled, oldest_open_invoice_at=END + HOUR)), END + 73 * HOUR)


def test_past_due_through_three_periods_gets_one_grace() -> None:
    third = item(start=END + 60 * DAY, end=END + 90 * DAY)
    assert entitled(sub("past_due", third, oldest_open_invoice_at=END)).at(END + 61 * DAY).tier == "free"


def test_past_due_without_a_readable_invoice_counts_from_the_unpaid_period() -> None:
    last_second(entitled(sub("past_due", item(start=END, end=END + 30 * DAY))), END + 72 * HOUR)


def test_past_due_ends_at_a_planned_end_inside_its_grace() -> None:
    rolled = item(start=END, end=END + 30 * DAY)
    last_second(entitled(sub("past_due", rolled, cancel_at=END + HOUR)), END + HOUR)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "unpaid", "canceled", "paused", "brand_new"])
def test_every_other_status_gives_nothing_however_late_its_period_ends(status: str) -> None:
    assert entitled(sub(status)).at(T0 + DAY).tier == "free"
    assert entitled(sub(status), ladder=NO_FREE).at(T0 + DAY).rank == NO_TIER


def test_a_licensed_quantity_of_zero_gives_nothing_and_a_metered_item_gives_access() -> None:
    assert entitled(sub("active", item(quantity=0))).at(T0).tier == "free"
    assert entitled(sub("active", item(quantity=None))).at(T0).tier == "pro"


def test_each_item_has_its_own_end_and_the_customer_falls_to_the_next_tier() -> None:
    mixed = entitled(sub("active", item("price_pro", end=END + 335 * DAY), item("price_ent")))
    assert mixed.at(END + 48 * HOUR - 1).tier == "enterprise"
    assert mixed.at(END + 48 * HOUR).tier == "pro"
    assert mixed.at(END + 48 * HOUR - 1).access_until == END + 48 * HOUR
    assert mixed.at(END + 337 * DAY).tier == "free"


def test_one_subscription_ending_leaves_the_other_alone() -> None:
    assert entitled(sub("canceled", id="sub_a"), sub("active", id="sub_b")).at(T0).tier == "pro"


def test_features_are_those_of_the_tier_and_of_all_below_it() -> None:
    assert entitled(sub("active", item("price_ent"))).at(T0).features == ("export", "sso")


def test_a_price_pinned_to_a_tier_stays_there_when_its_lookup_key_moves() -> None:
    moved = ItemFact("price_old", "prod_x", None, T0, END, 1)
    assert entitled(sub("active", moved)).at(T0).tier == "free"
    pinned = build_ladder(TIERS, {"price_old": "pro"})
    assert entitled(sub("active", moved), ladder=pinned).at(T0).tier == "pro"


def test_the_file_outranks_a_pin() -> None:
    pinned = build_ladder(TIERS, {"price_pro": "enterprise", "price_gone": "no_such_tier"})
    assert entitled(sub(), ladder=pinned).at(T0).tier == "pro"


def test_a_paying_subscription_of_no_tier_is_named() -> None:
    strange = entitled(sub("active", item("price_other")))
    assert strange.unmapped == ("sub_1",)
    assert strange.at(T0).tier == "free"


def test_a_grant_admits_until_its_end_and_one_without_end_for_ever() -> None:
    grant = GrantFact(id=1, tier="pro", until=T0 + DAY, reason="trial", by="op")
    last_second(entitled(grants=(grant,)), T0 + DAY)
    assert entitled(grants=(dataclasses.replace(grant, until=None),)).at(T0 + 10**9).tier == "pro"
    assert entitled(grants=(dataclasses.replace(grant, tier="gone"),)).at(T0).tier == "free"


@pytest.mark.parametrize(
    ("subscriptions", "now", "status"),
    [
        ((), T0, "none"),
        ((sub("incomplete"),), T0, "none"),
        ((sub("trialing"),), T0, "trialing"),
        ((sub("active"),), T0, "active"),
        ((sub("active", cancel_at=END),), T0, "canceled"),
        ((sub("active", cancel_at=END),), END, "expired"),
        ((sub("canceled"),), T0, "expired"),
        ((sub("past_due"),), T0, "past_due"),
        ((sub("unpaid"),), T0, "past_due"),
        ((sub("paused"),), T0, "paused"),
    ],
)
def test_the_status_shown_to_people(subscriptions: tuple[SubscriptionFact, ...], now: int, status: str) -> None:
    assert entitled(*subscriptions).at(now).status == status


def test_edges_are_period_planned_and_grace_ends() -> None:
    assert entitled(sub("active")).edges == (END, END + 48 * HOUR)
    assert entitled(sub("active", cancel_at=END - DAY)).edges == (END - DAY, END)
    assert entitled(sub("past_due", item(start=END, end=END + 30 * DAY))).edges == (END + 72 * HOUR,)
    assert entitled(sub("canceled")).edges == ()
    assert edge_after((sub("active"),), RULES, END) == END + 48 * HOUR


def test_facts_may_be_stale_once_an_edge_has_passed_that_no_fetch_has_seen() -> None:
    assert not entitled(sub()).may_be_stale(END - 1)
    assert entitled(sub()).may_be_stale(END)
    assert not entitled(sub(), fetched_at=END + 1).may_be_stale(END + 2)
    assert entitled(doubtful_until=T0 + HOUR).may_be_stale(T0)
    assert not entitled(doubtful_until=T0 + HOUR).may_be_stale(T0 + HOUR)


def test_an_expired_grant_makes_nobody_ask_stripe() -> None:
    grant = GrantFact(id=1, tier="pro", until=T0 + DAY, reason="trial", by="op")
    assert not entitled(grants=(grant,)).may_be_stale(T0 + 2 * DAY)


times = st.integers(T0 - 40 * DAY, T0 + 80 * DAY)
items = st.builds(
    ItemFact,
    price=st.sampled_from(["price_pro", "price_ent", "price_other"]),
    product=st.sampled_from(["prod_ent", "prod_x"]),
    lookup_key=st.sampled_from([None, "pro_key"]),
    period_start=st.none() | times,
    period_end=st.none() | times,
    quantity=st.sampled_from([None, 0, 1, 7]),
)
subscriptions = st.builds(
    SubscriptionFact,
    id=st.uuids().map(str),
    status=st.sampled_from(
        ["trialing", "active", "past_due", "incomplete", "incomplete_expired", "unpaid", "canceled", "paused", "new"]
    ),
    items=st.lists(items, max_size=3).map(tuple),
    created=times,
    trial_end=st.none() | times,
    cancel_at=st.none() | times,
    cancel_at_period_end=st.booleans(),
    ended_at=st.none() | times,
    oldest_open_invoice_at=st.none() | times,
)


@given(st.lists(subscriptions, max_size=4), times)
def test_the_order_of_subscriptions_never_matters(many: list[SubscriptionFact], now: int) -> None:
    answers = {entitled(*order).at(now) for order in itertools.islice(itertools.permutations(many), 24)}
    assert len({(answer.rank, answer.access_until) for answer in answers}) == 1


@given(st.lists(subscriptions, max_size=3), subscriptions, times)
def test_one_more_subscription_never_lowers_the_tier(
    many: list[SubscriptionFact], more: SubscriptionFact, now: int
) -> None:
    assert entitled(*many, more).at(now).rank >= entitled(*many).at(now).rank


@given(st.lists(subscriptions, max_size=4), times)
def test_the_tier_only_falls_as_time_passes_and_only_at_an_edge(many: list[SubscriptionFact], now: int) -> None:
    entitlement = entitled(*many)
    edge = entitlement.next_edge(now)
    until = (now + 400 * DAY) if edge is None else math.ceil(edge) - 1
    assert entitlement.at(now) == entitlement.at(max(now, until))
    assert entitlement.at(now + 400 * DAY).rank <= entitlement.at(now).rank


@given(st.lists(subscriptions, max_size=4), times)
def test_access_always_rests_on_a_paying_status_and_an_end_to_come(many: list[SubscriptionFact], now: int) -> None:
    standing = entitled(*many, ladder=NO_FREE).at(now)
    if standing.rank != NO_TIER:
        assert standing.access_until is not None
        assert now < standing.access_until
        assert any(one.status in {"trialing", "active", "past_due"} for one in many)


@given(st.lists(subscriptions, max_size=3), st.none() | times)
def test_facts_survive_their_encoding(many: list[SubscriptionFact], fetched_at: int | None) -> None:
    grant = GrantFact(1, "pro", None, "läuft \x00 \U0001f600", "op")
    facts = CustomerFacts("ä{}|1", 7, tuple(many), (grant,), "why", fetched_at, 5)
    assert decode(encode(facts)) == facts


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"format":1}', b'{"format":2,"subscriptions":[]}', b"\xff"]
)
def test_an_entry_that_is_not_ours_counts_as_absent(data: bytes) -> None:
    assert decode(data) is None
