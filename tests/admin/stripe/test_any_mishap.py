"""P6 by brute force: lost, doubled, reordered, cut off, restarted, refused; in the end the ledger says what Stripe says."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from admin.simulator.faults import ApiFault, ApiKind
from admin.stripe.budget import Priority
from admin.stripe.fetch import Fetched, fetch_customer
from admin.stripe.reconcile import CaughtUp, EventsCatchUp
from policies.entitlement import derive
from policies.facts import CustomerFacts, SubscriptionFact
from tests.admin.stripe.conftest import RULES, Delivery, Shop

NAMES = ("alice", "bob", "carol")
MISHAPS: tuple[ApiKind, ...] = ("500", "429", "lost_answer")


async def something_happens(shop: Shop, chance: random.Random, held: dict[str, list[str]]) -> None:
    name = chance.choice(NAMES)
    mine = held.setdefault(name, [])
    what = chance.choice(["subscribe", "cancel", "plan", "unplan", "wait"])
    subscriptions = shop.client.v1.subscriptions
    if what == "wait":
        shop.simulator.advance(chance.choice([60, 3600, 86_400, 20 * 86_400]))
        return
    if what == "subscribe" or not mine:
        _, subscription = await shop.subscribe(name, chance.choice(["price_pro_monthly", "price_ent"]))
        mine.append(subscription)
        return
    subscription = chance.choice(mine)
    if shop.simulator.world.store.subscriptions[subscription].ended:
        mine.remove(subscription)
    elif what == "cancel":
        await subscriptions.cancel_async(subscription)
        mine.remove(subscription)
    else:
        await subscriptions.update_async(subscription, {"cancel_at_period_end": what == "plan"})


async def arrives_somehow(shop: Shop, chance: random.Random, delivery: Delivery) -> None:
    fate = chance.random()
    if fate < 0.3:
        return  # never comes
    if fate < 0.6:
        cut_off = asyncio.create_task(shop.receive(delivery))
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        cut_off.cancel()
        await asyncio.wait({cut_off})
        return
    verdicts = await asyncio.gather(*(shop.receive(delivery) for _ in range(chance.choice([1, 1, 3]))))
    assert {verdict.status for verdict in verdicts} == {200}


async def truth(shop: Shop, name: str) -> tuple[str | None, str]:
    """By Stripe alone, without the ledger's facts."""
    facts: list[SubscriptionFact] = []
    for customer in shop.simulator.world.store.customers.values():
        if customer.metadata.get("gateway_customer") == name:
            fetched = await fetch_customer(shop.gateway, customer.id, Priority.CUSTOMER)
            assert isinstance(fetched, Fetched)
            facts += fetched.subscriptions
    standing = derive(CustomerFacts(name, 1, tuple(facts)), shop.ladder, RULES).at(shop.now())
    return standing.tier, standing.status


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happened_on_the_way_the_ledger_ends_in_stripes_truth(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)
    held: dict[str, list[str]] = {}
    waiting: list[Delivery] = []
    for _ in range(12):
        await something_happens(shop, chance, held)
        waiting += await shop.mail()
        chance.shuffle(waiting)
        if chance.random() < 0.4:
            shop.simulator.world.faults.api.append(ApiFault(chance.choice(MISHAPS), chance.randrange(1, 6)))
        for delivery in waiting[:4]:
            await arrives_somehow(shop, chance, delivery)
        waiting = waiting[4:]
        shop.simulator.world.faults.clear()
        if chance.random() < 0.3:
            await shop.aclose()
            shop.rewire()
    catch_up = EventsCatchUp(shop.gateway, shop.inbox, shop.meta, shop.pair, now=shop.now, wall=time.time)
    assert isinstance(await catch_up.run_once(), CaughtUp)
    while await shop.worker.run_once():
        pass
    assert set(await shop.inbox.counts(shop.pair)) <= {"done", "ignored"}
    for name in NAMES:
        standing = await shop.standing(name)
        assert (standing.tier, standing.status) == await truth(shop, name), name
