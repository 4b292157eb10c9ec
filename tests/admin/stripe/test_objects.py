"""Any shape of an object that Stripe has sent since 2020 gives the same facts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stripe.objects import (
    Malformed,
    ReadSubscription,
    read_customer,
    read_invoice,
    read_items,
    read_price,
    read_session,
    read_subscription,
    with_items,
)
from policies.facts import ItemFact, SubscriptionFact, subscription_from

FIXTURES = Path(__file__).resolve().parents[3].parent / "shared" / "fixtures" / "stripe"
START, END = 1_700_000_000, 1_702_592_000
READERS = (read_subscription, read_customer, read_invoice, read_price, read_session)


def item(number: int = 1, **fields: Any) -> dict[str, Any]:
    price = {"id": f"price_{number}", "product": "prod_1", "lookup_key": None, "recurring": {"usage_type": "licensed"}}
    return {"id": f"si_{number}", "object": "subscription_item", "price": price, "quantity": 1, **fields}


def modern(**fields: Any) -> dict[str, Any]:
    return {
        "id": "sub_1",
        "object": "subscription",
        "status": "active",
        "created": START,
        "customer": "cus_1",
        "metadata": {},
        "items": {"data": [item(current_period_start=START, current_period_end=END)], "has_more": False},
        **fields,
    }


def read(source: object) -> ReadSubscription:
    found = read_subscription(source)
    assert isinstance(found, ReadSubscription), found
    return found


def test_the_period_is_found_on_the_item_and_on_the_subscription_alike() -> None:
    older = modern(current_period_start=START, current_period_end=END, items={"data": [item()], "has_more": False})
    assert read(older).fact == read(modern()).fact
    assert read(older).fact.items == (ItemFact("price_1", "prod_1", None, START, END, 1),)


def test_an_items_own_period_outranks_the_subscriptions() -> None:
    both = modern(current_period_start=1, current_period_end=2)
    assert read(both).fact.items[0].period_end == END


def test_a_period_that_starts_at_the_epoch_is_a_period() -> None:
    source = modern(current_period_start=5, items={"data": [item(current_period_start=0, current_period_end=END)]})
    assert read(source).fact.items[0].period_start == 0


def test_each_item_keeps_its_own_end() -> None:
    items = [item(1, current_period_end=END), item(2, current_period_end=END + 5)]
    assert [entry.period_end for entry in read(modern(items={"data": items})).fact.items] == [END, END + 5]


def test_a_plan_is_read_where_there_is_no_price() -> None:
    plan = {"id": "gold plan", "product": "prod_1", "usage_type": "licensed"}
    entry = item(price=None, plan=plan, current_period_start=START, current_period_end=END)
    assert read(modern(items={"data": [entry]})).fact.items[0].price == "gold plan"


def test_a_subscription_from_before_items_is_read_from_its_plan() -> None:
    plan = {"id": "gold", "product": "prod_1", "usage_type": "licensed"}
    source = modern(plan=plan, quantity=2, current_period_start=START, current_period_end=END, items=None)
    assert read(source).fact.items == (ItemFact("gold", "prod_1", None, START, END, 2),)


def test_a_metered_item_has_no_quantity_even_where_stripe_sends_one() -> None:
    metered = item(price={"id": "price_1", "product": "prod_1", "recurring": {"usage_type": "metered"}}, quantity=0)
    assert read(modern(items={"data": [metered]})).fact.items[0].quantity is None


def test_a_licensed_quantity_of_nothing_stays_nothing() -> None:
    assert read(modern(items={"data": [item(quantity=0)]})).fact.items[0].quantity == 0


def test_items_from_pending_update_are_not_read() -> None:
    source = modern(pending_update={"subscription_items": [item(9)]})
    assert [entry.price for entry in read(source).fact.items] == ["price_1"]


def test_a_deleted_item_gives_nothing() -> None:
    assert read(modern(items={"data": [item(deleted=True)]})).fact.items == ()


def test_more_items_take_the_place_of_the_first_ten() -> None:
    first = read(modern(items={"data": [item(1)], "has_more": True}))
    assert first.has_more_items
    page = read_items({"data": [item(1), item(2)]}, modern(current_period_end=END))
    assert not isinstance(page, Malformed)
    whole = with_items(first, page)
    assert [entry.price for entry in whole.fact.items] == ["price_1", "price_2"]
    assert whole.fact.items[1].period_end == END
    assert not whole.has_more_items


@pytest.mark.parametrize(
    ("fields", "customer"),
    [
        ({}, "cus_1"),
        ({"customer": {"id": "cus_2", "object": "customer"}}, "cus_2"),
        ({"customer": None, "customer_account": "acct_3"}, "acct_3"),
        ({"customer": None}, None),
        ({"customer": 5}, None),
    ],
)
def test_whose_it_is_comes_as_id_as_object_or_as_account(fields: dict[str, Any], customer: str | None) -> None:
    assert read(modern(**fields)).stripe_customer == customer


@pytest.mark.parametrize(
    ("metadata", "claim"),
    [
        ({"gateway_customer": "user-1"}, "user-1"),
        ({"gateway_customer": ""}, None),
        ({"gateway_customer": "a\nb"}, None),
        ({"gateway_customer": "x" * 256}, None),
        ({"gateway_customer": 5}, None),
        (None, None),
    ],
)
def test_metadata_claims_only_what_can_be_a_customer(metadata: object, claim: str | None) -> None:
    assert read(modern(metadata=metadata)).claim == claim


@pytest.mark.parametrize(
    "source",
    [
        None,
        [],
        "sub_1",
        {},
        modern(id=""),
        modern(status=None),
        modern(cancel_at="soon"),
        modern(cancel_at=True),
        modern(cancel_at=10**15),
        modern(created=-1),
        modern(items={"data": ["si_1"]}),
        modern(items={"data": [{"id": "si_1"}]}),
        modern(items={"data": [item(price={"product": "prod_1"})]}),
    ],
)
def test_what_is_no_subscription_is_malformed(source: object) -> None:
    assert isinstance(read_subscription(source), Malformed)


def test_what_is_malformed_is_told_without_its_values() -> None:
    found = read_subscription(modern(cancel_at="a secret"))
    assert found == Malformed("subscription sub_1 has a 'cancel_at' that is not a time")


def test_a_deleted_customer_is_known_as_such() -> None:
    found = read_customer({"id": "cus_1", "object": "customer", "deleted": True})
    assert not isinstance(found, Malformed)
    assert (found.deleted, found.claim) == (True, None)


def test_an_invoice_is_owed_since_its_due_date_or_else_its_creation() -> None:
    base = {"id": "in_1", "status": "open", "created": 100}
    due, plain = read_invoice({**base, "due_date": 200}), read_invoice({**base, "due_date": None})
    assert not isinstance(due, Malformed)
    assert not isinstance(plain, Malformed)
    assert (due.owed_since, plain.owed_since) == (200, 100)


def test_only_a_web_address_may_become_a_redirect() -> None:
    invoice = read_invoice({"id": "in_1", "status": "open", "created": 1, "hosted_invoice_url": "javascript:alert(1)"})
    session = read_session({"id": "cs_1", "url": "https://checkout.stripe.com/c/1\r\nSet-Cookie: a"})
    assert not isinstance(invoice, Malformed)
    assert not isinstance(session, Malformed)
    assert (invoice.hosted_invoice_url, session.url) == (None, None)


def test_a_session_is_claimed_by_its_reference_first() -> None:
    found = read_session(
        {"id": "cs_1", "status": "open", "client_reference_id": "a", "metadata": {"gateway_customer": "b"}}
    )
    assert not isinstance(found, Malformed)
    assert found.claim == "a"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*modern(), *item(), "data"]) | st.text(), inner),
    max_leaves=25,
)


@given(JSON)
def test_no_reader_ever_raises(source: object) -> None:
    for reader in READERS:
        reader(source)
    read_items(source, {})


@given(st.sampled_from(sorted(modern())), JSON)
def test_one_odd_field_never_raises_and_what_is_read_survives_storage(key: str, value: object) -> None:
    found = read_subscription(modern(**{key: value}))
    if isinstance(found, ReadSubscription):
        stored = json.loads(json.dumps(asdict(found.fact)).encode("utf-8"))
        assert subscription_from(stored) == found.fact


@given(
    st.lists(st.tuples(st.integers(0, 2**33), st.integers(0, 2**33)), min_size=1, max_size=4),
    st.sampled_from(["active", "past_due", "a_status_of_tomorrow"]),
)
def test_moving_the_period_to_the_item_changes_nothing(periods: list[tuple[int, int]], status: str) -> None:
    start, end = periods[0]
    older = modern(
        status=status,
        current_period_start=start,
        current_period_end=end,
        items={"data": [item(number) for number, _ in enumerate(periods)]},
    )
    newer = modern(
        status=status,
        items={
            "data": [
                item(number, current_period_start=start, current_period_end=end) for number, _ in enumerate(periods)
            ]
        },
    )
    assert read(older).fact == read(newer).fact


def recorded(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("object") == kind and "id" in value:
                found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    for path in sorted(FIXTURES.rglob("*.json")):
        walk(json.loads(path.read_text()))
    return found


@pytest.mark.fixtures
@pytest.mark.parametrize(
    ("kind", "reader", "at_least"),
    [
        ("subscription", read_subscription, 20),
        ("invoice", read_invoice, 5),
        ("price", read_price, 10),
        ("checkout.session", read_session, 2),
        ("customer", read_customer, 4),
    ],
)
def test_every_recorded_object_is_read(kind: str, reader: Any, at_least: int) -> None:
    if not FIXTURES.is_dir():
        pytest.skip(f"the recorded Stripe fixtures are not at {FIXTURES}")
    # Those with a placeholder for an id are sketches of what a handler reads, not whole objects.
    sources = [source for source in recorded(kind) if "PLACEHOLDER" not in source["id"]]
    assert len(sources) >= at_least
    refused = [(source["id"], found) for source in sources if isinstance(found := reader(source), Malformed)]
    assert refused == []


@pytest.mark.fixtures
def test_a_recorded_past_due_subscription_has_the_unpaid_period() -> None:
    path = FIXTURES / "mozilla_fxa" / "subscription_past_due.json"
    if not path.is_file():
        pytest.skip(f"the recorded Stripe fixtures are not at {FIXTURES}")
    fact = read(json.loads(path.read_text())).fact
    assert isinstance(fact, SubscriptionFact)
    assert (fact.status, fact.items[0].period_start, fact.items[0].price) == (
        "past_due",
        1580749977,
        "plan_FiJ55YK6UYftPa",
    )
