"""Snapshot or thin, an event says whose turn it is to be looked at, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stripe.envelope import Envelope, concerns_a_customer, concerns_the_catalog, envelope_of, read_envelope
from admin.stripe.objects import Malformed

FIXTURES = Path(__file__).resolve().parents[3].parent / "shared" / "fixtures" / "stripe"


def snapshot(**fields: Any) -> dict[str, Any]:
    return {
        "object": "event",
        "id": "evt_1",
        "type": "customer.subscription.updated",
        "created": 1_700_000_000,
        "api_version": "2026-10-28.endive",
        "livemode": False,
        "data": {"object": {"object": "subscription", "id": "sub_1", "customer": "cus_1"}},
        **fields,
    }


def thin(**fields: Any) -> dict[str, Any]:
    return {
        "object": "v2.core.event",
        "id": "evt_thin",
        "type": "v1.customer.subscription.deleted",
        "created": "2026-11-01T10:00:00.000Z",
        "livemode": False,
        "related_object": {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"},
        **fields,
    }


def read(source: object) -> Envelope:
    found = envelope_of(source)
    assert isinstance(found, Envelope), found
    return found


def test_a_snapshot_names_its_customer() -> None:
    found = read(snapshot())
    assert (found.wire, found.type, found.object_id, found.stripe_customer) == (
        "snapshot",
        "customer.subscription.updated",
        "sub_1",
        "cus_1",
    )
    assert (found.created, found.api_version, found.account) == (1_700_000_000, "2026-10-28.endive", None)


def test_an_expanded_customer_and_an_account_as_customer_are_found() -> None:
    expanded = snapshot(data={"object": {"object": "invoice", "id": "in_1", "customer": {"id": "cus_2"}}})
    account = snapshot(data={"object": {"object": "subscription", "id": "sub_1", "customer_account": "acct_9"}})
    assert read(expanded).stripe_customer == "cus_2"
    assert read(account).stripe_customer == "acct_9"


def test_an_event_about_a_customer_is_about_that_customer() -> None:
    deleted = snapshot(type="customer.deleted", data={"object": {"object": "customer", "id": "cus_3"}})
    assert read(deleted).stripe_customer == "cus_3"


def test_an_entitlement_summary_has_no_id_and_is_still_read() -> None:
    summary = snapshot(
        type="entitlements.active_entitlement_summary.updated",
        data={"object": {"object": "entitlements.active_entitlement_summary", "customer": "cus_4"}},
    )
    assert (read(summary).object_id, read(summary).stripe_customer) == (None, "cus_4")


def test_a_thin_event_is_named_like_its_snapshot_and_keeps_its_twin() -> None:
    found = read(thin(snapshot_event="evt_1"))
    assert (found.wire, found.type, found.object_id) == ("thin", "customer.subscription.deleted", "sub_1")
    assert (found.stripe_customer, found.snapshot_event, found.created) == (None, "evt_1", 1_793_527_200)
    assert found.is_cancellation


def test_a_thin_event_about_a_customer_needs_no_look_up() -> None:
    assert read(thin(related_object={"id": "cus_5", "type": "customer"})).stripe_customer == "cus_5"


@pytest.mark.parametrize(("context", "account"), [("acct_1", "acct_1"), ("org_1/acct_2", "acct_2"), (None, None)])
def test_a_thin_event_names_its_account_in_the_context(context: str | None, account: str | None) -> None:
    assert read(thin(context=context)).account == account


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'[{"object":"event"}]',
        b"null",
        b"1",
        b'"event"',
        b"{}",
        b"not json",
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"object":"event","id":' + b"9" * 5000 + b"}",
        json.dumps(snapshot(id=None)).encode(),
        json.dumps(snapshot(id="evt\u0000")).encode(),
        json.dumps(snapshot(id="\ud800")).encode(),
        json.dumps(snapshot(id="e" * 300)).encode(),
        json.dumps(snapshot(type=["x"])).encode(),
        json.dumps(snapshot(livemode="false")).encode(),
        json.dumps(snapshot(created=10**30)).encode(),
        json.dumps(snapshot(object="charge")).encode(),
    ],
)
def test_a_signed_body_that_is_no_event_is_malformed_and_never_an_exception(body: bytes) -> None:
    assert isinstance(read_envelope(body), Malformed)


@pytest.mark.parametrize("data", [None, [], "x", {"object": None}, {"object": []}, {"object": {"customer": 5}}])
def test_an_event_without_a_usable_object_concerns_nobody(data: object) -> None:
    assert read(snapshot(data=data)).stripe_customer is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(snapshot())) | st.text(), inner),
        max_leaves=20,
    )
)
def test_reading_never_raises(source: object) -> None:
    assert isinstance(envelope_of(source), Envelope | Malformed)


@given(
    st.fixed_dictionaries(
        {key: st.none() | st.text() | st.integers() | st.dictionaries(st.text(), st.text()) for key in snapshot()}
    ),
    st.sampled_from(["event", "v2.core.event"]),
)
def test_an_event_with_any_fields_never_raises(fields: dict[str, Any], kind: str) -> None:
    assert isinstance(envelope_of({**fields, "object": kind, "livemode": False}), Envelope | Malformed)


def test_only_events_that_can_change_access_are_a_reason_to_look() -> None:
    assert concerns_a_customer("invoice.paid")
    assert concerns_a_customer("customer.deleted")
    assert not concerns_a_customer("payment_method.attached")
    assert not concerns_a_customer("customer.tax_id.created")
    assert concerns_the_catalog("price.updated")
    assert not concerns_the_catalog("invoice.paid")


@pytest.mark.fixtures
def test_every_recorded_event_is_read() -> None:
    if not FIXTURES.is_dir():
        pytest.skip(f"the recorded Stripe fixtures are not at {FIXTURES}")
    events = [
        event
        for path in sorted(FIXTURES.rglob("*.json"))
        if isinstance(event := json.loads(path.read_text()), dict) and event.get("object") == "event"
    ]
    assert len(events) > 40
    for event in events:
        found = read(event)
        if concerns_a_customer(found.type) and "dispute" not in found.type:
            assert found.stripe_customer, found
