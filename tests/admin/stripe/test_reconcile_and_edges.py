"""What no webhook told is found: events by Stripe's own list, periods by their ends, and everybody at night."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from admin.ledger.changes import Changes
from admin.simulator.faults import ApiFault
from admin.stripe.budget import Priority
from admin.stripe.client import StripeRefused
from admin.stripe.fetch import Failed, failed
from admin.stripe.reconcile import (
    NIGHT_EVERY_SECONDS,
    CaughtUp,
    EventsCatchUp,
    Night,
    NightlyDiff,
    NotCaughtUp,
    forget_old,
)
from admin.stripe.results import CheckoutUrl
from admin.stripe.sync import SyncOutcome
from admin.stripe.worker import EDGE_DELAY_SECONDS, EDGE_SPREAD_SECONDS, EdgeWatch
from tests.admin.stripe.conftest import BACK, SUCCESS, Shop

DAY = 86_400


def catch_up(shop: Shop) -> EventsCatchUp:
    return EventsCatchUp(shop.gateway, shop.inbox, shop.meta, shop.pair, now=shop.now, wall=time.time)


def edges(shop: Shop, now: Callable[[], float] | None = None) -> EdgeWatch:
    return EdgeWatch(shop.work, shop.stripe_customers, shop.pair, now=now or shop.now, wall=time.time)


def night(shop: Shop, wall: Callable[[], float] = time.time) -> NightlyDiff:
    return NightlyDiff(shop.work, shop.stripe_customers, shop.meta, shop.pair, wall=wall)


async def test_a_gateway_whose_webhook_was_never_set_up_still_converges(shop: Shop) -> None:
    _, subscription = await shop.subscribe("alice")
    assert isinstance(await catch_up(shop).run_once(), CaughtUp)
    await shop.worker.run_once()
    assert await shop.tier("alice") == "pro"
    await shop.client.v1.subscriptions.cancel_async(subscription)
    await catch_up(shop).run_once()
    await shop.worker.run_once()
    assert await shop.tier("alice") == "free"


async def test_a_deletion_during_days_of_outage_takes_access_at_the_first_reading(shop: Shop) -> None:
    """Scenario 37: beyond Stripe's own retries, on an annual plan."""
    _, subscription = await shop.subscribe("alice", "price_pro_yearly")
    await shop.receive_all()
    await catch_up(shop).run_once()
    shop.simulator.advance(DAY)
    await shop.client.v1.subscriptions.cancel_async(subscription)
    shop.simulator.advance(5 * DAY)
    reading = catch_up(shop)
    outcome = await reading.run_once()
    assert isinstance(outcome, CaughtUp)
    assert outcome.unheard > 0
    assert reading.unheard_at is not None
    await shop.worker.run_once()
    assert await shop.tier("alice") == "free"


