from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from admin.ledger.changes import Changes
from admin.ledger.customers import Customers
from admin.ledger.inbox import Inbox, InboxEvent
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import (
    Conflict,
    DueEdge,
    LinkClaim,
    LinkConflict,
    Linked,
    StripeCustomers,
    Superseded,
    SyncResult,
    Written,
)
from policies.facts import ItemFact, SubscriptionFact

if TYPE_CHECKING:
    from admin.ledger.engine import Database

LIVE = Pair("acct_1", True)
TEST = Pair("acct_1", False)
NOW = 1_800_000_000


def event(event_id: str, stripe_customer: str | None = "cus_1", pair: Pair = LIVE) -> InboxEvent:
    return InboxEvent(pair, event_id, "customer.subscription.updated", "sub_1", stripe_customer, "snapshot", NOW, NOW)


def subscription(name: str = "sub_1", status: str = "active") -> SubscriptionFact:
    item = ItemFact("price_1", "prod_1", "pro_monthly", NOW, NOW + 30 * 86400, 1)
    return SubscriptionFact(name, status, (item,), created=NOW, cancel_at=NOW + 99, oldest_open_invoice_at=NOW - 5)


BOUGHT = SyncResult((subscription(),), links=(LinkClaim("bob", "metadata"),), next_edge_at=NOW + 30 * 86400)


async def test_what_a_sync_writes_is_read_back_as_the_customers_facts(database: Database) -> None:
    stripe = StripeCustomers(database)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    written = await stripe.write_sync(LIVE, ticket, BOUGHT, NOW + 3)
    assert isinstance(written, Written)
    facts = await Customers(database).read_facts(LIVE, "bob", NOW + 3)
    assert facts.subscriptions == (subscription(),)
    assert written.versions == {"bob": facts.version}
    assert await stripe.customer_of(LIVE, "cus_1") == "bob"


async def test_facts_are_dated_from_before_the_fetch(database: Database) -> None:
    stripe = StripeCustomers(database)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    await stripe.write_sync(LIVE, ticket, BOUGHT, NOW + 9)
    assert (await Customers(database).read_facts(LIVE, "bob", NOW + 9)).fetched_at == NOW


async def test_a_fetch_that_lingered_writes_nothing_once_a_newer_ticket_exists(database: Database) -> None:
    stripe, inbox = StripeCustomers(database), Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    old = await stripe.take_ticket(LIVE, "cus_1", NOW)
    new = await stripe.take_ticket(LIVE, "cus_1", NOW)
    assert await stripe.write_sync(LIVE, old, BOUGHT, NOW) == Superseded()
    assert await inbox.counts(LIVE) == {"pending": 1}
    assert (await Customers(database).read_facts(LIVE, "bob", NOW)).version == 0
    assert await Changes(database).unpublished(10, NOW) == []
    assert isinstance(await stripe.write_sync(LIVE, new, BOUGHT, NOW), Written)


async def test_a_ticket_writes_once(database: Database) -> None:
    stripe = StripeCustomers(database)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    assert isinstance(await stripe.write_sync(LIVE, ticket, BOUGHT, NOW), Written)
    assert await stripe.write_sync(LIVE, ticket, SyncResult(()), NOW) == Superseded()
    assert (await Customers(database).read_facts(LIVE, "bob", NOW)).subscriptions == (subscription(),)


async def test_a_ticket_settles_the_events_stored_before_it_and_leaves_later_ones_pending(database: Database) -> None:
    stripe, inbox = StripeCustomers(database), Inbox(database)
    await inbox.store(event("evt_before"), NOW)
    await inbox.store(event("evt_other_customer", "cus_2"), NOW)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    assert ticket.event_ids == {"evt_before"}
    await inbox.store(event("evt_after"), NOW)
    await stripe.write_sync(LIVE, ticket, BOUGHT, NOW)
    statuses = {row.event_id: row.status for row in await inbox.search(LIVE)}
    assert statuses == {"evt_before": "done", "evt_other_customer": "pending", "evt_after": "pending"}


