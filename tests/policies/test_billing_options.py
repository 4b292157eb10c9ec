"""The options of `billing` and of a tier: what each takes away or adds, and that without them nothing changes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.decision import Forward, Refuse, decide
from policies.effective import effective_yaml
from policies.entitlement import BillingRules, Standing, derive, edge_after
from policies.facts import CustomerFacts, GrantFact, ItemFact, SubscriptionFact, decode, encode, subscription_from
from policies.load import load
from policies.reasons import Reason
from policies.requirement import Access, Requirement
from policies.routes import compile_routes
from policies.schema import Billing, Config, Tier
from policies.tiers import build_ladder

HOUR, DAY = 3600, 86_400
T0 = 1_800_000_000
END = T0 + 30 * DAY
PLAIN = BillingRules(renewal_leeway=48 * HOUR, past_due_grace=72 * HOUR)
LADDER = build_ladder(
    (
        Tier(name="free"),
        Tier(name="pro", prices=("price_pro",), features=("export",)),
        Tier(name="ent", prices=("price_ent",), features=("sso",), past_due_grace=14.0 * DAY),
    )
)


def item(price: str = "price_pro", start: int = T0, end: int = END, quantity: int | None = 1) -> ItemFact:
    return ItemFact(price, "prod", None, start, end, quantity)


def sub(status: str = "active", *items: ItemFact, created: int = T0, **more: object) -> SubscriptionFact:
    return replace(SubscriptionFact("sub", status, items or (item(),), created), **more)  # type: ignore[arg-type]


def standing(now: float, *subs: SubscriptionFact, rules: BillingRules = PLAIN, **more: object) -> Standing:
    facts = CustomerFacts("alice", 1, subs, fetched_at=T0, **more)  # type: ignore[arg-type]
    return derive(facts, LADDER, rules).at(now)


STRICT = replace(PLAIN, require_paid_invoice=True)


@pytest.mark.parametrize("invoice", ["draft", "open", "void", "uncollectible", "unreadable"])
def test_a_first_period_that_was_not_paid_gives_nothing_where_a_paid_invoice_is_required(invoice: str) -> None:
    """Scenario 35: a delayed method makes the subscription active at once, and it stays so when the debit fails."""
    unpaid = sub(latest_invoice=invoice)
    assert standing(T0 + HOUR, unpaid).tier == "pro"
    assert standing(T0 + HOUR, unpaid, rules=STRICT).tier == "free"


def test_who_waits_for_an_invoice_to_be_paid_is_told_to_pay_it() -> None:
    entitlement = derive(CustomerFacts("alice", 1, (sub(latest_invoice="open"),), fetched_at=T0), LADDER, STRICT)
    refusal = decide(Requirement(Access.TIER, 1, "pro"), entitlement, LADDER, T0 + HOUR)
    assert isinstance(refusal, Refuse)
    assert refusal.reason is Reason.PAYMENT_FAILED
    assert entitlement.at(T0 + HOUR).status == "past_due"


@pytest.mark.parametrize("invoice", ["paid", None])
def test_a_paid_invoice_and_none_at_all_are_enough(invoice: str | None) -> None:
    assert standing(END, sub(latest_invoice=invoice), rules=STRICT).tier == "pro"


def test_a_renewal_whose_invoice_is_a_draft_for_an_hour_refuses_nobody() -> None:
    renewed = sub("active", item(start=END, end=END + 30 * DAY), latest_invoice="draft")
    assert standing(END + HOUR, renewed, rules=STRICT).tier == "pro"
    assert standing(END + 48 * HOUR - 1, renewed, rules=STRICT).tier == "pro"
    assert standing(END + 48 * HOUR, renewed, rules=STRICT).tier == "free"
    assert standing(END + 48 * HOUR, renewed).tier == "pro"


def test_a_planned_end_stays_one_where_a_paid_invoice_is_required() -> None:
    ending = sub("active", item(start=END, end=END + 30 * DAY), latest_invoice="open", cancel_at=END + HOUR)
    assert standing(END + HOUR, ending, rules=STRICT).tier == "free"


def test_a_trial_needs_no_paid_invoice() -> None:
    assert standing(T0 + DAY, sub("trialing", latest_invoice="open"), rules=STRICT).tier == "pro"


@pytest.mark.parametrize("what", ["refunded", "disputed"])
def test_money_that_was_taken_back_revokes_only_where_its_option_says_so(what: str) -> None:
    taken = replace(sub(), **{what: True})  # type: ignore[arg-type]
    options = {"refunded": "revoke_on_refund", "disputed": "revoke_on_dispute"}
    for name, option in options.items():
        expected = "free" if name == what else "pro"
        assert standing(T0 + DAY, taken, rules=replace(PLAIN, **{option: True})).tier == expected
    assert standing(T0 + DAY, taken).tier == "pro"


@pytest.mark.parametrize("status", ["trialing", "past_due"])
def test_money_that_was_taken_back_revokes_in_a_trial_and_in_grace_too(status: str) -> None:
    assert standing(T0 + HOUR, sub(status)).tier == "pro"
    assert standing(T0 + HOUR, sub(status, refunded=True), rules=replace(PLAIN, revoke_on_refund=True)).tier == "free"


def test_another_subscription_is_not_revoked_with_it() -> None:
    rules = replace(PLAIN, revoke_on_refund=True)
    other = replace(sub(), id="sub_2")
    assert standing(T0 + DAY, sub(refunded=True), other, rules=rules).tier == "pro"


def test_a_tier_may_have_a_grace_of_its_own() -> None:
    late = sub("past_due", item("price_ent"), item("price_pro"))
    assert standing(T0 + 72 * HOUR - 1, late).tier == "ent"
    assert standing(T0 + 14 * DAY - 1, late).tier == "ent"
    assert standing(T0 + 14 * DAY, late).tier == "free"
    assert standing(T0 + 72 * HOUR, sub("past_due")).tier == "free"
    assert edge_after([late], PLAIN, T0 + 72 * HOUR, LADDER) == T0 + 14 * DAY
    assert edge_after([sub("past_due")], PLAIN, T0 + 1, LADDER) == T0 + 72 * HOUR


def test_a_grace_of_nothing_is_a_grace_of_its_own() -> None:
    ladder = build_ladder((Tier(name="pro", prices=("price_pro",), past_due_grace=0.0),))
    facts = CustomerFacts("alice", 1, (sub("past_due"),))
    assert derive(facts, ladder, PLAIN).at(T0).tier is None


def test_seats_are_those_of_every_item_that_gives_the_tier_now() -> None:
    two = (replace(sub("active", item(quantity=3)), id="a"), replace(sub("active", item(quantity=5)), id="b"))
    assert standing(T0, *two).quantity == 8
    assert standing(T0, sub("active", item(quantity=3), item("price_ent", quantity=2))).quantity == 2


def test_seats_that_end_earlier_leave_the_others_and_the_tier() -> None:
    short = replace(sub("active", item(quantity=5), cancel_at=T0 + DAY), id="short")
    long = replace(sub("active", item(quantity=3)), id="long")
    assert standing(T0 + DAY - 1, short, long).quantity == 8
    after = standing(T0 + DAY, short, long)
    assert (after.tier, after.quantity, after.access_until) == ("pro", 3, END + 48 * HOUR)
    assert standing(T0, short, long).access_until == END + 48 * HOUR


def test_what_is_metered_or_granted_has_no_seats() -> None:
    assert standing(T0, sub("active", item(quantity=None))).quantity is None
    assert standing(T0, grants=(GrantFact(1, "pro", None, "", ""),)).quantity is None
    assert standing(T0, sub("active", item(quantity=4)), grants=(GrantFact(1, "pro", None, "", ""),)).quantity == 4
    assert standing(T0).quantity is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["price_pro", "price_ent", "price_x"]), st.integers(0, 5), st.integers(1, 40)),
        max_size=8,
    ),
    st.integers(0, 45),
)
def test_tier_and_seats_are_what_counting_the_open_spans_gives(items: list[tuple[str, int, int]], day: int) -> None:
    subs = [
        replace(sub("active", item(price, quantity=seats), cancel_at=T0 + days * DAY), id=str(number))
        for number, (price, seats, days) in enumerate(items)
    ]
    long = [replace(one, items=(replace(one.items[0], period_end=T0 + 60 * DAY),)) for one in subs]
    now = T0 + day * DAY
    ranks = {"price_pro": 1, "price_ent": 2}
    is_open = [(ranks[price], seats) for price, seats, days in items if seats and price in ranks and day < days]
    best = max((rank for rank, _ in is_open), default=0)
    found = standing(now, *long)
    assert found.rank == best
    assert found.quantity == (sum(seats for rank, seats in is_open if rank == best) or None)


FROM_STRIPE = replace(PLAIN, features_from_stripe=True)


def test_features_of_stripe_come_on_top_of_the_tiers_and_only_with_the_option() -> None:
    assert standing(T0, sub(), features=("audit", "export")).features == ("export",)
    assert standing(T0, sub(), features=("audit", "export"), rules=FROM_STRIPE).features == ("export", "audit")


def test_features_of_stripe_end_with_what_is_paid_for() -> None:
    end = END + 48 * HOUR
    assert standing(end - 1, sub(), features=("audit",), rules=FROM_STRIPE).features == ("export", "audit")
    assert standing(end, sub(), features=("audit",), rules=FROM_STRIPE).features == ()
    assert standing(T0, sub("canceled"), features=("audit",), rules=FROM_STRIPE).features == ()
    assert standing(T0, sub("paused"), features=("audit",), rules=FROM_STRIPE).features == ()


def test_a_grant_does_not_carry_features_that_nobody_pays_for() -> None:
    grants = (GrantFact(1, "ent", None, "", ""),)
    at_first = standing(T0, sub(), grants=grants, features=("audit",), rules=FROM_STRIPE)
    later = standing(END + 48 * HOUR, sub(), grants=grants, features=("audit",), rules=FROM_STRIPE)
    assert at_first.features == ("export", "sso", "audit")
    assert (later.tier, later.features) == ("ent", ("export", "sso"))


def test_an_add_on_that_belongs_to_no_tier_gives_its_features_to_the_everybody_tier() -> None:
    addon = sub("active", item("price_addon"))
    found = standing(T0, addon, features=("audit",), rules=FROM_STRIPE)
    assert (found.tier, found.features) == ("free", ("audit",))
    assert standing(END + 48 * HOUR, addon, features=("audit",), rules=FROM_STRIPE).features == ()


def requirement(text: str, features_from: str = "stripe") -> Requirement | str:
    config = f"""
