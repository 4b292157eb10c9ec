from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from admin.ledger.changes import Change, Changes
from admin.ledger.checkouts import Checkouts
from admin.ledger.customers import Customers, Revoked
from admin.ledger.inbox import Inbox, InboxEvent
from admin.ledger.pair import Pair
from admin.ledger.stored_facts import DOUBT_SECONDS
from admin.ledger.stripe_customers import LinkClaim, StripeCustomers, SyncResult
from policies.facts import CustomerFacts, GrantFact

if TYPE_CHECKING:
    from admin.ledger.engine import Database

LIVE = Pair("acct_1", True)
NOW = 1_800_000_000


def event(event_id: str, stripe_customer: str = "cus_1") -> InboxEvent:
    return InboxEvent(LIVE, event_id, "customer.subscription.updated", "sub_1", stripe_customer, "thin", NOW, NOW)


async def fetch(stripe: StripeCustomers, stripe_customer: str) -> None:
    """A look at Stripe that found nothing: a link that was never fetched is in doubt by itself."""
    ticket = await stripe.take_ticket(LIVE, stripe_customer, NOW)
    await stripe.write_sync(LIVE, ticket, SyncResult(()), NOW)


async def test_an_unknown_customer_has_version_0_and_nothing(database: Database) -> None:
    assert await Customers(database).read_facts(LIVE, "nobody", NOW) == CustomerFacts("nobody", 0)
    assert await Customers(database).show(LIVE, "nobody", NOW) is None


async def test_a_grant_is_among_the_facts_until_it_is_revoked_and_on_record_afterwards(database: Database) -> None:
    customers = Customers(database)
    version = await customers.grant("bob", "pro", NOW + 60, "beta tester", "ann", NOW)
    facts = await customers.read_facts(LIVE, "bob", NOW)
    assert facts.grants == (GrantFact(facts.grants[0].id, "pro", NOW + 60, "beta tester", "ann"),)
    assert facts.version == version
    revoked = await customers.revoke("bob", "ann", "beta is over", NOW + 10)
    assert revoked == Revoked(1, (await customers.read_facts(LIVE, "bob", NOW)).version)
    assert (await customers.read_facts(LIVE, "bob", NOW + 10)).grants == ()
    record = await customers.show(LIVE, "bob", NOW + 10)
    assert record is not None
    assert [(grant.revoked_at, grant.revoked_by) for grant in record.grants] == [(NOW + 10, "ann")]
    assert record.grants[0].revoked_reason == "beta is over"


async def test_revoking_one_tier_leaves_the_others(database: Database) -> None:
    customers = Customers(database)
    for tier in ("pro", "enterprise"):
        await customers.grant("bob", tier, None, "", "ann", NOW)
    assert (await customers.revoke("bob", "ann", "", NOW, tier="pro")).count == 1
    assert [grant.tier for grant in (await customers.read_facts(LIVE, "bob", NOW)).grants] == ["enterprise"]


async def test_revoking_what_has_run_out_or_never_was_counts_nothing_and_changes_nothing(database: Database) -> None:
    customers = Customers(database)
    version = await customers.grant("bob", "pro", NOW + 60, "", "ann", NOW)
    assert await customers.revoke("bob", "ann", "", NOW + 60) == Revoked(0, None)
    assert await customers.revoke("nobody", "ann", "", NOW) == Revoked(0, None)
    assert (await customers.read_facts(LIVE, "bob", NOW)).version == version


async def test_a_block_is_among_the_facts_until_it_is_lifted(database: Database) -> None:
    customers = Customers(database)
    await customers.block("bob", "chargeback", "ann", NOW)
    assert (await customers.read_facts(LIVE, "bob", NOW)).blocked == "chargeback"
    record = await customers.show(LIVE, "bob", NOW)
    assert record is not None
    assert (record.blocked_by, record.blocked_at) == ("ann", NOW)
    await customers.unblock("bob", NOW)
    assert (await customers.read_facts(LIVE, "bob", NOW)).blocked is None


async def test_a_version_is_the_time_in_microseconds(database: Database) -> None:
    assert await Customers(database).grant("bob", "pro", None, "", "ann", NOW + 0.25) == NOW * 1_000_000 + 250_000


async def test_versions_grow_when_the_clock_stands_still_or_goes_back(database: Database) -> None:
    customers = Customers(database)
    versions = [await customers.grant("bob", "pro", None, "", "ann", at) for at in (NOW, NOW, NOW - 86_400, 0)]
    assert versions == sorted(set(versions))
    assert len(versions) == 4


async def test_versions_given_out_at_once_are_all_different(database: Database) -> None:
    customers = Customers(database)
    versions = await asyncio.gather(*(customers.grant("bob", "pro", None, "", "ann", NOW) for _ in range(12)))
    assert len(set(versions)) == 12
    assert (await customers.read_facts(LIVE, "bob", NOW)).version == max(versions)