async def test_a_sync_settles_more_events_than_one_statement_takes_parameters(database: Database) -> None:
    stripe, inbox = StripeCustomers(database), Inbox(database)
    for number in range(520):
        await inbox.store(event(f"evt_{number}"), NOW)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    await stripe.write_sync(LIVE, ticket, BOUGHT, NOW)
    assert await inbox.counts(LIVE) == {"done": 520}


async def test_an_event_given_up_during_the_fetch_is_answered_by_it(database: Database) -> None:
    stripe, inbox = StripeCustomers(database), Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    await inbox.record_failure(LIVE, ["evt_1"], "no answer", NOW, give_up_after=1)
    assert await inbox.counts(LIVE) == {"dead": 1}
    await stripe.write_sync(LIVE, ticket, BOUGHT, NOW)
    assert await inbox.counts(LIVE) == {"done": 1}


async def test_concurrent_syncs_of_one_customer_end_with_the_newest_ticket_written(database: Database) -> None:
    stripe = StripeCustomers(database)

    async def sync(status: str) -> tuple[int, Written | Superseded]:
        ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
        await asyncio.sleep(0)
        result = SyncResult((subscription(status=f"status_{ticket.number}"),), links=BOUGHT.links)
        return ticket.number, await stripe.write_sync(LIVE, ticket, result, NOW)

    outcomes = await asyncio.gather(*(sync(str(number)) for number in range(8)))
    assert sorted(number for number, _ in outcomes) == list(range(1, 9))
    assert isinstance(dict(outcomes)[8], Written)
    facts = await Customers(database).read_facts(LIVE, "bob", NOW)
    assert facts.subscriptions[0].status == "status_8"


async def test_a_second_claim_never_moves_a_link_and_is_shown(database: Database) -> None:
    stripe = StripeCustomers(database)
    assert isinstance(await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW), Linked)
    assert await stripe.link(LIVE, "cus_1", "mallory", "client_reference_id", NOW) == Conflict("bob")
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    claimed = SyncResult((subscription(),), links=(LinkClaim("eve", "client_reference_id"),))
    written = await stripe.write_sync(LIVE, ticket, claimed, NOW)
    assert isinstance(written, Written)
    assert set(written.versions) == {"bob"}
    assert await stripe.conflicts(LIVE) == [LinkConflict("cus_1", "bob", "mallory")]
    assert await stripe.links_of(LIVE, "mallory") == await stripe.links_of(LIVE, "eve") == ()


async def test_linking_again_changes_nothing(database: Database) -> None:
    stripe = StripeCustomers(database)
    first = await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    assert await stripe.link(LIVE, "cus_1", "bob", "metadata", NOW + 50) == first


async def test_links_made_at_once_by_two_keep_one_and_record_the_other(database: Database) -> None:
    stripe = StripeCustomers(database)
    outcomes = await asyncio.gather(*(stripe.link(LIVE, "cus_1", name, "checkout", NOW) for name in ("bob", "eve")))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Linked"]
    assert len(await stripe.conflicts(LIVE)) == 1


async def test_a_customer_with_several_stripe_customers_has_all_their_subscriptions(database: Database) -> None:
    stripe = StripeCustomers(database)
    for number, at in ((1, NOW), (2, NOW + 5)):
        ticket = await stripe.take_ticket(LIVE, f"cus_{number}", at)
        result = SyncResult((subscription(f"sub_{number}"),), links=BOUGHT.links)
        await stripe.write_sync(LIVE, ticket, result, at)
    facts = await Customers(database).read_facts(LIVE, "bob", NOW + 9)
    assert [entry.id for entry in facts.subscriptions] == ["sub_1", "sub_2"]
    assert facts.fetched_at == NOW
    await stripe.link(LIVE, "cus_3", "bob", "checkout", NOW + 9)
    assert (await Customers(database).read_facts(LIVE, "bob", NOW + 9)).fetched_at is None
    assert await stripe.links_of(LIVE, "bob") == ("cus_1", "cus_2", "cus_3")


