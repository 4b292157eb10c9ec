"""Two gateways on one PostgreSQL and one Redis: events that reach both at once, and a Redis that fails under load (P6, P7)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from admin.control import Ledger
from tests.support.counted_stripe import CountedStripe
from tests.support.doors import Door
from tests.support.ledgers import fresh_postgres, opened
from tests.support.redis_server import RedisServer
from tests.support.stack import Gateway, Stack, eventually, running_gateway, running_stack
from tests.support.traffic import Traffic

if TYPE_CHECKING:
    from tests.support.recorder import Recorder

pytestmark = [pytest.mark.postgres, pytest.mark.redis]
SMALL_MEMORY = 8
"""Customers that the second gateway remembers: fewer than there are, so that it always asks Redis."""


@dataclass(slots=True)
class Pair:
    """Both gateways, their Stripe and ledger, and the Redis behind the address that they know."""

    first: Stack
    second: Gateway
    database: str
    redis: RedisServer
    address: Door
    behind: dict[str, RedisServer]
    stripe_of_second: CountedStripe

    @property
    def gateways(self) -> list[Gateway]:
        return [self.first.gateway, self.second]

    def until(self, path: str, customer: str, status: int) -> None:
        for gateway in self.gateways:
            gateway.until(path, customer, status)

    def unpublished(self) -> list[Any]:
        return asyncio.run(self._on_ledger(lambda ledger: ledger.changes.unpublished(100, 2.0**60)))

    def grant(self, customer: str) -> None:
        """By a process that knows the ledger alone."""
        asyncio.run(
            self._on_ledger(lambda on: on.customers.grant(customer, "pro", None, "a test", "another", time.time()))
        )

    def revoke(self, customer: str) -> None:
        """By a process that knows the ledger alone."""
        asyncio.run(self._on_ledger(lambda on: on.customers.revoke(customer, "another", "a test", time.time())))

    async def _on_ledger(self, work: Any) -> Any:
        database = await opened(self.database)
        try:
            return await work(Ledger.over(database))
        finally:
            await database.dispose()

    def redis_is(self, state: str, *gateways: Gateway) -> None:
        for gateway in gateways or self.gateways:
            eventually(lambda gateway=gateway: gateway.readiness()["redis"] == state, within=30)  # type: ignore[misc]

    def found_in_redis(self) -> float:
        """How often the second gateway took an answer from there."""
        lines = self.second.operator_get("/metrics").text.splitlines()
        head = 'gateway_entitlement_lookups_total{result="redis"} '
        return sum(float(line.removeprefix(head)) for line in lines if line.startswith(head))


@pytest.fixture(scope="module")
def pair(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    with ExitStack() as exits:
        redis = exits.enter_context(RedisServer("--repl-diskless-sync-delay", "0"))
        behind = {"now": redis}
        address = Door(lambda: socket.create_connection(("127.0.0.1", behind["now"].port), timeout=5))
        exits.callback(address.shut)
        database = exits.enter_context(fresh_postgres())
        shared = {
            "upstream": recorder.url,
            "database": database,
            "redis": f"redis://127.0.0.1:{address.port}/0",
        }
        first = exits.enter_context(running_stack(directory / "one", **shared))
        on_its_way = CountedStripe()
        joined = {
            "secret_key": "sk_test_simulator",
            "stripe": exits.enter_context(on_its_way.behind(first.stripe.base)),
        }
        more = f"cache: {{max_entries: {SMALL_MEMORY}}}\n"
        second = exits.enter_context(running_gateway(directory / "two", **shared, **joined, more=more))
        yield Pair(first, second, database, redis, address, behind, on_its_way)


def _told_of_nothing(pair: Pair, customer: str, *, then: str = "") -> list[dict[str, Any]]:
    """The events of a purchase, none of them delivered, oldest first; `then` it is cancelled, or cancelled and resumed."""
    stripe = pair.first.stripe
    stripe.control("webhooks", enabled=False)
    try:
        pair.first.subscribe(customer)
        [subscription] = stripe.subscriptions_of(customer)
        for _ in range(4):
            pair.first.renew(customer, enabled=False)
            pair.first.renew(customer, enabled=True)
        if then == "ended":
            stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
    finally:
        stripe.control("webhooks", enabled=True)
    return [one for one in stripe.events_of(customer) if one["type"].startswith("customer.subscription")]


def _deliver_at_once(pair: Pair, events: list[dict[str, Any]]) -> list[int]:
    """Each to one of the two, in turn."""
    with ThreadPoolExecutor(len(events)) as senders:
        sent = [senders.submit(pair.gateways[number % 2].deliver, event) for number, event in enumerate(events)]
        return [one.result(60).status_code for one in sent]


def _rows(pair: Pair, events: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What the inbox says became of each."""
    rows = pair.second.operator_get("/api/events?limit=500").json()
    return {event["id"]: [row["status"] for row in rows if row["id"] == event["id"]] for event in events}