async def test_every_change_waits_to_be_published_until_it_is_marked(database: Database) -> None:
    customers, changes = Customers(database), Changes(database)
    await customers.grant("bob", "pro", None, "", "ann", NOW)
    second = await customers.block("bob", "", "ann", NOW + 5)
    third = await customers.grant("eve", "pro", None, "", "ann", NOW + 6)
    assert await changes.unpublished(10, NOW + 6) == [Change("bob", second, NOW), Change("eve", third, NOW + 6)]
    assert await changes.unpublished(10, NOW - 1) == []
    assert await changes.unpublished(1, NOW + 6) == [Change("bob", second, NOW)]
    await changes.mark_published("bob", second, NOW + 7)
    assert await changes.unpublished(10, NOW + 6) == [Change("eve", third, NOW + 6)]


async def test_marking_an_older_version_published_leaves_the_newer_one_waiting(database: Database) -> None:
    customers, changes = Customers(database), Changes(database)
    first = await customers.grant("bob", "pro", None, "", "ann", NOW)
    second = await customers.revoke("bob", "ann", "", NOW + 1)
    await changes.mark_published("bob", first, NOW + 2)
    assert await changes.unpublished(10, NOW + 2) == [Change("bob", second.version or 0, NOW + 1)]


async def test_the_latest_that_caches_were_told_is_known_in_order(database: Database) -> None:
    customers, changes = Customers(database), Changes(database)
    old = await customers.grant("old", "pro", None, "", "ann", NOW - 3601)
    await changes.mark_published("old", old, NOW - 3601)
    first = await customers.grant("bob", "pro", None, "", "ann", NOW - 10)
    await changes.mark_published("bob", first, NOW - 9)
    eve = await customers.grant("eve", "pro", None, "", "ann", NOW - 8)
    await changes.mark_published("eve", eve, NOW - 7)
    second = await customers.block("bob", "", "ann", NOW - 5)
    await changes.mark_published("bob", second, NOW - 4)
    await customers.grant("waits", "pro", None, "", "ann", NOW - 3)
    assert await changes.published(10, NOW - 3600) == [("bob", first), ("eve", eve), ("bob", second)]
    assert await changes.published(2, NOW - 3600) == [("eve", eve), ("bob", second)]
    assert await changes.published(10, NOW) == []


async def test_old_changes_are_deleted_but_unpublished_ones_only_where_nobody_publishes(database: Database) -> None:
    customers, changes = Customers(database), Changes(database)
    await changes.mark_published("bob", await customers.grant("bob", "pro", None, "", "ann", NOW), NOW)
    await customers.grant("eve", "pro", None, "", "ann", NOW)
    assert await changes.prune(NOW) == 0
    assert await changes.prune(NOW + 1) == 1
    assert await changes.prune(NOW + 1, unpublished=True) == 1


async def test_a_pending_event_makes_facts_doubtful_once_its_inline_attempt_failed(database: Database) -> None:
    customers, inbox, stripe = Customers(database), Inbox(database), StripeCustomers(database)
    await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    await fetch(stripe, "cus_1")
    await inbox.store(event("evt_1"), NOW)
    before = await customers.read_facts(LIVE, "bob", NOW)
    assert before.doubtful_until is None
    version = await inbox.mark_doubted(LIVE, "evt_1", NOW)
    doubted = await customers.read_facts(LIVE, "bob", NOW)
    assert doubted.doubtful_until == NOW + DOUBT_SECONDS
    assert doubted.version == version
    assert doubted.version > before.version
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    await stripe.write_sync(LIVE, ticket, SyncResult(()), NOW)
    settled = await customers.read_facts(LIVE, "bob", NOW)
    assert settled.doubtful_until is None
    assert settled.version > doubted.version


async def test_a_pending_event_of_another_mode_or_customer_casts_no_doubt(database: Database) -> None:
    customers, inbox, stripe = Customers(database), Inbox(database), StripeCustomers(database)
    await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    await stripe.link(LIVE, "cus_2", "eve", "checkout", NOW)
    await fetch(stripe, "cus_1")
    await fetch(stripe, "cus_2")
    await inbox.store(event("evt_1", "cus_2"), NOW)
    await inbox.mark_doubted(LIVE, "evt_1", NOW)
    assert (await customers.read_facts(LIVE, "bob", NOW)).doubtful_until is None
    assert (await customers.read_facts(Pair("acct_1", False), "eve", NOW)).doubtful_until is None
    assert (await customers.read_facts(LIVE, "eve", NOW)).doubtful_until == NOW + DOUBT_SECONDS