async def test_events_that_came_by_webhook_are_not_news(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    assert await catch_up(shop).run_once() == CaughtUp(0, 0)


async def test_every_page_of_events_is_read(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr("admin.stripe.reconcile._PAGE", 2)
    for name in ("alice", "bob", "carol"):
        await shop.subscribe(name)
    outcome = await catch_up(shop).run_once()
    assert isinstance(outcome, CaughtUp)
    assert outcome.stored > 6
    await shop.worker.run_once()
    assert [await shop.tier(name) for name in ("alice", "bob", "carol")] == ["pro"] * 3


async def test_a_reading_that_breaks_off_does_not_move_the_cursor(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr("admin.stripe.reconcile._PAGE", 2)
    await catch_up(shop).run_once()
    cursor = await shop.meta.get(f"stripe.events.{shop.pair.account}.test")
    shop.simulator.advance(DAY)
    for name in ("alice", "bob"):
        await shop.subscribe(name)
    real, calls = shop.gateway.get, 0

    async def get(path: str, *args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            shop.simulator.world.faults.api.append(ApiFault("500", 3))
        return await real(path, *args, **more)

    shop.gateway.get = get  # type: ignore[method-assign]
    assert isinstance(await catch_up(shop).run_once(), NotCaughtUp)
    assert await shop.meta.get(f"stripe.events.{shop.pair.account}.test") == cursor
    shop.gateway.get = real  # type: ignore[method-assign]
    assert isinstance(await catch_up(shop).run_once(), CaughtUp)
    await shop.worker.run_once()
    assert [await shop.tier(name) for name in ("alice", "bob")] == ["pro", "pro"]


async def test_a_renewal_that_no_webhook_told_of_is_fetched_after_an_hour_or_two(shop: Shop) -> None:
    _, subscription = await shop.subscribe("alice")
    await shop.receive_all()
    end = shop.simulator.world.store.subscriptions[subscription].items[0].period_end
    shop.simulator.advance(end - shop.now() + 60)
    assert await edges(shop).run_once() == 0
    shop.simulator.advance(EDGE_DELAY_SECONDS + EDGE_SPREAD_SECONDS)
    assert await edges(shop).run_once() == 1
    assert await edges(shop).run_once() == 0
    standing = await shop.standing("alice")
    assert standing.access_until is not None
    assert standing.access_until > end + 20 * DAY


async def test_edges_are_spread_over_an_hour(shop: Shop) -> None:
    ends = set()
    for number in range(8):
        _, subscription = await shop.subscribe(f"customer-{number}")
        ends.add(shop.simulator.world.store.subscriptions[subscription].items[0].period_end)
    await shop.receive_all()
    last = max(ends)
    half = last + EDGE_DELAY_SECONDS + EDGE_SPREAD_SECONDS // 2
    due = await shop.stripe_customers.due_edges(shop.pair, half - EDGE_DELAY_SECONDS, 100)
    assert len(due) == 8
    looked = await edges(shop, now=lambda: float(half)).run_once()
    assert 0 < looked < 8


async def test_an_edge_that_cannot_be_asked_for_waits_before_it_is_asked_again(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    shop.simulator.advance(32 * DAY)
    watch = edges(shop)
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert await watch.run_once() == 1
    assert await watch.run_once() == 0


async def test_the_night_looks_at_everybody_known(shop: Shop) -> None:
    gone = [(await shop.subscribe(name))[1] for name in ("alice", "bob")]
    await shop.receive_all()
    for subscription in gone:
        await shop.client.v1.subscriptions.cancel_async(subscription)
    assert await night(shop).run_once() == Night(2, 0, finished=True, repaired=2)
    assert [await shop.tier(name) for name in ("alice", "bob")] == ["free", "free"]


async def test_the_night_counts_whom_it_repaired(shop: Shop) -> None:
    (_, subscription), _ = [await shop.subscribe(name) for name in ("alice", "bob")]
    await shop.receive_all()
    await shop.client.v1.subscriptions.cancel_async(subscription)
    assert await night(shop).run_once() == Night(2, 0, finished=True, repaired=1)
    assert await night(shop).run_once() == Night(2, 0, finished=True, repaired=0)


async def test_a_night_during_an_outage_stops_and_goes_on_later(shop: Shop) -> None:
    for number in range(6):
        await shop.subscribe(f"customer-{number}")
    await shop.receive_all()
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert await night(shop).run_once() == Night(5, 5, finished=False)
    shop.simulator.world.faults.clear()
    assert await night(shop).run_once() == Night(6, 0, finished=True)


async def test_what_is_wrong_with_a_few_neighbours_keeps_the_night_from_nobody_behind_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five in a row of whom Stripe can't tell, though it answers: the night used to end in front of them, every night."""
    made = sorted([(await shop.subscribe(f"customer-{number}"))[0] for number in range(7)])
    await shop.receive_all()
    real = shop.sync.sync_customer

    async def odd(one: str, priority: Priority) -> SyncOutcome:
        return Failed("it can't be read", unavailable=False) if one in made[:5] else await real(one, priority)

    monkeypatch.setattr(shop.sync, "sync_customer", odd)
    assert await night(shop).run_once() == Night(7, 5, finished=True)


@pytest.mark.parametrize(("status", "is_everybodys"), [(401, True), (403, True), (400, False), (404, False)])
def test_a_key_that_is_refused_is_refused_for_everybody(status: int, is_everybodys: bool) -> None:
    assert failed(StripeRefused("refused", "no", status)).unavailable is is_everybodys


async def test_nights_are_a_day_apart(shop: Shop) -> None:
    now = time.time()
    first = night(shop, wall=lambda: now)
    assert await first.due_in() == NIGHT_EVERY_SECONDS
    later = night(shop, wall=lambda: now + NIGHT_EVERY_SECONDS)
    assert await later.due_in() == 0
    await later.run_once()
    assert await later.due_in() == NIGHT_EVERY_SECONDS


async def test_settled_events_are_forgotten_after_45_days_and_waiting_ones_are_not(shop: Shop) -> None:
    await shop.subscribe("alice")
    mail = await shop.mail()
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    await shop.receive(mail[0])
    shop.simulator.world.faults.clear()
    (event,) = await shop.inbox.search(shop.pair)
    assert event.status == "pending"

    async def forgotten(after_seconds: int) -> int:
        wall_now = event.received_at + after_seconds
        changes = Changes(shop.database)
        return (await forget_old(shop.inbox, changes, shop.checkouts, wall_now, publishes=False))[0]

    assert await forgotten(10 * 365 * DAY) == 0
    await shop.worker.run_once()
    # By number: Stripe may send an event again for thirty days, and one that was forgotten would be taken for new.
    assert await forgotten(45 * DAY) == 0
    assert (await shop.inbox.counts(shop.pair)) == {"done": 1}
    assert await forgotten(45 * DAY + 1) == 1
    assert (await shop.inbox.counts(shop.pair)) == {}


async def test_a_checkout_session_is_forgotten_45_days_after_it_could_last_be_paid(shop: Shop) -> None:
    opened = await shop.desk.open_checkout("alice", "pro", success_url=SUCCESS, return_url=BACK)
    assert isinstance(opened, CheckoutUrl)
    (session,) = await shop.checkouts.open_for(shop.pair, "alice", shop.now())

    async def is_kept(after_seconds: int) -> bool:
        wall_now = session.expires_at + after_seconds
        await forget_old(shop.inbox, Changes(shop.database), shop.checkouts, wall_now, publishes=False)
        return await shop.checkouts.get(shop.pair, session.id) is not None

    assert await is_kept(45 * DAY)
    assert not await is_kept(45 * DAY + 1)


async def test_an_event_that_was_given_up_is_settled_by_the_next_look_that_succeeds(shop: Shop) -> None:
    """What it told is known by then, and its alert ends by itself."""
    stripe_customer, _ = await shop.subscribe("alice")
    mail = await shop.mail()
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    await shop.receive(next(one for one in mail if one.type == "customer.subscription.created"))
    (event,) = await shop.inbox.search(shop.pair)
    await shop.inbox.record_failure(shop.pair, [event.event_id], "no luck", time.time(), give_up_after=1)
    assert await shop.inbox.counts(shop.pair) == {"dead": 1}
    shop.simulator.world.faults.clear()
    await shop.work.look_at(stripe_customer, Priority.NIGHTLY)
    assert await shop.inbox.counts(shop.pair) == {"done": 1}
    assert await shop.tier("alice") == "pro"
