from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from admin.ledger.inbox import INLINE_SECONDS, Inbox, InboxEvent, Stored
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import StripeCustomers

if TYPE_CHECKING:
    from admin.ledger.engine import Database

LIVE = Pair("acct_1", True)
TEST = Pair("acct_1", False)
NOW = 1_800_000_000
LATER = NOW + INLINE_SECONDS


def event(
    event_id: str,
    stripe_customer: str | None = "cus_1",
    *,
    kind: str = "customer.subscription.updated",
    pair: Pair = LIVE,
    received_at: int = NOW,
) -> InboxEvent:
    return InboxEvent(
        pair, event_id, kind, "sub_1", stripe_customer, "snapshot", NOW, received_at, "evt_s", "2025-03-31"
    )


async def test_ten_deliveries_of_one_event_at_once_store_it_once(database: Database) -> None:
    inbox = Inbox(database)
    stored = await asyncio.gather(*(inbox.store(event("evt_1"), NOW) for _ in range(10)))
    assert Counter(stored) == {Stored("new"): 1, Stored("duplicate_pending"): 9}
    assert await inbox.counts(LIVE) == {"pending": 1}


async def test_two_processes_that_store_the_same_page_at_once_store_each_event_once(database: Database) -> None:
    inbox = Inbox(database)
    page = [event(f"evt_{number}") for number in range(100)]
    await inbox.store(page[7], NOW)
    one, other = await asyncio.gather(inbox.store_all(page, NOW), inbox.store_all(page[::-1], NOW))
    assert one.isdisjoint(other)
    assert one | other == {row.event_id for row in page} - {"evt_7"}
    assert await inbox.known(LIVE, ["evt_7", "evt_99", "evt_100"]) == {"evt_7", "evt_99"}
    assert await inbox.known(TEST, ["evt_7"]) == set()


