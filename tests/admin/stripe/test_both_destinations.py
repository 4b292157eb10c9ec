"""Thin events and snapshots of the same changes, both sent here: one effect, in whichever order they come."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest

from admin.stripe.webhook import Reception
from tests.admin.stripe.conftest import Delivery, Shop
from tests.admin.stripe.test_webhook_pipeline import thin


def looks(shop: Shop) -> Counter[str]:
    """Every look at a customer's subscriptions from now on."""
    calls: Counter[str] = Counter()
    real = shop.gateway._once

    async def once(method: str, path: str, *rest: Any) -> Any:
        calls[path] += 1
        return await real(method, path, *rest)

    shop.gateway._once = once  # type: ignore[method-assign, assignment]
    return calls


async def of_a_purchase(shop: Shop) -> tuple[Delivery, Delivery]:
    await shop.subscribe("alice")
    snapshot = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    return snapshot, thin(snapshot, snapshot_event=snapshot.event["id"])


@pytest.mark.parametrize("first", [0, 1])
async def test_whichever_comes_first_the_second_fetches_nothing_and_changes_nothing(shop: Shop, first: int) -> None:
    """Scenario 40."""
    both = await of_a_purchase(shop)
    assert (await shop.receive(both[first])).reception == Reception.PROCESSED
    version, calls = shop.published["alice"], looks(shop)
    verdict = await shop.receive(both[1 - first])
    assert verdict.detail == f"as {both[first].event['id']}"
    assert not calls
    assert shop.published["alice"] == version
    assert await shop.tier("alice") == "pro"
    assert await shop.inbox.counts(shop.pair) == {"done": 2}


async def test_both_at_the_same_moment_end_in_one_state(shop: Shop) -> None:
    both = await of_a_purchase(shop)
    verdicts = await asyncio.gather(*(shop.receive(one) for one in (*both, *both)))
    assert {verdict.status for verdict in verdicts} == {200}
    while await shop.worker.run_once():
        pass
    assert await shop.inbox.counts(shop.pair) == {"done": 2}
    assert await shop.tier("alice") == "pro"


async def test_a_twin_that_waits_settles_nothing(shop: Shop) -> None:
    """The snapshot was stored and its process died: the thin one must not count as acted on because of it."""
    snapshot, notice = await of_a_purchase(shop)
    shop.rewire(inline_seconds=0.0)
    assert (await shop.receive(snapshot)).reception == Reception.PENDING
    await shop.aclose()
    shop.rewire()
    assert await shop.tier("alice") == "free"
    assert (await shop.receive(notice)).detail == "synced"
    assert await shop.tier("alice") == "pro"


async def test_a_replayed_event_is_looked_at_whatever_became_of_its_twin(shop: Shop) -> None:
    snapshot, notice = await of_a_purchase(shop)
    await shop.receive(notice)
    await shop.receive(snapshot)
    calls = looks(shop)
    assert await shop.inbox.replay(shop.pair, snapshot.event["id"], time.time())
    assert await shop.worker.run_once() == 1
    assert calls["/v1/subscriptions"] == 1


@pytest.mark.parametrize("seed", range(3))
async def test_a_life_told_twice_in_any_order_ends_in_stripes_truth(shop: Shop, seed: int) -> None:
    shop.simulator.webhooks.payload = "both"
    _, subscription = await shop.subscribe("alice")
    shop.simulator.advance(31 * 86_400)
    await shop.client.v1.subscriptions.update_async(subscription, {"cancel_at_period_end": True})
    shop.simulator.advance(40 * 86_400)
    mail = await shop.mail()
    assert {one.event["object"] for one in mail} == {"event", "v2.core.event"}
    random.Random(seed).shuffle(mail)
    for delivery in mail:
        assert (await shop.receive(delivery)).status == 200
    while await shop.worker.run_once():
        pass
    assert set(await shop.inbox.counts(shop.pair)) <= {"done", "ignored"}
    assert await shop.tier("alice") == "free"
    assert (await shop.standing("alice")).status == "expired"
