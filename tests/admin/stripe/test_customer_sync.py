"""Ticket, fetch, write: what runs side by side, what is shared, and what a half look may never do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from admin.ledger.engine import LedgerDownError
from admin.ledger.stripe_customers import StripeCustomers
from admin.simulator.faults import ApiFault
from admin.stripe.budget import Priority
from admin.stripe.client import StripeGateway
from admin.stripe.fetch import Failed, Fetched, fetch_customer
from admin.stripe.sync import CustomerSync, Superseded, Synced
from tests.admin.stripe.conftest import SUCCESS, Shop

DAY = 86_400


class Gate:
    """Lets a test hold the first call for a customer's object until it says go."""

    def __init__(self, gateway: StripeGateway) -> None:
        self._gateway = gateway
        self.go = asyncio.Event()
        self.arrived = asyncio.Event()
        self.looks = 0

    async def get(self, path: str, *args: Any, **more: Any) -> Any:
        if path.startswith("/v1/customers/"):
            self.looks += 1
            if self.looks == 1:
                self.arrived.set()
                await self.go.wait()
        return await self._gateway.get(path, *args, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)


def gated(shop: Shop) -> tuple[CustomerSync, Gate]:
    gate = Gate(shop.gateway)
    sync = CustomerSync(
        gate,  # type: ignore[arg-type]
        shop.stripe_customers,
        shop.pair,
        edge_after=lambda _subscriptions, _now: None,
        now=shop.now,
        published=shop._publish,
    )
    return sync, gate


