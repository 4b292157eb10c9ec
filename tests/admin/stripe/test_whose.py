"""Whose the object of a thin event is: asked once, by whichever way the key may, and given up with a sentence where by none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin.stripe.budget import PacedBudget, Priority
from admin.stripe.client import StripeGateway
from admin.stripe.webhook import Reception
from admin.stripe.whose import MOST_REMEMBERED, Named, ObjectOwners
from tests.admin.stripe.conftest import Delivery, Shop
from tests.admin.stripe.test_webhook_pipeline import signed
from tests.support.scripted_stripe import ScriptedStripe, scripted_stripe


@pytest.fixture
async def stripe() -> AsyncIterator[ScriptedStripe]:
    async with scripted_stripe() as found:
        found.objects["/v1/customers/cus_1"] = {"id": "cus_1", "metadata": {"gateway_customer": "alice"}}
        found.objects["/v1/invoices/in_1"] = {"id": "in_1", "object": "invoice", "customer": "cus_1"}
        found.lists["/v1/subscriptions"] = []
        found.lists["/v1/checkout/sessions"] = []
        yield found


@pytest.fixture
async def keyed(shop: Shop, stripe: ScriptedStripe) -> AsyncIterator[Shop]:
    """The shop with another Stripe behind it, which says what each test wants."""
    own, shop.gateway = (
        shop.gateway,
        StripeGateway("rk_test_x", stripe.base, budget=PacedBudget(1000, burst=1000), jitter=lambda: 0.0),
    )
    shop.rewire()
    yield shop
    await shop.aclose()
    await shop.gateway.aclose()
    shop.gateway = own


def notice(event_id: str, event_type: str = "v1.invoice.paid", about: str = "in_1", **fields: Any) -> Delivery:
    related = {"id": about, "type": "invoice", "url": f"/v1/x/{about}"}
    return signed(
        {
            "object": "v2.core.event",
            "id": event_id,
            "type": event_type,
            "created": "2026-11-01T00:00:00.000Z",
            "livemode": False,
            "related_object": related,
            **fields,
        }
    )


def twin(about: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "event",
        "id": "evt_snapshot",
        "type": "invoice.paid",
        "created": 1_790_000_000,
        "livemode": False,
        "data": {"object": about},
    }


async def test_an_object_that_the_key_may_not_read_is_known_by_the_snapshot_of_the_same_event(
    keyed: Shop, stripe: ScriptedStripe
) -> None:
    stripe.forbidden.add("/v1/invoices/in_1")
    stripe.objects["/v1/events/evt_snapshot"] = twin({"id": "in_1", "object": "invoice", "customer": "cus_1"})
    verdict = await keyed.receive(notice("evt_1", snapshot_event="evt_snapshot"))
    assert (verdict.reception, verdict.detail) == (Reception.PROCESSED, "synced")
    assert stripe.calls["/v1/subscriptions"] == 1
    assert await keyed.inbox.counts(keyed.pair) == {"done": 1}


@pytest.mark.parametrize("about", [None, {"id": "in_1", "object": "invoice"}])
async def test_where_nothing_tells_whose_it_is_the_event_is_given_up_at_once_and_names_the_permission(
    keyed: Shop, stripe: ScriptedStripe, about: dict[str, Any] | None
) -> None:
    stripe.forbidden.add("/v1/invoices/in_1")
    if about is not None:
        stripe.objects["/v1/events/evt_snapshot"] = twin(about)
    verdict = await keyed.receive(notice("evt_1", snapshot_event="evt_snapshot"))
    assert (verdict.status, verdict.reception) == (200, Reception.DEAD)
    row = await keyed.inbox.get(keyed.pair, "evt_1")
    assert row is not None
    assert (row.status, row.attempts) == ("dead", 1)
    assert row.error == (
        "the key may not read invoices, so whose this is can't be told: let it (Stripe calls that rak_invoice_read), "
        "then replay the event"
    )
    assert await keyed.inbox.lag(keyed.pair, time.time() + 60) == 0
    assert await keyed.worker.run_once() == 0

    stripe.forbidden.clear()  # the operator has done so
    assert await keyed.inbox.replay(keyed.pair, "evt_1", time.time())
    assert await keyed.worker.run_once() == 1
    assert await keyed.inbox.counts(keyed.pair) == {"done": 1}
    assert stripe.calls["/v1/subscriptions"] == 1


async def test_what_the_worker_finds_it_may_not_read_is_given_up_at_its_first_attempt(
    keyed: Shop, stripe: ScriptedStripe
) -> None:
    stripe.forbidden.add("/v1/invoices/in_1")
    keyed.rewire(inline_seconds=0.0)
    assert (await keyed.receive(notice("evt_1"))).reception == Reception.PENDING
    assert await keyed.worker.run_once() == 1
    assert await keyed.inbox.counts(keyed.pair) == {"dead": 1}
    assert stripe.calls["/v1/invoices/in_1"] == 1


async def test_a_stripe_that_is_away_gives_nothing_up(keyed: Shop, stripe: ScriptedStripe) -> None:
    """Neither where the object can't be asked for, nor where its twin can't."""
    await keyed.gateway.aclose()  # whose address is closed is away
    away = StripeGateway("rk_test_x", "http://127.0.0.1:9", budget=PacedBudget(1000, burst=1000), jitter=lambda: 0.0)
    keyed.gateway = away
    keyed.rewire()
    assert (await keyed.receive(notice("evt_1", snapshot_event="evt_snapshot"))).reception == Reception.PENDING
    assert await keyed.inbox.counts(keyed.pair) == {"pending": 1}


async def test_events_that_name_one_object_at_the_same_time_ask_for_it_once(
    keyed: Shop, stripe: ScriptedStripe
) -> None:
    types = ("created", "updated", "finalized", "payment_succeeded", "paid")
    crowd = [notice(f"evt_{name}", f"v1.invoice.{name}") for name in types]
    verdicts = await asyncio.gather(*(keyed.receive(one) for one in crowd))
    assert {verdict.detail for verdict in verdicts} == {"synced"}
    assert stripe.calls["/v1/invoices/in_1"] == 1
    assert stripe.calls["/v1/subscriptions"]  # how often is test_coalesced.py's to show
    assert (await keyed.receive(notice("evt_later", "v1.invoice.voided"))).detail == "synced"
    assert stripe.calls["/v1/invoices/in_1"] == 1, "Stripe moves no invoice to another customer"


async def test_what_is_asked_for_urgently_does_not_wait_behind_what_is_not(stripe: ScriptedStripe) -> None:
    gateway = StripeGateway("rk_test_x", stripe.base, jitter=lambda: 0.0)
    budget = PacedBudget(1000, burst=1000)
    held = asyncio.Event()

    class Held:
        async def acquire(self, priority: Priority) -> None:
            if priority is Priority.NIGHTLY:
                await held.wait()
            await budget.acquire(priority)

    gateway.use_budget(Held())
    owners = ObjectOwners(gateway, reads_disputes=lambda: True)
    patient = asyncio.create_task(owners.owner_of("invoice.paid", "in_1", None, Priority.NIGHTLY))
    await asyncio.sleep(0)
    assert await owners.owner_of("invoice.paid", "in_1", None, Priority.CANCELLATION) == Named("cus_1")
    held.set()
    assert await patient == Named("cus_1")
    assert stripe.calls["/v1/invoices/in_1"] == 2
    await gateway.aclose()


async def test_what_is_remembered_is_bounded_and_the_latest(
    stripe: ScriptedStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_REMEMBERED == 10_000
    monkeypatch.setattr("admin.stripe.whose.MOST_REMEMBERED", 1)
    stripe.objects["/v1/invoices/in_2"] = {"id": "in_2", "object": "invoice", "customer": "cus_2"}
    gateway = StripeGateway("rk_test_x", stripe.base, jitter=lambda: 0.0)
    owners = ObjectOwners(gateway, reads_disputes=lambda: True)
    for about, whose in (("in_1", "cus_1"), ("in_2", "cus_2"), ("in_2", "cus_2"), ("in_1", "cus_1")):
        assert await owners.owner_of("invoice.paid", about, None, Priority.WEBHOOK) == Named(whose)
    assert (stripe.calls["/v1/invoices/in_1"], stripe.calls["/v1/invoices/in_2"]) == (2, 1)
    await gateway.aclose()
