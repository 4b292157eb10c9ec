"""The resolver without Redis: memory and SQL, the changes feed, and what happens when both fall silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.resolver import Found, Resolver, Unavailable
from policies.facts import CustomerFacts
from tests.support.ledger_stub import Clock, ScriptedLedger, granted, nothing

LIFETIMES = Lifetimes(max_ttl=3600, max_stale=1800, negative_ttl=5)
START = 1_800_000_000.0


@dataclass(frozen=True)
class Verdict:
    """What these tests derive: the facts, and under which configuration."""

    facts: CustomerFacts
    configuration: str = "first"


def first_grant_end(verdict: Verdict, now: float) -> float | None:
    ends = [grant.until for grant in verdict.facts.grants if grant.until is not None and grant.until > now]
    return min(ends, default=None)


@dataclass
class Bench:
    """A resolver and everything around it that a test moves."""

    ledger: ScriptedLedger = field(default_factory=ScriptedLedger)
    now: Clock = field(default_factory=lambda: Clock(START))
    monotonic: Clock = field(default_factory=lambda: Clock(50.0))
    feed_is_healthy: bool = True
    counted: Counter[str] = field(default_factory=Counter)
    max_entries: int = 100
    sql_timeout: float = 5.0
    resolver: Resolver[Verdict] = field(init=False)

    def __post_init__(self) -> None:
        self.resolver = Resolver(
            read_facts=self.ledger.read,
            derive=Verdict,
            next_edge=first_grant_end,
            lifetimes=LIFETIMES,
            max_entries=self.max_entries,
            now=self.now,
            monotonic=self.monotonic,
            feed_healthy=lambda: self.feed_is_healthy,
            count=lambda result: self.counted.update([result]),
            sql_timeout=self.sql_timeout,
        )

    async def source(self, customer: str = "cus_1") -> str:
        outcome = await self.resolver.lookup(customer)
        return outcome.source if isinstance(outcome, Found) else "unavailable"

    async def version(self, customer: str = "cus_1") -> int:
        outcome = await self.resolver.lookup(customer)
        assert isinstance(outcome, Found)
        return outcome.entitlement.facts.version

    def pass_time(self, seconds: float) -> None:
        self.now.advance(seconds)
        self.monotonic.advance(seconds)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_customer_is_read_from_sql_once_and_served_from_memory_after(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    assert bench.resolver.peek("cus_1", bench.now()) is None
    assert await bench.source() == "sql"
    assert bench.resolver.peek("cus_1", bench.now()) == Verdict(granted("cus_1", 7))
    assert await bench.source() == "memory"
    assert bench.ledger.reads == ["cus_1"]
    assert bench.counted == {"sql": 1, "memory": 2}


async def test_two_hundred_lookups_at_once_are_one_read(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    bench.ledger.gate.clear()
    lookups = [asyncio.create_task(bench.resolver.lookup("cus_1")) for _ in range(200)]
    await settle()
    bench.ledger.gate.set()
    assert await asyncio.gather(*lookups) == [Found(Verdict(granted("cus_1", 7)), "sql")] * 200
    assert bench.ledger.reads == ["cus_1"]


async def test_a_caller_who_leaves_takes_the_answer_from_nobody(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    bench.ledger.gate.clear()
    leaver, stayer = (asyncio.create_task(bench.resolver.lookup("cus_1")) for _ in range(2))
    await settle()
    leaver.cancel()
    await settle()
    bench.ledger.gate.set()
    assert await stayer == Found(Verdict(granted("cus_1", 7)), "sql")
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert bench.ledger.reads == ["cus_1"]


async def test_when_every_caller_has_left_the_answer_is_still_remembered(bench: Bench) -> None:
    bench.ledger.gate.clear()
    bench.ledger.commit(granted("cus_1", 7))
    lookup = asyncio.create_task(bench.resolver.lookup("cus_1"))
    await settle()
    lookup.cancel()
    bench.ledger.gate.set()
    await settle()
    assert await bench.source() == "memory"


async def test_an_answer_is_looked_up_again_at_its_next_edge_and_not_before(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7, until=int(START) + 60))
    await bench.source()
    bench.pass_time(59)
    assert await bench.source() == "memory"
    bench.pass_time(1)
    assert bench.resolver.peek("cus_1", bench.now()) is None
    assert await bench.source() == "sql"
    assert await bench.source() == "memory", "there is no edge any more"


async def test_when_only_entitlement_time_jumps_passed_edges_are_looked_up_and_ages_are_not_counted(
    bench: Bench,
) -> None:
    bench.ledger.commit(granted("ends", 7, until=int(START) + 86_400))
    bench.ledger.commit(granted("stays", 7))
    await bench.source("ends")
    await bench.source("stays")
    bench.now.advance(30 * 86_400)
    assert await bench.source("ends") == "sql"
    assert await bench.source("stays") == "memory"


async def test_an_answer_is_looked_up_again_when_it_is_as_old_as_it_may_become(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.pass_time(LIFETIMES.max_ttl - 1)
    assert await bench.source() == "memory"
    bench.pass_time(1)
    assert await bench.source() == "sql"


async def test_that_a_customer_has_nothing_is_remembered_briefly(bench: Bench) -> None:
    assert await bench.source() == "sql"
    bench.pass_time(4)
    assert await bench.source() == "memory"
    bench.pass_time(1)
    bench.ledger.commit(granted("cus_1", 1))
    assert await bench.version() == 1


async def test_a_change_is_in_force_at_once_and_an_older_or_repeated_notice_changes_nothing(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.ledger.commit(nothing("cus_1", 8))
    bench.resolver.changed("cus_1", 8)
    assert await bench.version() == 8
    bench.resolver.changed("cus_1", 8)
    bench.resolver.changed("cus_1", 3)
    bench.resolver.changed("cus_2", 9)
    assert await bench.source() == "memory"


async def test_a_read_that_a_change_overtook_is_read_again_before_anyone_is_answered(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    bench.ledger.gate.clear()
    lookup = asyncio.create_task(bench.resolver.lookup("cus_1"))
    await settle()
    bench.ledger.commit(nothing("cus_1", 8))
    bench.resolver.changed("cus_1", 8)
    bench.ledger.gate.set()
    assert await lookup == Found(Verdict(nothing("cus_1", 8)), "sql")
    assert await bench.version() == 8


async def test_a_customer_who_changes_faster_than_can_be_read_is_answered_and_not_remembered(bench: Bench) -> None:
    versions = iter(range(100, 200))

    async def read(customer: str) -> CustomerFacts:
        bench.ledger.reads.append(customer)
        version = next(versions)
        bench.resolver.changed(customer, version + 1)
        return granted(customer, version)

    bench.resolver._read_facts = read
    assert await bench.source() == "sql"
    assert len(bench.ledger.reads) == 3
    assert bench.resolver.peek("cus_1", bench.now()) is None


async def test_a_ledger_restored_from_yesterday_is_believed_though_its_version_is_below_a_known_change(
    bench: Bench,
) -> None:
    bench.resolver.changed("cus_1", 900)
    bench.ledger.commit(granted("cus_1", 7))
    assert await bench.version() == 7
    assert await bench.source() == "memory"
    assert bench.ledger.reads == ["cus_1"]


async def test_sql_gone_leaves_known_customers_served_and_others_unavailable(bench: Bench) -> None:
    bench.ledger.commit(granted("known", 7))
    await bench.source("known")
    bench.ledger.is_gone = True
    assert await bench.source("known") == "memory"
    outcome = await bench.resolver.lookup("stranger")
    assert isinstance(outcome, Unavailable)
    assert "LedgerIsGone" in outcome.detail
    assert bench.counted["unavailable"] == 1


async def test_a_ledger_that_never_answers_is_as_gone_as_one_that_refuses() -> None:
    bench = Bench(sql_timeout=0.01)
    bench.ledger.gate.clear()
    assert await bench.source() == "unavailable"


async def test_a_ledger_that_is_back_is_asked_again(bench: Bench) -> None:
    bench.ledger.is_gone = True
    assert await bench.source() == "unavailable"
    bench.ledger.is_gone = False
    assert await bench.source() == "sql"


async def test_a_process_that_hears_of_no_changes_confirms_with_sql_at_most_once_a_second(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.feed_is_healthy = False
    assert await bench.source() == "memory"
    bench.pass_time(1.1)
    assert bench.resolver.peek("cus_1", bench.now()) is None
    assert [await bench.source() for _ in range(5)] == ["sql"] + ["memory"] * 4
    bench.ledger.commit(nothing("cus_1", 8))
    bench.pass_time(1.1)
    assert await bench.version() == 8


async def test_unconfirmed_answers_serve_for_max_stale_when_sql_is_gone_and_sql_is_tried_once_a_second(
    bench: Bench,
) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.feed_is_healthy, bench.ledger.is_gone = False, True
    bench.ledger.reads.clear()
    bench.pass_time(2)
    assert [await bench.source() for _ in range(10)] == ["stale"] * 10
    assert bench.ledger.reads == ["cus_1"]
    bench.pass_time(LIFETIMES.max_stale - 3)
    assert await bench.source() == "stale"
    bench.pass_time(2)
    assert await bench.source() == "unavailable"


async def test_max_stale_counts_from_the_last_moment_at_which_a_change_would_have_been_heard_of(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.pass_time(LIFETIMES.max_ttl - 10)
    assert await bench.source() == "memory", "its changes have been followed until now"
    bench.feed_is_healthy, bench.ledger.is_gone = False, True
    bench.pass_time(LIFETIMES.max_stale - 1)
    assert await bench.source() == "stale"
    bench.pass_time(2)
    assert await bench.source() == "unavailable"


async def test_that_a_customer_has_nothing_is_never_served_stale(bench: Bench) -> None:
    bench.ledger.commit(nothing("cus_1", 7))
    await bench.source()
    bench.ledger.is_gone = True
    assert await bench.source() == "memory"
    bench.pass_time(5)
    assert await bench.source() == "unavailable"


async def test_an_answer_past_its_edge_or_age_serves_when_every_source_fails(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7, until=int(START) + 60))
    await bench.source()
    bench.ledger.is_gone = True
    bench.pass_time(61)
    assert await bench.source() == "stale"
    bench.ledger.is_gone = False
    bench.pass_time(1.1)
    assert await bench.source() == "sql"


async def test_an_answer_known_to_be_outdated_never_serves_though_sql_is_gone(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.resolver.changed("cus_1", 8)
    bench.ledger.is_gone = True
    assert await bench.source() == "unavailable"


async def test_after_changes_may_have_been_missed_each_answer_is_confirmed_before_it_serves(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.resolver.unconfirm_all()
    assert bench.resolver.peek("cus_1", bench.now()) is None
    bench.pass_time(0.001)
    assert await bench.source() == "sql"
    assert await bench.source() == "memory"


async def test_a_read_that_began_before_changes_were_missed_does_not_confirm(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    bench.ledger.gate.clear()
    lookup = asyncio.create_task(bench.resolver.lookup("cus_1"))
    await settle()
    bench.pass_time(0.5)
    bench.resolver.unconfirm_all()
    bench.ledger.gate.set()
    await lookup
    assert bench.resolver.peek("cus_1", bench.now()) is None


async def test_a_reload_derives_anew_from_the_same_facts_and_asks_nobody(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.resolver.forget_all(lambda facts: Verdict(facts, "second"))
    assert bench.resolver.peek("cus_1", bench.now()) is None
    assert await bench.resolver.lookup("cus_1") == Found(Verdict(granted("cus_1", 7), "second"), "memory")
    assert bench.resolver.peek("cus_1", bench.now()) == Verdict(granted("cus_1", 7), "second")
    assert bench.ledger.reads == ["cus_1"]


async def test_a_reload_during_a_lookup_answers_and_remembers_under_the_new_rules(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7))
    bench.ledger.gate.clear()
    lookup = asyncio.create_task(bench.resolver.lookup("cus_1"))
    await settle()
    bench.resolver.forget_all(lambda facts: Verdict(facts, "second"))
    bench.ledger.gate.set()
    assert await lookup == Found(Verdict(granted("cus_1", 7), "second"), "sql")


async def test_a_reload_does_not_make_an_answer_past_its_edge_fresh(bench: Bench) -> None:
    bench.ledger.commit(granted("cus_1", 7, until=int(START) + 60))
    await bench.source()
    bench.pass_time(61)
    bench.resolver.forget_all()
    assert await bench.source() == "sql"


async def test_memory_is_bounded_by_max_entries() -> None:
    bench = Bench(max_entries=10)
    for number in range(200):
        await bench.source(f"cus_{number}")
    assert len(bench.resolver._memory) == 10


async def test_an_outage_of_sql_for_thousands_of_strangers_leaves_nothing_behind(bench: Bench) -> None:
    bench.ledger.is_gone = True
    for number in range(2000):
        assert await bench.source(f"cus_{number}") == "unavailable"
    assert len(bench.resolver._memory) == 0
    assert bench.resolver._flights == {}


async def test_without_redis_health_is_off_and_starting_and_closing_do_nothing(bench: Bench) -> None:
    bench.resolver.start()
    assert bench.resolver.health() == "off"
    await bench.resolver.aclose()


async def test_closing_waits_for_the_lookup_under_way(bench: Bench) -> None:
    bench.ledger.gate.clear()
    bench.ledger.commit(granted("cus_1", 7))
    lookup = asyncio.create_task(bench.resolver.lookup("cus_1"))
    await settle()
    closing = asyncio.create_task(bench.resolver.aclose())
    await settle()
    bench.ledger.gate.set()
    await closing
    assert await lookup == Found(Verdict(granted("cus_1", 7)), "sql")


async def test_a_rule_that_breaks_is_an_exception_and_leaves_no_lookup_behind(bench: Bench) -> None:
    def broken(_facts: CustomerFacts) -> Verdict:
        raise ZeroDivisionError

    bench.resolver.forget_all(broken)
    with pytest.raises(ZeroDivisionError):
        await bench.resolver.lookup("cus_1")
    bench.resolver.forget_all(Verdict)
    assert await bench.source() == "sql"


async def test_whoever_wants_to_know_is_told_of_every_change_and_when_it_may_be_anybodys(bench: Bench) -> None:
    told: list[tuple[str | None, bool]] = []

    def tell(customer: str | None) -> None:
        told.append((customer, bench.resolver.peek("cus_1", bench.now()) is None))

    bench.resolver.on_change(tell)
    bench.ledger.commit(granted("cus_1", 7))
    await bench.source()
    bench.resolver.changed("cus_2", 1)  # remembered or not
    bench.resolver.changed("cus_1", 8)
    assert told == [("cus_2", False), ("cus_1", True)]  # and what is out of date serves no more by then
    bench.ledger.commit(granted("cus_1", 9))
    await bench.source()
    bench.resolver.announced("cus_1", 10)
    bench.resolver.unconfirm_all()
    bench.resolver.forget_all()
    assert [customer for customer, _ in told[2:]] == ["cus_1", None, None]
    assert all(is_outdated for _, is_outdated in told[2:])