version: 1
upstreams: {{api: {{targets: ["http://127.0.0.1:9"]}}}}
auth: {{issuers: [{{issuer: "https://a/", audience: b, algorithms: [HS256], secret: "{"s" * 32}"}}]}}
tiers:
  - name: free
  - {{name: pro, prices: [price_pro], features: [export]}}
billing: {{features_from: {features_from}}}
routes: [{{path: /a, {text}}}]
"""
    loaded = load(config, file="gateway.yaml", environ={}, read_file=str)
    if loaded.config is None:
        return loaded.diagnostics[0].code
    table = compile_routes(loaded.config).table
    assert table is not None
    return table.routes[0].requirement


def test_a_route_may_ask_for_a_feature_that_only_stripe_grants() -> None:
    assert requirement("features: [audit]") == Requirement(Access.TIER, 2, None, ("audit",), -1)
    assert requirement("tier: pro, features: [audit]") == Requirement(Access.TIER, 2, "pro", ("audit",), 1)
    assert requirement("features: [audit]", "tiers") == "unknown-feature"
    assert requirement("features: [export]", "tiers") == Requirement(Access.TIER, 1, "pro", ("export",))


@pytest.mark.parametrize(
    ("needs", "has", "admitted"),
    [
        (Requirement(Access.TIER, 3, None, ("audit",), -1), ("audit",), True),
        (Requirement(Access.TIER, 3, None, ("audit",), -1), ("other",), False),
        (Requirement(Access.TIER, 3, "ent", ("audit",), 2), ("audit",), False),
        (Requirement(Access.TIER, 2, "ent", ("sso",), -1), ("sso",), True),
        (Requirement(Access.TIER, 2, "ent", ("sso",), None), ("sso",), False),
        (Requirement(Access.TIER, 2, "ent", ("sso", "audit"), -1), ("sso",), False),
        (Requirement(Access.TIER, 2, "ent", (), 0), ("sso",), False),
    ],
)
def test_who_has_every_feature_is_let_in_from_the_named_tier_on(
    needs: Requirement, has: tuple[str, ...], admitted: bool
) -> None:
    facts = CustomerFacts("alice", 1, (sub(),), fetched_at=T0, features=has)
    decision = decide(needs, derive(facts, LADDER, FROM_STRIPE), LADDER, T0)
    assert isinstance(decision, Forward) is admitted


def test_no_price_is_offered_for_what_only_stripe_grants() -> None:
    entitlement = derive(CustomerFacts("alice", 1, (sub(),), fetched_at=T0), LADDER, FROM_STRIPE)
    refusal = decide(Requirement(Access.TIER, 3, None, ("audit",), -1), entitlement, LADDER, T0)
    assert isinstance(refusal, Refuse)
    assert refusal.reason is Reason.FORBIDDEN


def test_facts_with_everything_come_back_as_they_went() -> None:
    taken = sub(latest_invoice="void", refunded=True, disputed=True)
    facts = CustomerFacts("alice", 7, (taken,), features=("a", "ü"), fetched_at=T0)
    assert decode(encode(facts)) == facts


@pytest.mark.parametrize("features", ["audit", [1], [None], {"a": 1}, None])
def test_features_of_another_kind_are_no_facts(features: object) -> None:
    raw = json.loads(encode(CustomerFacts("alice", 1)))
    decoded = decode(json.dumps({**raw, "features": features}))
    assert decoded is None or all(type(one) is str for one in decoded.features)


def test_an_older_cache_entry_counts_as_absent_and_an_older_row_of_the_ledger_is_read() -> None:
    raw = json.loads(encode(CustomerFacts("alice", 1, (sub(),))))
    assert decode(json.dumps({**raw, "format": 1})) is None
    entry = asdict(sub())
    for name in ("latest_invoice", "refunded", "disputed"):
        del entry[name]
    assert subscription_from(entry) == sub()


def test_the_rules_are_those_of_the_file() -> None:
    assert BillingRules.of(Billing()) == PLAIN
    every = Billing(require_paid_invoice=True, revoke_on_refund=True, revoke_on_dispute=True, features_from="stripe")
    assert BillingRules.of(every) == replace(
        FROM_STRIPE, require_paid_invoice=True, revoke_on_refund=True, revoke_on_dispute=True
    )


def test_a_grace_is_printed_as_it_is_written() -> None:
    text = """
version: 1
upstreams: {api: {targets: ["http://127.0.0.1:9"]}}
tiers: [{name: free}, {name: pro, prices: [p], past_due_grace: 336h}]
routes: [{path: /a, access: public}]
"""
    loaded = load(text, file="gateway.yaml", environ={}, read_file=str)
    assert isinstance(loaded.config, Config), loaded.diagnostics
    assert loaded.config.tiers[1].past_due_grace == 336 * HOUR
    printed = effective_yaml(loaded.config)
    assert "past_due_grace: 14d" in printed
    again = load(printed, file="gateway.yaml", environ={}, read_file=str)
    assert again.config == loaded.config