async def test_those_who_come_during_a_run_share_the_next_one(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    sync, gate = gated(shop)
    first = asyncio.create_task(sync.sync_customer(stripe_customer, Priority.WEBHOOK))
    await gate.arrived.wait()
    later = [asyncio.create_task(sync.sync_customer(stripe_customer, Priority.WEBHOOK)) for _ in range(10)]
    await asyncio.sleep(0)
    gate.go.set()
    outcomes = await asyncio.gather(first, *later)
    assert all(isinstance(outcome, Synced) for outcome in outcomes)
    assert gate.looks == 2
    assert sync._running == sync._next == {}


async def test_someone_urgent_does_not_wait_for_the_night_and_outranks_it(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    sync, gate = gated(shop)
    night = asyncio.create_task(sync.sync_customer(stripe_customer, Priority.NIGHTLY))
    await gate.arrived.wait()
    assert isinstance(await sync.sync_customer(stripe_customer, Priority.CUSTOMER), Synced)
    gate.go.set()
    assert isinstance(await night, Superseded)
    assert await shop.tier("alice") == "pro"


async def test_a_caller_that_gives_up_does_not_take_the_run_along(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    sync, gate = gated(shop)
    caller = asyncio.create_task(sync.sync_customer(stripe_customer, Priority.WEBHOOK))
    await gate.arrived.wait()
    run = sync._running[stripe_customer]
    caller.cancel()
    await asyncio.wait({caller})
    gate.go.set()
    assert isinstance(await run.task, Synced)
    assert await shop.tier("alice") == "pro"


async def test_closing_ends_every_run_and_settles_nothing(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    sync, gate = gated(shop)
    callers = [asyncio.create_task(sync.sync_customer(stripe_customer, Priority.WEBHOOK)) for _ in range(3)]
    await gate.arrived.wait()
    await sync.aclose()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert sync._running == sync._next == {}
    assert await shop.tier("alice") == "free"


async def test_a_ledger_that_is_down_is_a_failed_look(shop: Shop) -> None:
    class Down(StripeCustomers):
        async def take_ticket(self, *_: Any) -> Any:
            raise LedgerDownError("gone")

    shop.sync._stripe_customers = Down(shop.database)
    outcome = await shop.sync.sync_customer("cus_1", Priority.WEBHOOK)
    assert isinstance(outcome, Failed)


@pytest.mark.parametrize("failing", ["customers", "subscriptions", "invoices"])
async def test_half_a_look_changes_nothing(shop: Shop, failing: str) -> None:
    stripe_customer, subscription = await shop.subscribe("alice")
    await shop.receive_all()
    before = await shop.customers.read_facts(shop.pair, "alice", shop.now())
    shop.simulator.world.store.customers[stripe_customer].card = "fails"
    shop.simulator.advance(31 * DAY)
    assert shop.simulator.world.store.subscriptions[subscription].status == "past_due"
    real = shop.gateway.get

    async def get(path: str, *args: Any, **more: Any) -> Any:
        if path.startswith(f"/v1/{failing}"):
            shop.simulator.world.faults.api.append(ApiFault("500", 3))
        return await real(path, *args, **more)

    shop.gateway.get = get  # type: ignore[method-assign]
    assert isinstance(await shop.sync.sync_customer(stripe_customer, Priority.WEBHOOK), Failed)
    after = await shop.customers.read_facts(shop.pair, "alice", shop.now())
    assert (after.version, after.subscriptions) == (before.version, before.subscriptions)


async def test_past_due_is_anchored_at_the_oldest_open_invoice_and_stays_there(shop: Shop) -> None:
    shop.simulator.world.billing.settings.after_final_failure = "past_due"
    stripe_customer, subscription = await shop.subscribe("alice")
    shop.simulator.world.store.customers[stripe_customer].card = "fails"
    shop.simulator.advance(31 * DAY)
    first = await fetch_customer(shop.gateway, stripe_customer, Priority.WEBHOOK)
    shop.simulator.advance(31 * DAY)
    second = await fetch_customer(shop.gateway, stripe_customer, Priority.WEBHOOK)
    assert isinstance(first, Fetched)
    assert isinstance(second, Fetched)
    (early,), (late,) = first.subscriptions, second.subscriptions
    assert (early.id, early.status, late.status) == (subscription, "past_due", "past_due")
    assert early.oldest_open_invoice_at is not None
    assert late.oldest_open_invoice_at == early.oldest_open_invoice_at
    assert late.items[0].period_start != early.items[0].period_start


async def test_canceled_subscriptions_are_among_the_facts(shop: Shop) -> None:
    stripe_customer, subscription = await shop.subscribe("alice")
    await shop.client.v1.subscriptions.cancel_async(subscription)
    fetched = await fetch_customer(shop.gateway, stripe_customer, Priority.WEBHOOK)
    assert isinstance(fetched, Fetched)
    assert [one.status for one in fetched.subscriptions] == ["canceled"]


async def test_every_page_of_subscriptions_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.stripe.client.PAGE_SIZE", 2)
    stripe_customer, _ = await shop.subscribe("alice")
    for _ in range(4):
        await shop.client.v1.subscriptions.create_async(
            {"customer": stripe_customer, "items": [{"price": "price_pro_monthly"}]}
        )
    fetched = await fetch_customer(shop.gateway, stripe_customer, Priority.WEBHOOK)
    assert isinstance(fetched, Fetched)
    assert len({one.id for one in fetched.subscriptions}) == 5


async def test_items_that_stripe_left_out_are_asked_for(shop: Shop) -> None:
    from admin.simulator import Offer

    shop.simulator.seed([Offer(f"price_extra_{number}", f"Extra {number}", 100) for number in range(13)])
    made = await shop.client.v1.customers.create_async({"metadata": {"gateway_customer": "alice"}})
    shop.simulator.world.store.customers[made.id].card = "works"
    params: Any = {
        "customer": made.id,
        "items": [*({"price": f"price_extra_{number}"} for number in range(13)), {"price": "price_ent"}],
    }
    await shop.client.v1.subscriptions.create_async(params)
    fetched = await fetch_customer(shop.gateway, made.id, Priority.WEBHOOK)
    assert isinstance(fetched, Fetched)
    assert len({item.price for item in fetched.subscriptions[0].items}) == 14
    await shop.receive_all()
    assert await shop.tier("alice") == "enterprise"


async def test_a_customer_that_stripe_does_not_know_has_nothing(shop: Shop) -> None:
    fetched = await fetch_customer(shop.gateway, "cus_nowhere", Priority.WEBHOOK)
    assert fetched == Fetched((), {}, deleted=True)


async def test_somebody_without_metadata_is_recognised_by_their_completed_session(shop: Shop) -> None:
    """The session's own event was lost; the subscription's is enough."""
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
            "success_url": SUCCESS,
            "client_reference_id": "alice",
        }
    )
    await shop.pay(str(session.url), email="alice@example.com")
    created = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    await shop.receive(created)
    assert await shop.tier("alice") == "pro"


async def test_a_stripe_customer_claimed_by_two_keeps_the_first(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    await shop.receive_all()
    await shop.client.v1.customers.update_async(stripe_customer, {"metadata": {"gateway_customer": "mallory"}})
    await shop.receive_all()
    assert (await shop.tier("alice"), await shop.tier("mallory")) == ("pro", "free")
    (conflict,) = await shop.stripe_customers.conflicts(shop.pair)
    assert (conflict.customer, conflict.claimed_by) == ("alice", "mallory")


async def test_a_sync_names_the_next_edge(shop: Shop) -> None:
    stripe_customer, subscription = await shop.subscribe("alice")
    await shop.receive_all()
    item = shop.simulator.world.store.subscriptions[subscription].items[0]
    assert await shop.stripe_customers.due_edges(shop.pair, item.period_end - 1, 10) == []
    (edge,) = await shop.stripe_customers.due_edges(shop.pair, item.period_end, 10)
    assert (edge.stripe_customer, edge.edge_at) == (stripe_customer, item.period_end)
