"""Ten thousand at once: at a refusal, at a renewal. Who pays, or is about to, doesn't notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import pytest

from admin.ledger.budgets import CallBudgets
from admin.ledger.tables import customers, inbox, stripe_customers
from admin.stripe.budget import Priority
from admin.stripe.envelope import concerns_a_customer
from admin.stripe.results import CheckoutUrl
from admin.stripe.shared_budget import SharedBudget, calls_of, looks_of
from admin.stripe.verify import CouldNotVerify, Verified, VerifyNow
from admin.stripe.webhook import Reception
from policies.decision import Forward, Refuse, decide
from policies.entitlement import Entitlement, derive
from policies.facts import ItemFact, SubscriptionFact
from policies.requirement import Access, Requirement
from tests.admin.stripe.conftest import BACK, RULES, SUCCESS, Shop
from tests.admin.stripe.test_webhook_pipeline import thin

MANY = 10_000
PRO = Requirement(Access.TIER, 1, "pro")
DAY = 86_400


@pytest.fixture
async def paced(shop: Shop) -> AsyncIterator[Shop]:
    """The shop with the budgets of a real gateway, and its calls counted."""
    calls, looks = (SharedBudget(CallBudgets(shop.database), bucket(shop.pair)) for bucket in (calls_of, looks_of))
    shop.gateway.use_budget(calls)
    shop.rewire()
    shop.verify = VerifyNow(
        shop.sync,
        shop.work,
        pair=shop.pair,
        stripe_customers=shop.stripe_customers,
        checkouts=shop.checkouts,
        now=shop.now,
        budget=looks,
    )
    yield shop
    await shop.aclose()
    await calls.aclose()
    await looks.aclose()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110 -- nobody announces it
            await asyncio.sleep(0.01)


def counted(shop: Shop) -> Counter[str]:
    """Every call to Stripe from now on, by path."""
    calls: Counter[str] = Counter()
    real = shop.gateway._once

    async def once(method: str, path: str, *rest: Any) -> Any:
        calls[path] += 1
        return await real(method, path, *rest)

    shop.gateway._once = once  # type: ignore[method-assign, assignment]
    return calls


def ranked(shop: Shop) -> Counter[Priority]:
    """Every call to Stripe that is asked for from now on, by who waits for it."""
    ranks: Counter[Priority] = Counter()
    budget = shop.gateway._budget
    real = budget.acquire

    async def acquire(priority: Priority) -> None:
        ranks[priority] += 1
        await real(priority)

    budget.acquire = acquire  # type: ignore[method-assign]
    return ranks


async def lapsed(shop: Shop) -> list[str]:
    """Customers whose month ended three days ago, unheard: each of them deserves a look before a refusal."""
    end = int(shop.now()) - 3 * DAY
    item = ItemFact("price_pro_monthly", "prod", None, end - 30 * DAY, end, 1)
    names = [f"lapsed-{number}" for number in range(MANY)]
    pair = {"account": shop.pair.account, "livemode": shop.pair.livemode}
    async with shop.database.write() as connection:
        await connection.execute(
            customers.insert(), [{"customer": name, "version": 1, "created_at": end} for name in names]
        )
        rows = [
            {
                **pair,
                "id": f"cus_lapsed_{number}",
                "customer": name,
                "facts": json.dumps([asdict(SubscriptionFact(f"sub_{number}", "active", (item,), created=end))]),
                "fetched_at": end - DAY,
                "next_edge_at": end,
                "created_at": end,
            }
            for number, name in enumerate(names)
        ]
        await connection.execute(stripe_customers.insert(), rows)
    return names


async def entitlement(shop: Shop, customer: str) -> Entitlement:
    return derive(await shop.customers.read_facts(shop.pair, customer, shop.now()), shop.ladder, RULES)


async def test_ten_thousand_lapsed_customers_hammer_and_a_payer_does_not_notice(paced: Shop) -> None:
    names = await lapsed(paced)
    await paced.subscribe("payer")
    await paced.receive_all()
    sample = decide(PRO, await entitlement(paced, names[0]), paced.ladder, paced.now())
    assert isinstance(sample, Refuse)
    assert sample.checkable
    calls = counted(paced)

    started = time.monotonic()
    hammering = [asyncio.create_task(paced.verify.verify_now(name)) for name in names]
    assert isinstance(decide(PRO, await entitlement(paced, "payer"), paced.ladder, paced.now()), Forward)
    bought = await paced.desk.open_checkout("newcomer", "pro", success_url=SUCCESS, return_url=BACK)
    assert isinstance(bought, CheckoutUrl)
    outcomes = Counter(type(outcome) for outcome in await asyncio.gather(*hammering))
    elapsed = time.monotonic() - started

    looks, all_calls = looks_of(paced.pair), calls_of(paced.pair)
    looked = sum(count for path, count in calls.items() if path.startswith("/v1/customers/"))
    assert 0 < looked <= looks.capacity + looks.per_second * elapsed
    assert calls.total() <= all_calls.capacity + all_calls.per_second * elapsed
    assert outcomes[CouldNotVerify] > MANY - 100
    assert outcomes[Verified] > 0


async def test_who_got_no_turn_is_looked_at_when_the_others_have_gone(paced: Shop) -> None:
    """Among those who hammer is one who did pay, unheard."""
    names = await lapsed(paced)
    stripe_customer, _ = await paced.subscribe("honest")
    await paced.receive_all()
    hammering = [asyncio.create_task(paced.verify.verify_now(name)) for name in names]
    await asyncio.sleep(0)
    assert isinstance(await paced.verify.verify_now("honest"), CouldNotVerify)
    await asyncio.gather(*hammering)
    assert await paced.verify.verify_now("honest") == Verified()
    assert stripe_customer in await paced.stripe_customers.links_of(paced.pair, "honest")


async def test_one_customer_at_checkout_does_not_wait_for_ten_thousand_renewals(paced: Shop) -> None:
    now = int(time.time())
    async with paced.database.write() as connection:
        await connection.execute(
            inbox.insert(),
            [
                {
                    "account": paced.pair.account,
                    "livemode": paced.pair.livemode,
                    "event_id": f"evt_{number}",
                    "type": "invoice.paid",
                    "stripe_customer": f"cus_renewing_{number}",
                    "wire": "snapshot",
                    "created": now,
                    "received_at": now,
                    "status": "pending",
                    "next_attempt_at": now,
                }
                for number in range(MANY)
            ],
        )
    working = asyncio.create_task(paced.worker.run_once())
    await until(lambda: paced.gateway.waiting >= 5)
    ranks = ranked(paced)
    bought = await paced.desk.open_checkout("newcomer", "pro", success_url=SUCCESS, return_url=BACK)
    assert isinstance(bought, CheckoutUrl)
    assert (await paced.inbox.counts(paced.pair))["pending"] > MANY - 200
    # Before whom one of that rank goes, to the call, is test_shared_budget.py's to show.
    assert set(ranks) <= {Priority.CUSTOMER, Priority.WEBHOOK}
    assert ranks[Priority.CUSTOMER] >= 2
    working.cancel()
    await asyncio.wait({working})


async def test_a_webhook_that_would_wait_in_vain_is_left_to_the_worker_at_once(paced: Shop) -> None:
    await paced.subscribe("alice")
    deliveries = await paced.mail()
    crowd = [asyncio.create_task(paced.gateway.get("/v1/prices/price_ent", priority=2)) for _ in range(100)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    calls = counted(paced)
    verdict = await paced.receive(deliveries[0])
    assert (verdict.status, verdict.detail) == (200, "many others wait for Stripe")
    assert not [path for path in calls if path.startswith("/v1/customers")]
    assert (await paced.inbox.counts(paced.pair))["pending"] == 1
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


@pytest.mark.parametrize("wire", ["snapshot", "thin"])
async def test_a_renewal_that_is_left_to_the_worker_is_looked_at_for_all_its_events_together(
    shop: Shop, wire: str
) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    shop.simulator.advance(31 * DAY + 7200)
    mail = [one for one in await shop.mail() if concerns_a_customer(one.type)]
    assert len(mail) >= 5
    shop.rewire(inline_seconds=0.0)
    for delivery in mail:
        assert (await shop.receive(delivery if wire == "snapshot" else thin(delivery))).reception == Reception.PENDING
    await shop.aclose()
    shop.rewire()
    calls = counted(shop)
    assert await shop.worker.run_once() == (1 if wire == "snapshot" else len(mail))
    assert set(await shop.inbox.counts(shop.pair)) <= {"done", "ignored"}
    objects = {path for path in calls if path.startswith(("/v1/invoices/", "/v1/subscriptions/"))}
    assert {calls[path] for path in objects} <= {1}
    assert calls["/v1/subscriptions"] <= (1 if wire == "snapshot" else 2 * len(objects)) < len(mail)
    assert await shop.tier("alice") == "pro"