async def test_a_duplicate_of_a_settled_event_says_so(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    await inbox.mark(LIVE, "evt_1", "done", "prices fetched", NOW)
    assert await inbox.store(event("evt_1"), NOW) == Stored("duplicate_done")
    row = await inbox.get(LIVE, "evt_1")
    assert row is not None
    assert (row.status, row.outcome) == ("done", "prices fetched")


async def test_one_id_in_two_modes_is_two_events(database: Database) -> None:
    inbox = Inbox(database)
    assert await inbox.store(event("evt_1"), NOW) == Stored("new")
    assert await inbox.store(event("evt_1", pair=TEST), NOW, status="ignored", outcome="wrong mode") == Stored("new")
    assert await inbox.counts(TEST) == {"ignored": 1}
    assert await inbox.due(TEST, LATER, 10) == []


async def test_everything_that_was_stored_is_read_back(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    row = await inbox.get(LIVE, "evt_1")
    assert row is not None
    assert (row.object_id, row.wire, row.snapshot_event, row.api_version) == (
        "sub_1",
        "snapshot",
        "evt_s",
        "2025-03-31",
    )
    assert (row.created, row.received_at, row.attempts, row.doubted_at) == (NOW, NOW, 0, None)
    assert await inbox.get(LIVE, "evt_2") is None


async def test_a_new_event_is_left_to_whoever_stored_it_and_then_taken_for_orphaned(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    assert await inbox.due(LIVE, LATER - 1, 10) == []
    assert [work.event_ids for work in await inbox.due(LIVE, LATER, 10)] == [("evt_1",)]


async def test_a_failed_inline_attempt_makes_the_event_due_at_once(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    assert await inbox.mark_doubted(LIVE, "evt_1", NOW) is None  # its Stripe customer is nobody's yet
    assert [work.event_ids for work in await inbox.due(LIVE, NOW, 10)] == [("evt_1",)]


async def test_events_of_one_stripe_customer_are_one_piece_of_work(database: Database) -> None:
    inbox = Inbox(database)
    for event_id, customer in (("evt_1", "cus_1"), ("evt_2", "cus_2"), ("evt_3", "cus_1")):
        await inbox.store(event(event_id, customer), NOW)
    work = await inbox.due(LIVE, LATER, 10)
    assert [(piece.stripe_customer, piece.event_ids) for piece in work] == [
        ("cus_1", ("evt_1", "evt_3")),
        ("cus_2", ("evt_2",)),
    ]


async def test_events_that_name_no_stripe_customer_are_pieces_of_their_own(database: Database) -> None:
    inbox = Inbox(database)
    for event_id in ("evt_1", "evt_2"):
        await inbox.store(event(event_id, None, kind="price.updated"), NOW)
    assert [work.event_ids for work in await inbox.due(LIVE, LATER, 10)] == [("evt_1",), ("evt_2",)]


async def test_cancellations_come_before_older_work(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1", "cus_1"), NOW)
    await inbox.store(event("evt_2", "cus_2", kind="customer.subscription.deleted"), NOW)
    assert [work.stripe_customer for work in await inbox.due(LIVE, LATER, 10)] == ["cus_2", "cus_1"]
    assert [work.stripe_customer for work in await inbox.due(LIVE, LATER, 1)] == ["cus_2"]


async def test_a_cancellation_behind_a_backlog_of_any_length_comes_first(database: Database) -> None:
    """A month's events of a business that is taken over, and somebody has just left."""
    inbox = Inbox(database)
    await inbox.store_all([event(f"evt_{number}", f"cus_{number % 70}") for number in range(210)], NOW)
    await inbox.store(event("evt_last", "cus_5", kind="customer.subscription.paused"), NOW)
    first, second = await inbox.due(LIVE, NOW + 60, limit=2)
    assert (first.stripe_customer, len(first.events)) == ("cus_5", 4)
    assert first.event_ids[-1] == "evt_last"
    assert second.stripe_customer != "cus_5"
    everything = await inbox.due(LIVE, NOW + 60, limit=100)
    assert len(everything) == 70
    assert sum(len(piece.events) for piece in everything) == 211


async def test_failures_wait_longer_each_time_and_are_set_aside_in_the_end(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    waits = []
    for attempt in range(1, 13):
        await inbox.record_failure(LIVE, ["evt_1"], f"failure {attempt}", NOW, give_up_after=13)
        row = await inbox.get(LIVE, "evt_1")
        assert row is not None
        waits.append(row.next_attempt_at - NOW)
        assert (row.status, row.attempts, row.error) == ("pending", attempt, f"failure {attempt}")
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    await inbox.record_failure(LIVE, ["evt_1"], "x" * 10_000, NOW, give_up_after=13)
    row = await inbox.get(LIVE, "evt_1")
    assert row is not None
    assert (row.status, len(row.error)) == ("dead", 500)
    assert await inbox.due(LIVE, NOW + 10**6, 10) == []


async def test_a_failure_recorded_too_late_does_not_reopen_a_settled_event(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    await inbox.mark(LIVE, "evt_1", "done", "synced", NOW)
    await inbox.record_failure(LIVE, ["evt_1", "evt_unknown"], "slow", NOW, give_up_after=1)
    assert await inbox.mark_doubted(LIVE, "evt_1", NOW) is None
    assert await inbox.counts(LIVE) == {"done": 1}


async def test_replay_works_a_settled_or_dead_event_off_again(database: Database) -> None:
    inbox = Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    await inbox.record_failure(LIVE, ["evt_1"], "no", NOW, give_up_after=1)
    assert await inbox.replay(LIVE, "evt_1", NOW) is True
    row = await inbox.get(LIVE, "evt_1")
    assert row is not None
    assert (row.status, row.attempts, row.error) == ("pending", 0, "")
    assert len(await inbox.due(LIVE, NOW, 10)) == 1
    assert await inbox.replay(LIVE, "evt_unknown", NOW) is False


async def test_replaying_a_settled_event_casts_no_doubt_and_replaying_a_pending_one_lifts_none(
    database: Database,
) -> None:
    inbox = Inbox(database)
    doubted = []
    for event_id, settled in (("evt_1", True), ("evt_2", False)):
        await inbox.store(event(event_id), NOW)
        await inbox.mark_doubted(LIVE, event_id, NOW)
        if settled:
            await inbox.mark(LIVE, event_id, "done", "", NOW)
        await inbox.replay(LIVE, event_id, NOW)
        row = await inbox.get(LIVE, event_id)
        assert row is not None
        doubted.append(row.doubted_at)
    assert doubted == [None, NOW]


async def test_settling_a_doubted_event_by_hand_tells_the_caches(database: Database) -> None:
    inbox, stripe = Inbox(database), StripeCustomers(database)
    linked = await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    await inbox.store(event("evt_1"), NOW)
    doubted = await inbox.mark_doubted(LIVE, "evt_1", NOW)
    await inbox.mark(LIVE, "evt_1", "ignored", "by hand", NOW)
    again = await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    assert doubted is not None
    assert [linked.version, doubted, again.version] == [linked.version + number for number in range(3)]  # type: ignore[union-attr]


async def test_the_lag_is_the_age_of_the_oldest_pending_event(database: Database) -> None:
    inbox = Inbox(database)
    assert await inbox.lag(LIVE, NOW) == 0.0
    await inbox.store(event("evt_1", received_at=NOW - 90), NOW)
    await inbox.store(event("evt_2", received_at=NOW - 30), NOW)
    assert await inbox.lag(LIVE, NOW + 0.5) == 90.5
    await inbox.mark(LIVE, "evt_1", "done", "", NOW)
    assert await inbox.lag(LIVE, NOW) == 30.0
    assert await inbox.lag(LIVE, NOW - 100) == 0.0
    assert await inbox.lag(TEST, NOW) == 0.0


async def test_search_filters_and_comes_in_pages_newest_first(database: Database) -> None:
    inbox = Inbox(database)
    for number in range(5):
        await inbox.store(event(f"evt_{number}", f"cus_{number % 2}", kind=f"type_{number % 2}"), NOW)
    await inbox.mark(LIVE, "evt_4", "done", "", NOW)
    first = await inbox.search(LIVE, limit=3)
    rest = await inbox.search(LIVE, limit=3, before_seq=first[-1].seq)
    assert [row.event_id for row in first + rest] == ["evt_4", "evt_3", "evt_2", "evt_1", "evt_0"]
    assert [row.event_id for row in await inbox.search(LIVE, status="pending", type="type_0")] == ["evt_2", "evt_0"]
    assert [row.event_id for row in await inbox.search(LIVE, stripe_customer="cus_1")] == ["evt_3", "evt_1"]


async def test_retention_deletes_what_is_settled_and_never_what_is_not(database: Database) -> None:
    inbox = Inbox(database)
    for event_id, fate in (("evt_1", "done"), ("evt_2", "ignored"), ("evt_3", "dead"), ("evt_4", "pending")):
        await inbox.store(event(event_id), NOW)
        await inbox.mark(LIVE, event_id, fate, "", NOW)  # type: ignore[arg-type]
    assert await inbox.prune(NOW) == 0
    assert await inbox.prune(NOW + 1) == 2
    assert await inbox.counts(LIVE) == {"dead": 1, "pending": 1}
