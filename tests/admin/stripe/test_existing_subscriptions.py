"""What somebody has already decides what they are offered instead of a second subscription."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stripe.existing import OVER, Enough, Less, Nothing, Owes, choose
from policies.entitlement import PAYING
from policies.facts import ItemFact, SubscriptionFact
from policies.schema import Tier
from policies.tiers import build_ladder

LADDER = build_ladder(
    (Tier(name="free"), Tier(name="pro", prices=("p_pro",)), Tier(name="enterprise", prices=("p_ent",)))
)
PRO, ENTERPRISE = 1, 2


def has(status: str, *prices: str, subscription_id: str = "sub_1", quantity: int | None = 1) -> SubscriptionFact:
    items = tuple(ItemFact(price, "prod", None, 0, 100, quantity) for price in prices or ("p_pro",))
    return SubscriptionFact(subscription_id, status, items, created=0)


@pytest.mark.parametrize("status", sorted(OVER))
def test_what_is_over_is_in_nobodys_way(status: str) -> None:
    assert choose([has(status), has(status, "p_ent", subscription_id="sub_2")], LADDER, PRO) == Nothing()


@pytest.mark.parametrize("status", ["active", "trialing"])
def test_who_has_this_tier_or_more_has_enough(status: str) -> None:
    assert isinstance(choose([has(status)], LADDER, PRO), Enough)
    assert isinstance(choose([has(status, "p_ent")], LADDER, PRO), Enough)


def test_who_pays_for_less_can_be_moved_up() -> None:
    assert choose([has("active")], LADDER, ENTERPRISE) == Less(has("active"), PRO)


@pytest.mark.parametrize("status", ["past_due", "unpaid", "paused"])
@pytest.mark.parametrize("wanted", [PRO, ENTERPRISE])
def test_who_owes_pays_that_first(status: str, wanted: int) -> None:
    assert choose([has(status)], LADDER, wanted) == Owes(has(status), PRO)


def test_who_owes_for_one_but_has_enough_by_another_has_enough() -> None:
    paying = has("active", "p_ent", subscription_id="sub_2")
    assert choose([has("past_due"), paying], LADDER, PRO) == Enough(paying, ENTERPRISE, "it is paid for")


def test_a_subscription_of_several_items_can_not_be_moved_by_the_portal() -> None:
    assert isinstance(choose([has("active", "p_pro", "p_other")], LADDER, ENTERPRISE), Enough)


def test_a_subscription_to_something_else_still_means_no_second_one() -> None:
    outcome = choose([has("active", "p_other")], LADDER, PRO)
    assert isinstance(outcome, Enough)
    assert outcome.rank == -1


def test_a_status_of_tomorrow_means_no_second_one() -> None:
    assert isinstance(choose([has("hibernating")], LADDER, PRO), Enough)


STATUSES = st.sampled_from(
    ["trialing", "active", "past_due", "unpaid", "paused", "canceled", "incomplete", "incomplete_expired", "new"]
)
SUBSCRIPTIONS = st.lists(
    st.builds(
        lambda status, prices, number: has(status, *prices, subscription_id=f"sub_{number}"),
        STATUSES,
        st.lists(st.sampled_from(["p_pro", "p_ent", "p_other"]), min_size=1, max_size=3),
        st.integers(0, 5),
    ),
    max_size=5,
)


@given(SUBSCRIPTIONS, st.sampled_from([PRO, ENTERPRISE]))
def test_a_new_subscription_is_sold_exactly_when_none_runs(subscriptions: list[SubscriptionFact], wanted: int) -> None:
    outcome = choose(subscriptions, LADDER, wanted)
    assert isinstance(outcome, Nothing) == all(one.status in OVER for one in subscriptions)
    if isinstance(outcome, Less):
        assert outcome.subscription.status in PAYING
        assert outcome.rank < wanted
        assert len(outcome.subscription.items) == 1


@pytest.mark.parametrize(
    ("status", "invoice", "require_paid", "expected"),
    [
        ("active", "open", True, Owes),
        ("active", "open", False, Enough),
        ("active", "paid", True, Enough),
        ("active", "void", True, Enough),
        ("active", None, True, Enough),
        ("trialing", "open", True, Enough),
    ],
)
def test_an_open_invoice_comes_first_where_access_waits_for_it(
    status: str, invoice: str | None, require_paid: bool, expected: type
) -> None:
    one = replace(has(status), latest_invoice=invoice)
    assert isinstance(choose([one], LADDER, PRO, require_paid=require_paid), expected)