async def test_a_deleted_stripe_customer_no_longer_dates_the_facts_or_counts_as_a_link(database: Database) -> None:
    stripe = StripeCustomers(database)
    for number, at, deleted in ((1, NOW, True), (2, NOW + 500, False)):
        ticket = await stripe.take_ticket(LIVE, f"cus_{number}", at)
        await stripe.write_sync(LIVE, ticket, SyncResult((), deleted=deleted, links=BOUGHT.links), at)
    assert (await Customers(database).read_facts(LIVE, "bob", NOW + 900)).fetched_at == NOW + 500
    assert await stripe.links_of(LIVE, "bob") == ("cus_2",)


async def test_what_was_rehearsed_in_test_mode_opens_nothing_live(database: Database) -> None:
    stripe = StripeCustomers(database)
    ticket = await stripe.take_ticket(TEST, "cus_1", NOW)
    await stripe.write_sync(TEST, ticket, BOUGHT, NOW)
    other = Pair("acct_2", True)
    for pair in (LIVE, other):
        assert (await Customers(database).read_facts(pair, "bob", NOW)).subscriptions == ()
        assert await stripe.links_of(pair, "bob") == ()
        assert await stripe.all_ids(pair, "", 10) == []
        assert await stripe.due_edges(pair, NOW * 2, 10) == []
    assert (await Customers(database).read_facts(TEST, "bob", NOW)).subscriptions == (subscription(),)


async def test_edges_are_due_once_they_passed_and_until_a_fetch_answered_them(database: Database) -> None:
    stripe = StripeCustomers(database)
    for name, edge in (("cus_1", NOW + 20), ("cus_2", NOW + 10), ("cus_3", None)):
        ticket = await stripe.take_ticket(LIVE, name, NOW)
        await stripe.write_sync(LIVE, ticket, SyncResult((), next_edge_at=edge), NOW)
    assert await stripe.due_edges(LIVE, NOW + 9, 10) == []
    assert await stripe.due_edges(LIVE, NOW + 20, 10) == [DueEdge("cus_2", NOW + 10), DueEdge("cus_1", NOW + 20)]
    ticket = await stripe.take_ticket(LIVE, "cus_2", NOW + 20)
    await stripe.write_sync(LIVE, ticket, SyncResult(()), NOW + 20)
    assert await stripe.due_edges(LIVE, NOW + 20, 10) == [DueEdge("cus_1", NOW + 20)]


async def test_every_stripe_customer_is_listed_in_pages(database: Database) -> None:
    stripe = StripeCustomers(database)
    for number in range(5):
        await stripe.take_ticket(LIVE, f"cus_{number}", NOW)
    listed: list[str] = []
    while page := await stripe.all_ids(LIVE, listed[-1] if listed else "", 2):
        listed += page
    assert listed == [f"cus_{number}" for number in range(5)]


@pytest.mark.parametrize("at_fault", ["sub\udc80", 2**70])
async def test_facts_that_cannot_be_stored_leave_nothing_half_written(database: Database, at_fault: object) -> None:
    stripe, inbox = StripeCustomers(database), Inbox(database)
    await inbox.store(event("evt_1"), NOW)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    edge = at_fault if isinstance(at_fault, int) else None
    links = (LinkClaim(at_fault, "metadata"),) if isinstance(at_fault, str) else ()
    with pytest.raises(Exception, match=r"(?i)surrogate|encode|too large|out of range|overflow"):
        await stripe.write_sync(LIVE, ticket, SyncResult((), links=links, next_edge_at=edge), NOW)
    assert await inbox.counts(LIVE) == {"pending": 1}
    assert (await Customers(database).read_facts(LIVE, "bob", NOW)).version == 0