def test_one_event_ten_times_at_once_at_two_processes_is_one_row_and_one_effect(pair: Pair) -> None:
    created = _told_of_nothing(pair, "ten-times")[0]
    assert _deliver_at_once(pair, [created] * 10) == [200] * 10
    eventually(lambda: _rows(pair, [created]) == {created["id"]: ["done"]}, told=lambda: str(_rows(pair, [created])))
    pair.until("/pro/x", "ten-times", 200)
    [subscription] = pair.second.operator_get("/api/customers/ten-times").json()["subscriptions"]
    assert subscription["status"] == "active"


@pytest.mark.parametrize(("then", "status"), [("", 200), ("ended", 402)])
def test_ten_events_of_one_customer_at_once_at_two_processes_end_in_stripes_truth(
    pair: Pair, then: str, status: int
) -> None:
    customer = f"ten-events-{then}"
    events = _told_of_nothing(pair, customer, then=then)[-10:]
    assert len({event["id"] for event in events}) >= 9
    assert set(_deliver_at_once(pair, events)) == {200}
    eventually(
        lambda: set(map(tuple, _rows(pair, events).values())) == {("done",)}, told=lambda: str(_rows(pair, events))
    )
    pair.until("/pro/x", customer, status)


def test_what_one_process_was_told_and_kept_waiting_with_does_not_put_back_what_another_has_seen_since(
    pair: Pair,
) -> None:
    """Nor does it settle what came since: between processes only the ledger orders two looks."""
    created, *_ = _told_of_nothing(pair, "lingering")
    [subscription] = pair.first.stripe.subscriptions_of("lingering")
    held = pair.stripe_of_second
    held.to_hold = 1
    with ThreadPoolExecutor(1) as beside:
        try:
            lingering = beside.submit(pair.second.deliver, created)
            eventually(lambda: held.held)  # with the answer that all is well
            pair.first.stripe.control("webhooks", enabled=False)
            pair.first.stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
            pair.first.stripe.control("webhooks", enabled=True)
            deleted = pair.first.stripe.events_of("lingering")[-1]
            assert deleted["type"] == "customer.subscription.deleted"
            answer = pair.first.gateway.deliver(deleted)
            assert (answer.status_code, answer.json()["outcome"]) == (200, "processed")
            pair.until("/pro/x", "lingering", 402)
        finally:
            held.let_all_go()
        assert lingering.result(30).status_code == 200
    both = [created, deleted]
    eventually(lambda: set(map(tuple, _rows(pair, both).values())) == {("done",)})
    for gateway in pair.gateways:
        assert gateway.status("/pro/x", "lingering") == 402
    [shown] = pair.second.operator_get("/api/customers/lingering").json()["subscriptions"]
    assert shown["status"] == "canceled"


def test_two_gateways_on_one_ledger_share_what_either_was_told(pair: Pair) -> None:
    first, second = pair.first, pair.second
    assert second.status("/pro/x", "pair") == 402
    first.subscribe("pair")
    second.until("/pro/x", "pair", 200)
    # Cancelled; one of them is told, each of the two events by another.
    first.stripe.control("webhooks", enabled=False)
    [subscription] = first.stripe.subscriptions_of("pair")
    first.stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
    events = [event for event in first.stripe.events_of("pair") if event["type"].startswith("customer.subscription")]
    first.stripe.control("webhooks", enabled=True)
    for event in reversed(events):
        assert second.deliver(event).status_code == first.gateway.deliver(event).status_code == 200
    pair.until("/pro/x", "pair", 402)
    # The link of either leads to the same session.
    urls = {
        gateway.ask("/_gateway/checkout", "pair", "POST", json={"tier": "pro"}).json()["url"]
        for gateway in pair.gateways
    }
    assert len(urls) == 1