async def test_the_longest_open_checkout_session_says_until_when_facts_are_doubtful(database: Database) -> None:
    customers, checkouts = Customers(database), Checkouts(database)
    for name, expires_at in (("cs_1", NOW + 100), ("cs_2", NOW + 300)):
        await checkouts.record_opened(
            LIVE, id=name, customer="bob", tier="pro", price="price_1", stripe_customer=None, url="https://stripe.example",
            expires_at=expires_at, attempt=1, now=NOW,
        )  # fmt: skip
    assert (await customers.read_facts(LIVE, "bob", NOW)).doubtful_until == NOW + 300
    assert (await customers.read_facts(LIVE, "bob", NOW + 300)).doubtful_until is None
    await checkouts.close(LIVE, "cs_2", "complete", NOW)
    assert (await customers.read_facts(LIVE, "bob", NOW)).doubtful_until == NOW + 100


async def test_search_finds_parts_of_names_and_stripe_ids_in_any_case(database: Database) -> None:
    customers, stripe = Customers(database), StripeCustomers(database)
    await stripe.link(LIVE, "cus_ABC", "bob@example.com", "checkout", NOW)
    await customers.grant("Eve", "pro", None, "", "ann", NOW)

    async def found(text: str) -> list[str]:
        return [summary.customer for summary in await customers.search(LIVE, text, 10, "", NOW)]

    assert await found("EXAMPLE") == ["bob@example.com"]
    assert await found("cus_abc") == ["bob@example.com"]
    assert await found("eve") == ["Eve"]
    assert sorted(await found("")) == ["Eve", "bob@example.com"]
    assert await found("%") == await found("b_b") == await found("\x00") == await found("\\") == []


async def test_search_comes_in_pages(database: Database) -> None:
    customers = Customers(database)
    for name in "cabd":
        await customers.grant(name, "pro", None, "", "ann", NOW)
    first = await customers.search(LIVE, "", 3, "", NOW)
    rest = await customers.search(LIVE, "", 3, first[-1].customer, NOW)
    assert [summary.customer for summary in first + rest] == ["a", "b", "c", "d"]


async def test_a_list_names_the_stripe_customers_and_the_conflicts(database: Database) -> None:
    customers, stripe = Customers(database), StripeCustomers(database)
    await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    await stripe.link(LIVE, "cus_1", "eve", "checkout", NOW)
    await customers.grant("eve", "pro", None, "", "ann", NOW)
    lines = {summary.customer: summary for summary in await customers.search(LIVE, "", 10, "", NOW)}
    assert (lines["bob"].stripe_customers, lines["bob"].conflicted) == (("cus_1",), True)
    assert (lines["eve"].stripe_customers, lines["eve"].conflicted) == ((), False)
    assert lines["bob"].facts == await customers.read_facts(LIVE, "bob", NOW)


async def test_a_record_shows_links_conflicts_and_events_newest_first(database: Database) -> None:
    customers, stripe, inbox = Customers(database), StripeCustomers(database), Inbox(database)
    await customers.grant("eve", "pro", None, "", "ann", NOW)
    await stripe.link(LIVE, "cus_1", "bob", "checkout", NOW)
    ticket = await stripe.take_ticket(LIVE, "cus_1", NOW)
    await stripe.write_sync(LIVE, ticket, SyncResult((), links=(LinkClaim("eve", "metadata"),)), NOW)
    for event_id in ("evt_1", "evt_2"):
        await inbox.store(event(event_id), NOW)
    await inbox.store(event("evt_3", "cus_9"), NOW)
    bob, eve = await customers.show(LIVE, "bob", NOW), await customers.show(LIVE, "eve", NOW)
    assert bob is not None
    assert eve is not None
    assert [(link.stripe_customer, link.linked_by, link.claimed_by) for link in bob.links] == [
        ("cus_1", "checkout", "eve")
    ]
    assert [entry.event_id for entry in bob.events] == ["evt_2", "evt_1"]
    assert (eve.links, [link.owner for link in eve.conflicts]) == ((), ["bob"])
    assert bob.facts == await customers.read_facts(LIVE, "bob", NOW)


async def test_a_name_may_be_long_foreign_or_hostile(database: Database) -> None:
    customers = Customers(database)
    for name in ("x" * 255, "Ωμέγα 🦑", "'; DROP TABLE customers; --", "a:b|c%d"):
        await customers.grant(name, "pro", None, "it's", "ann", NOW)
        assert (await customers.read_facts(LIVE, name, NOW)).grants[0].reason == "it's"


async def test_a_link_that_was_never_fetched_is_in_doubt_until_it_is(database: Database) -> None:
    customers, links = Customers(database), StripeCustomers(database)
    await links.link(LIVE, "cus_1", "bob", "import", NOW)
    assert (await customers.read_facts(LIVE, "bob", NOW)).doubtful_until == NOW + DOUBT_SECONDS
    await fetch(links, "cus_1")
    assert (await customers.read_facts(LIVE, "bob", NOW)).doubtful_until is None
