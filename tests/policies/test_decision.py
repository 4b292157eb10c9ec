"""Which answer, and which reason for a refusal (docs/design.md, section 4)."""

from __future__ import annotations

import pytest

from policies.decision import Forward, Refuse, decide
from policies.entitlement import BillingRules, derive
from policies.facts import CustomerFacts, GrantFact, ItemFact, SubscriptionFact
from policies.reasons import ANSWERS, Reason
from policies.requirement import AUTHENTICATED, PUBLIC, Access, Requirement
from policies.schema import Tier
from policies.tiers import build_ladder

NOW = 1_800_000_000
DAY = 86400
RULES = BillingRules(48 * 3600, 72 * 3600)
LADDER = build_ladder(
    (
        Tier(name="free"),
        Tier(name="pro", prices=("price_pro",)),
        Tier(name="enterprise", prices=("price_ent",)),
        Tier(name="staff"),
    )
)
NO_FREE = build_ladder((Tier(name="pro", prices=("price_pro",)),))
PRO = Requirement(Access.TIER, 1, "pro")
ENTERPRISE = Requirement(Access.TIER, 2, "enterprise")
STAFF = Requirement(Access.TIER, 3, "staff")


def sub(status: str, price: str = "price_pro", end: int = NOW + DAY) -> SubscriptionFact:
    return SubscriptionFact("sub", status, (ItemFact(price, "prod", None, end - 30 * DAY, end, 1),), NOW - 30 * DAY)


def facts(*subscriptions: SubscriptionFact, **more: object) -> CustomerFacts:
    return CustomerFacts("alice", 1, subscriptions, fetched_at=NOW, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requirement", "subscriptions", "reason"),
    [
        (PRO, (), Reason.TIER_REQUIRED),
        (PRO, (sub("incomplete"),), Reason.TIER_REQUIRED),
        (PRO, (sub("unpaid"),), Reason.PAYMENT_FAILED),
        (PRO, (sub("past_due", end=NOW - DAY),), Reason.PAYMENT_FAILED),
        (PRO, (sub("paused"),), Reason.SUBSCRIPTION_PAUSED),
        (PRO, (sub("canceled"),), Reason.SUBSCRIPTION_EXPIRED),
        (PRO, (sub("active", end=NOW - 3 * DAY),), Reason.SUBSCRIPTION_EXPIRED),
        (PRO, (sub("canceled"), sub("paused"), sub("unpaid")), Reason.PAYMENT_FAILED),
        (PRO, (sub("canceled"), sub("paused")), Reason.SUBSCRIPTION_PAUSED),
        (PRO, (sub("brand_new"),), Reason.TIER_REQUIRED),
        (ENTERPRISE, (sub("active"),), Reason.TIER_REQUIRED),
        (ENTERPRISE, (sub("unpaid"),), Reason.TIER_REQUIRED),
        (ENTERPRISE, (sub("canceled", "price_ent"), sub("active")), Reason.SUBSCRIPTION_EXPIRED),
        (STAFF, (sub("active"),), Reason.FORBIDDEN),
    ],
)
def test_the_first_rule_that_applies_names_the_refusal(
    requirement: Requirement, subscriptions: tuple[SubscriptionFact, ...], reason: Reason
) -> None:
    decision = decide(requirement, derive(facts(*subscriptions), LADDER, RULES), LADDER, NOW)
    assert isinstance(decision, Refuse)
    assert decision.reason is reason


def test_someone_with_no_tier_at_all_needs_a_subscription() -> None:
    decision = decide(Requirement(Access.TIER, 0, "pro"), derive(facts(), NO_FREE, RULES), NO_FREE, NOW)
    assert isinstance(decision, Refuse)
    assert decision.reason is Reason.SUBSCRIPTION_REQUIRED
    assert decision.offer_rank == 0


@pytest.mark.parametrize("price", ["price_pro", "price_ent"])
def test_a_tier_admits_what_it_and_the_tiers_below_it_need(price: str) -> None:
    decision = decide(PRO, derive(facts(sub("active", price)), LADDER, RULES), LADDER, NOW)
    assert isinstance(decision, Forward)
    assert decision.standing is not None


def test_the_everybody_tier_admits_who_pays_nothing() -> None:
    decision = decide(Requirement(Access.TIER, 0, "free"), derive(facts(), LADDER, RULES), LADDER, NOW)
    assert isinstance(decision, Forward)


def test_a_block_refuses_everything_that_knows_its_caller() -> None:
    blocked = derive(facts(sub("active"), blocked="abuse"), LADDER, RULES)
    for requirement in (AUTHENTICATED, PRO):
        decision = decide(requirement, blocked, LADDER, NOW)
        assert isinstance(decision, Refuse)
        assert decision.reason is Reason.BLOCKED


@pytest.mark.parametrize("requirement", [PUBLIC, AUTHENTICATED, Requirement(Access.TIER, 0, "free")])
def test_a_failed_lookup_refuses_nothing_that_does_not_depend_on_it(requirement: Requirement) -> None:
    assert decide(requirement, None, LADDER, NOW) == Forward(None)


def test_a_failed_lookup_is_never_a_402_and_never_a_free_pass() -> None:
    assert decide(PRO, None, LADDER, NOW) == Refuse(Reason.ENTITLEMENT_UNAVAILABLE)
    assert decide(Requirement(Access.TIER, 0, "pro"), None, NO_FREE, NOW) == Refuse(Reason.ENTITLEMENT_UNAVAILABLE)


def test_a_refusal_says_whether_a_live_check_is_worth_its_cost() -> None:
    fresh = decide(PRO, derive(facts(sub("canceled")), LADDER, RULES), LADDER, NOW)
    assert isinstance(fresh, Refuse)
    assert not fresh.checkable
    late = decide(PRO, derive(facts(sub("active")), LADDER, RULES), LADDER, NOW + 10 * DAY)
    assert isinstance(late, Refuse)
    assert (late.checkable, late.unsure) == (True, True)


def test_whoever_has_gone_past_a_planned_end_is_surely_not_paying() -> None:
    ended = SubscriptionFact(
        "sub", "active", (ItemFact("price_pro", "p", None, NOW - 30 * DAY, NOW, 1),), NOW, cancel_at=NOW
    )
    decision = decide(PRO, derive(facts(ended), LADDER, RULES), LADDER, NOW)
    assert isinstance(decision, Refuse)
    assert not decision.unsure


def test_a_grant_for_an_unsold_tier_admits() -> None:
    granted = facts(grants=(GrantFact(1, "staff", None, "works here", "op"),))
    assert isinstance(decide(STAFF, derive(granted, LADDER, RULES), LADDER, NOW), Forward)


def test_every_reason_has_an_answer_of_the_contract() -> None:
    assert set(ANSWERS) == set(Reason)
    assert {reason for reason in Reason if ANSWERS[reason].status == 402} == {
        Reason.SUBSCRIPTION_REQUIRED,
        Reason.TIER_REQUIRED,
        Reason.SUBSCRIPTION_EXPIRED,
        Reason.PAYMENT_FAILED,
        Reason.SUBSCRIPTION_PAUSED,
        Reason.QUOTA_EXHAUSTED,
    }