def _replica_of(server: RedisServer, exits: ExitStack) -> tuple[RedisServer, Door]:
    """A replica that follows, and the door through which it does."""
    replication = Door(lambda: socket.create_connection(("127.0.0.1", server.port), timeout=5))
    exits.callback(replication.shut)
    replica = exits.enter_context(RedisServer("--replicaof", "127.0.0.1", str(replication.port)))
    with Redis(port=replica.port) as asked:
        eventually(lambda: asked.info("replication")["master_link_status"] == "up", within=30)
    return replica, replication


def test_whatever_becomes_of_redis_under_load_nobody_is_answered_wrongly(pair: Pair) -> None:
    """Paused, failed over to a replica that was behind, killed, and back empty; meanwhile people come and go."""
    stripe = pair.first.stripe
    known = {f"payer-{number}": 200 for number in range(SMALL_MEMORY)} | {"stranger-1": 402, "stranger-2": 402}
    for customer in [*known, "ends-paused", "ends-behind", "ends-killed", "quiet"]:
        if known.get(customer, 200) == 200:
            pair.first.gateway.grant_only(customer)
            pair.until("/pro/x", customer, 200)
    pair.first.subscribe("cancels-killed")
    pair.until("/pro/x", "cancels-killed", 200)

    def turned(customer: str, status: int) -> None:
        pair.until("/pro/x", customer, status)
        traffic.expect("/pro/x", customer, status)

    def some_come_and_go(when: str) -> None:
        traffic.expect("/pro/x", f"ends-{when}")
        pair.revoke(f"ends-{when}")
        pair.grant(f"comes-{when}")
        assert {gateway.status("/pro/x", f"new-{when}") for gateway in pair.gateways} == {402}
        turned(f"ends-{when}", 402)
        turned(f"comes-{when}", 200)
        traffic.go_round()

    with ExitStack() as exits:
        with Traffic(pair.gateways) as traffic:
            traffic.expect("/free/x", "stranger-1", 200)
            for customer, status in {**known, "cancels-killed": 200}.items():
                traffic.expect("/pro/x", customer, status)
            traffic.go_round()
            assert pair.found_in_redis() > 0, "it is asked"

            pair.redis.pause()
            pair.redis_is("degraded")
            some_come_and_go("paused")
            pair.redis.resume()
            pair.redis_is("ok")
            traffic.go_round()

            replica, replication = _replica_of(pair.redis, exits)
            replication.shut()
            some_come_and_go("behind")
            pair.revoke("quiet")
            eventually(lambda: pair.unpublished() == [])
            with Redis(port=replica.port) as promoted:
                promoted.replicaof("NO", "ONE")
            pair.behind["now"] = replica
            pair.redis.kill()
            traffic.go_round(2)
            pair.redis_is("ok")
            traffic.go_round()
        with Redis(port=replica.port) as behind:
            [entry] = [behind.get(key) for key in behind.keys("*:ent:{quiet}")]
            assert b'"pro"' in entry, "it was behind"
        pair.second.running.stop()
        pair.second.start()
        pair.redis_is("ok")
        assert pair.second.status("/pro/x", "quiet") == 402
        with traffic.again() as traffic:
            before = pair.found_in_redis()
            traffic.go_round()
            assert pair.found_in_redis() > before, "a new process asks it"

            replica.kill()
            pair.redis_is("degraded")
            some_come_and_go("killed")
            traffic.expect("/pro/x", "cancels-killed")
            [subscription] = stripe.subscriptions_of("cancels-killed")
            stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
            turned("cancels-killed", 402)
            pair.behind["now"] = pair.redis
            pair.redis.start()  # empty
            pair.redis_is("ok")
            traffic.go_round(2)
