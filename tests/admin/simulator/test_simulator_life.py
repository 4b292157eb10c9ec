"""What the clock does to subscriptions: renewals, failures, ends, pauses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from admin.simulator import Offer
from tests.support.simulator import OFFERS, Receiver, Running, running_simulator

DAY = 86400


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


def subscribe(sim: Running, *prices: str, **more: Any) -> stripe.Subscription:
    client = sim.stripe()
    customer = more.pop("customer", None) or client.v1.customers.create({"email": "a@example.com"}).id
    items = [{"price": price} for price in prices or ("price_pro_monthly",)]
    params: Any = {"customer": customer, "items": items, **more}
    return client.v1.subscriptions.create(params)


def fetch(sim: Running, subscription: stripe.Subscription) -> stripe.Subscription:
    return sim.stripe().v1.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]})


def invoice_of(subscription: stripe.Subscription) -> stripe.Invoice:
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    return subscription.latest_invoice


def until_end(sim: Running, subscription: stripe.Subscription, *, extra: float = 1) -> None:
    """Move the clock to just after the end of the running period."""
    sim.control("clock/advance", wait=True, to=fetch(sim, subscription)["items"].data[0].current_period_end + extra)


def test_a_renewal_rolls_the_period_at_once_and_charges_an_hour_later(sim: Running) -> None:
    first = subscribe(sim)
    until_end(sim, first)
    second = fetch(sim, first)
    old, new = first["items"].data[0], second["items"].data[0]
    assert second.status == "active"
    assert new.current_period_start == old.current_period_end < new.current_period_end
    assert invoice_of(second).status == "draft"
    assert invoice_of(second).billing_reason == "subscription_cycle"
    sim.advance(seconds=3600)
    assert invoice_of(fetch(sim, first)).status == "paid"
    updated = [event for event in sim.receiver.events if event["type"] == "customer.subscription.updated"]
    assert {"items", "latest_invoice"} <= set(updated[-1]["data"]["previous_attributes"])


def test_a_clock_moved_by_a_year_renews_twelve_times_each_dated_when_it_was_due(sim: Running) -> None:
    first = subscribe(sim)
    sim.advance(days=366)
    invoices = sim.stripe().v1.invoices.list({"subscription": first.id, "limit": 100}).data
    assert len(invoices) == 13
    assert {invoice.status for invoice in invoices} == {"paid"}
    starts = [invoice.created for invoice in reversed(invoices)]
    assert starts == sorted(set(starts))
    assert all(27 * DAY < later - earlier < 32 * DAY for earlier, later in itertools.pairwise(starts))


def test_months_are_counted_from_the_anchor_so_that_the_31st_comes_back() -> None:
    begun = datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp()
    with running_simulator(wall_clock=lambda: begun) as sim:
        ends = []
        subscription = subscribe(sim)
        for _ in range(3):
            ends.append(fetch(sim, subscription)["items"].data[0].current_period_end)
            until_end(sim, subscription)
    assert [datetime.fromtimestamp(end, UTC).strftime("%m-%d") for end in ends] == ["02-28", "03-31", "04-30"]


@pytest.mark.parametrize("end", ["canceled", "unpaid", "past_due", "paused"])
def test_a_card_that_fails_leads_through_past_due_and_retries_to_what_the_settings_say(sim: Running, end: str) -> None:
    sim.control("settings", after_final_failure=end)
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription)
    assert fetch(sim, subscription).status == "active"
    sim.advance(seconds=3600)
    failing = fetch(sim, subscription)
    assert failing.status == "past_due"
    assert (invoice_of(failing).status, invoice_of(failing).attempt_count) == ("open", 1)
    assert invoice_of(failing).hosted_invoice_url is not None
    sim.advance(days=14)
    assert fetch(sim, subscription).status == "past_due"
    assert invoice_of(fetch(sim, subscription)).attempt_count == 3
    sim.advance(days=2)
    final = fetch(sim, subscription)
    assert final.status == end
    assert invoice_of(final).attempt_count == 4
    assert sim.receiver.types.count("invoice.payment_failed") == 4
    assert ("customer.subscription.deleted" in sim.receiver.types) == (end == "canceled")
    assert ("customer.subscription.paused" in sim.receiver.types) == (end == "paused")
    if end == "paused":
        assert final.status_details is not None
        assert final.status_details.paused.subscription.type == "final_payment_failure"


def test_paying_the_hosted_invoice_ends_past_due(sim: Running) -> None:
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription, extra=3601)
    url = str(invoice_of(fetch(sim, subscription)).hosted_invoice_url)
    assert "open" in sim.http.get(url).text
    assert sim.pay(url, card="declined").status_code == 402
    assert fetch(sim, subscription).status == "past_due"
    assert sim.pay(url).status_code == 303
    assert fetch(sim, subscription).status == "active"
    assert "paid" in sim.http.get(url).text
    assert sim.pay(url).status_code == 303, "paying what is paid shows the invoice and charges nothing"


def test_a_payment_asked_for_by_hand_does_not_use_up_a_retry(sim: Running) -> None:
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription, extra=3601)
    before = invoice_of(fetch(sim, subscription))
    with pytest.raises(stripe.CardError) as caught:
        sim.stripe().v1.invoices.pay(str(before.id))
    assert caught.value.http_status == 402
    after = invoice_of(fetch(sim, subscription))
    assert (after.attempt_count, after.next_payment_attempt) == (1, before.next_payment_attempt)


def test_paying_what_led_to_a_pause_gives_the_period_that_it_pays_for_and_bills_no_other(sim: Running) -> None:
    sim.control("settings", after_final_failure="paused")
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription, extra=3601)
    rolled = fetch(sim, subscription)["items"].data[0].current_period_end
    sim.advance(days=16)
    paused = fetch(sim, subscription)
    assert (paused.status, paused["items"].data[0].current_period_end < rolled) == ("paused", True)
    sim.advance(days=2)
    sim.pay(str(invoice_of(paused).hosted_invoice_url))
    again = fetch(sim, subscription)
    assert (again.status, again["items"].data[0].current_period_end) == ("active", rolled)
    assert len(sim.stripe().v1.invoices.list({"subscription": subscription.id}).data) == 2


def test_paying_an_old_invoice_does_not_undo_a_pause_that_was_asked_for(sim: Running) -> None:
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription, extra=3601)
    late = fetch(sim, subscription)
    sim.stripe().v1.subscriptions.pause(subscription.id)
    sim.pay(str(invoice_of(late).hosted_invoice_url))
    assert fetch(sim, subscription).status == "paused"


def test_an_end_asked_for_together_with_a_new_interval_is_the_end_of_the_new_period(sim: Running) -> None:
    subscription = subscribe(sim)
    item = subscription["items"].data[0]
    changed = sim.stripe().v1.subscriptions.update(
        subscription.id, {"items": [{"id": item.id, "price": "price_pro_yearly"}], "cancel_at_period_end": True}
    )
    assert changed.cancel_at == changed["items"].data[0].current_period_end > item.current_period_end


def test_an_end_can_be_set_to_the_first_or_last_of_mixed_periods(sim: Running) -> None:
    subscription = subscribe(sim, "price_pro_monthly", "price_pro_yearly")
    ends = [item.current_period_end for item in subscription["items"].data]
    update = sim.stripe().v1.subscriptions.update
    assert update(subscription.id, {"cancel_at": "min_period_end"}).cancel_at == min(ends)
    assert update(subscription.id, {"cancel_at": "max_period_end"}).cancel_at == max(ends)
    assert update(subscription.id, {"cancel_at": ""}).cancel_at is None


def test_nothing_of_a_canceled_subscription_is_charged_any_more(sim: Running) -> None:
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription, extra=3601)
    sim.stripe().v1.subscriptions.cancel(subscription.id)
    sim.control(f"customers/{subscription.customer}/card", works=True)
    sim.advance(days=30)
    left = invoice_of(fetch(sim, subscription))
    assert (left.status, left.next_payment_attempt, left.auto_advance) == ("open", None, False)


def test_voiding_the_unpaid_invoice_makes_the_subscription_active_again(sim: Running) -> None:
    subscription = subscribe(sim)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    until_end(sim, subscription, extra=3601)
    sim.stripe().v1.invoices.void_invoice(str(invoice_of(fetch(sim, subscription)).id))
    assert fetch(sim, subscription).status == "active"


def test_cancel_at_period_end_names_the_end_can_be_taken_back_and_ends_exactly_there(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    period_end = subscription["items"].data[0].current_period_end
    canceled = client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert (canceled.status, canceled.cancel_at_period_end, canceled.cancel_at) == ("active", True, period_end)
    assert canceled.canceled_at is not None
    assert canceled.canceled_at < period_end
    kept = client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": False})
    assert (kept.cancel_at_period_end, kept.cancel_at, kept.canceled_at) == (False, None, None)
    sim.control(f"subscriptions/{subscription.id}/auto_renew", enabled=False)
    until_end(sim, subscription)
    ended = fetch(sim, subscription)
    assert (ended.status, ended.ended_at) == ("canceled", period_end)
    assert "customer.subscription.deleted" in sim.receiver.types
    assert len(client.v1.invoices.list({"subscription": subscription.id}).data) == 1


def test_cancel_at_in_the_middle_of_a_later_period_ends_there(sim: Running) -> None:
    subscription = subscribe(sim)
    at = subscription["items"].data[0].current_period_end + 10 * DAY
    sim.stripe().v1.subscriptions.update(subscription.id, {"cancel_at": at})
    sim.advance(days=60)
    ended = fetch(sim, subscription)
    assert (ended.status, ended.ended_at) == ("canceled", at)
    assert ended["items"].data[0].current_period_end > at


def test_an_immediate_cancel_keeps_the_paid_period_and_works_once(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    canceled = client.v1.subscriptions.cancel(subscription.id)
    assert canceled.status == "canceled"
    assert canceled.ended_at is not None
    assert canceled["items"].data[0].current_period_end > canceled.ended_at
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.subscriptions.cancel(subscription.id)
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    sim.advance(days=90)
    assert len(client.v1.invoices.list({"subscription": subscription.id}).data) == 1


def test_a_first_payment_that_fails_is_incomplete_and_expires_after_23_hours(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create()
    sim.control(f"customers/{customer.id}/card", works=False)
    subscription = subscribe(sim, customer=customer.id)
    assert subscription.status == "incomplete"
    assert subscription["items"].data[0].current_period_end > subscription.created + 27 * DAY
    sim.advance(seconds=23 * 3600 + 1)
    assert fetch(sim, subscription).status == "incomplete_expired"
    with pytest.raises(stripe.CardError):
        subscribe(sim, customer=customer.id, payment_behavior="error_if_incomplete")


def test_an_incomplete_subscription_becomes_active_when_its_invoice_is_paid(sim: Running) -> None:
    subscription = subscribe(sim, payment_behavior="default_incomplete")
    assert subscription.status == "incomplete"
    sim.stripe().v1.invoices.pay(str(subscription.latest_invoice))
    assert fetch(sim, subscription).status == "active"


@pytest.mark.parametrize(("behavior", "status"), [("pause", "paused"), ("cancel", "canceled")])
def test_a_trial_that_ends_without_a_card_pauses_or_cancels(sim: Running, behavior: str, status: str) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create()
    sim.control(f"customers/{customer.id}/card", card="none")
    subscription = subscribe(
        sim,
        customer=customer.id,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": behavior}},
    )
    assert (subscription.status, invoice_of(fetch(sim, subscription)).status) == ("trialing", "paid")
    sim.advance(days=8)
    assert fetch(sim, subscription).status == status
    if behavior == "pause":
        sim.control(f"customers/{customer.id}/card", works=True)
        resumed = client.v1.subscriptions.resume(subscription.id)
        assert resumed.status == "active"
        sim.control("settle")
        assert "customer.subscription.resumed" in sim.receiver.types


def test_a_pause_stops_the_period_and_renewals_until_it_is_resumed_and_paid(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    sim.advance(days=3)
    paused = client.v1.subscriptions.pause(subscription.id)
    assert paused.status == "paused"
    assert paused["items"].data[0].current_period_end < subscription["items"].data[0].current_period_end
    sim.advance(days=90)
    sim.control(f"customers/{subscription.customer}/card", works=False)
    assert client.v1.subscriptions.resume(subscription.id).status == "paused"
    sim.control(f"customers/{subscription.customer}/card", works=True)
    client.v1.invoices.pay(str(fetch(sim, subscription).latest_invoice.id))  # type: ignore[union-attr]
    assert fetch(sim, subscription).status == "active"


def test_paused_collection_leaves_status_and_renewals_and_collects_nothing(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    client.v1.subscriptions.update(subscription.id, {"pause_collection": {"behavior": "void"}})
    until_end(sim, subscription, extra=3601)
    later = fetch(sim, subscription)
    assert (later.status, invoice_of(later).status) == ("active", "void")
    assert "customer.subscription.paused" not in sim.receiver.types


def test_each_item_has_its_own_period_and_more_than_ten_are_paged() -> None:
    offers = [*OFFERS, *(Offer(f"price_{number}", "Many", 100) for number in range(11))]
    with running_simulator(offers) as sim:
        mixed = subscribe(sim, "price_pro_monthly", "price_pro_yearly")
        month, year = (item.current_period_end for item in mixed["items"].data)
        assert year > month + 300 * DAY
        sim.advance(days=40)
        later_month, later_year = (item.current_period_end for item in fetch(sim, mixed)["items"].data)
        assert later_month > month
        assert later_year == year
        many = subscribe(sim, *(f"price_{number}" for number in range(11)))
        assert (len(many["items"].data), many["items"].has_more) == (10, True)
        paged = sim.stripe().v1.subscription_items.list({"subscription": many.id, "limit": 4})
        assert len({item.id for item in paged.auto_paging_iter()}) == 11


def test_a_change_of_plan_is_charged_for_the_rest_of_the_period(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    item = subscription["items"].data[0]
    sim.control("clock/advance", to=(item.current_period_start + item.current_period_end) / 2)
    changed = client.v1.subscriptions.update(
        subscription.id,
        {
            "items": [{"id": item.id, "price": "price_ent"}],
            "proration_behavior": "always_invoice",
            "expand": ["latest_invoice"],
        },
    )
    assert changed["items"].data[0].price.id == "price_ent"
    assert changed["items"].data[0].current_period_end == item.current_period_end
    assert invoice_of(changed).status == "paid"
    assert invoice_of(changed).amount_paid == pytest.approx((9900 - 2900) / 2, abs=2)


def test_a_change_of_interval_starts_a_new_period_today(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    sim.advance(days=10)
    item = subscription["items"].data[0]
    changed = client.v1.subscriptions.update(subscription.id, {"items": [{"id": item.id, "price": "price_pro_yearly"}]})
    new = changed["items"].data[0]
    assert new.current_period_start >= item.current_period_start + 10 * DAY
    assert new.current_period_end > new.current_period_start + 364 * DAY


def test_a_change_that_waits_for_payment_keeps_the_old_items_until_it_is_paid_or_dropped(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    item = subscription["items"].data[0]
    update: Any = {
        "items": [{"id": item.id, "price": "price_ent"}],
        "proration_behavior": "always_invoice",
        "payment_behavior": "pending_if_incomplete",
    }
    sim.control(f"customers/{subscription.customer}/card", works=False)
    for paid in (False, True):
        pending = client.v1.subscriptions.update(subscription.id, update)
        assert pending["items"].data[0].price.id == "price_pro_monthly"
        assert pending.pending_update is not None
        assert pending.status == "active"
        if paid:
            sim.pay(str(invoice_of(fetch(sim, subscription)).hosted_invoice_url))
        else:
            sim.advance(days=1)
        assert fetch(sim, subscription).pending_update is None
        assert fetch(sim, subscription)["items"].data[0].price.id == ("price_ent" if paid else "price_pro_monthly")
    sim.control("settle")
    applied = [one for one in sim.receiver.types if "pending_update" in one]
    assert applied == [f"customer.subscription.pending_update_{end}" for end in ("expired", "applied")]


def test_a_refused_update_changes_nothing(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    item = subscription["items"].data[0]
    sim.control(f"customers/{subscription.customer}/card", works=False)
    before = fetch(sim, subscription).to_dict()
    with pytest.raises(stripe.CardError):
        client.v1.subscriptions.update(
            subscription.id,
            {
                "cancel_at_period_end": True,
                "metadata": {"a": "b"},
                "items": [{"id": item.id, "price": "price_ent"}],
                "proration_behavior": "always_invoice",
                "payment_behavior": "error_if_incomplete",
            },
        )
    assert fetch(sim, subscription).to_dict() == before


def test_deleting_a_customer_ends_every_subscription_and_leaves_a_stump(sim: Running) -> None:
    client, subscription = sim.stripe(), subscribe(sim)
    customer = str(subscription.customer)
    assert client.v1.customers.delete(customer).deleted is True
    assert getattr(client.v1.customers.retrieve(customer), "deleted", False) is True
    assert fetch(sim, subscription).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        subscribe(sim, customer=customer)
    sim.control("settle")
    assert {"customer.deleted", "customer.subscription.deleted"} <= set(sim.receiver.types)


def test_an_invoice_that_is_sent_makes_the_subscription_past_due_when_its_date_passes(sim: Running) -> None:
    subscription = subscribe(sim, collection_method="send_invoice", days_until_due=5)
    assert subscription.status == "active"
    sim.advance(days=4)
    assert fetch(sim, subscription).status == "active"
    sim.advance(days=2)
    late = fetch(sim, subscription)
    assert late.status == "past_due"
    assert invoice_of(late).due_date is not None
    sim.pay(str(invoice_of(late).hosted_invoice_url))
    assert fetch(sim, subscription).status == "active"


def test_nothing_needs_to_be_asked_for_what_falls_due_by_real_time_to_happen() -> None:
    now = [1_800_000_000.0]
    receiver = Receiver()
    with running_simulator(receiver=receiver, wall_clock=lambda: now[0]) as sim:
        subscribe(sim, cancel_at=1_800_000_100)
        now[0] += 101
        sim.http.get(f"{sim.base}/_sim/clock")
        deadline = time.monotonic() + 10
        while "customer.subscription.deleted" not in receiver.types:
            assert time.monotonic() < deadline
            time.sleep(0.02)
