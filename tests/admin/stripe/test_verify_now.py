"""One live look before a refusal: never twice, never long, and never `Verified` for half a look."""

from __future__ import annotations

import asyncio
from typing import Any

from admin.simulator.faults import ApiFault
from admin.stripe.budget import Priority
from admin.stripe.results import CheckoutUrl
from admin.stripe.verify import CouldNotVerify, Verified, VerifyNow
from tests.admin.stripe.conftest import BACK, SUCCESS, Shop


class Steady:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class CountingBudget:
    def __init__(self) -> None:
        self.calls = 0

    async def acquire(self, priority: Priority) -> None:
        self.calls += 1


def verifier(shop: Shop, **more: Any) -> tuple[VerifyNow, Steady, CountingBudget]:
    steady, budget = Steady(), CountingBudget()
    made = VerifyNow(
        shop.sync,
        shop.work,
        pair=shop.pair,
        stripe_customers=shop.stripe_customers,
        checkouts=shop.checkouts,
        now=shop.now,
        budget=budget,
        steady=steady,
        **more,
    )
    return made, steady, budget


async def test_a_payment_that_no_webhook_told_of_is_found(shop: Shop) -> None:
    url = await shop.desk.open_checkout("alice", "pro", success_url=SUCCESS, return_url=BACK)
    assert isinstance(url, CheckoutUrl)
    await shop.pay(url.url)
    assert await shop.tier("alice") == "free"
    assert await shop.verify.verify_now("alice") == Verified()
    assert await shop.tier("alice") == "pro"
    assert (await shop.customers.read_facts(shop.pair, "alice", shop.now())).doubtful_until is None


async def test_a_customer_whom_stripe_cannot_know_costs_no_call(shop: Shop) -> None:
    verify, _, budget = verifier(shop)
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert await verify.verify_now("nobody") == Verified()
    assert budget.calls == 0


async def test_a_result_counts_for_half_a_minute_good_or_bad(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    verify, steady, budget = verifier(shop)
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert isinstance(await verify.verify_now("alice"), CouldNotVerify)
    shop.simulator.world.faults.clear()
    steady.at += 29
    assert isinstance(await verify.verify_now("alice"), CouldNotVerify)
    steady.at += 2
    assert await verify.verify_now("alice") == Verified()
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    steady.at += 29
    assert await verify.verify_now("alice") == Verified()
    assert budget.calls == 2


async def test_many_requests_of_one_customer_look_once(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    verify, _, budget = verifier(shop)
    assert set(await asyncio.gather(*(verify.verify_now("alice") for _ in range(20)))) == {Verified()}
    assert budget.calls == 1


async def test_a_look_that_hangs_is_given_up_and_lets_nobody_wait(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    verify, _, _ = verifier(shop, look_seconds=0.2)
    shop.simulator.world.faults.api.append(ApiFault("hang", 1, seconds=30))
    async with asyncio.timeout(5):
        assert await verify.verify_now("alice") == CouldNotVerify("Stripe took too long")
    shop.simulator.world.faults.clear()


async def test_a_caller_that_leaves_does_not_end_the_look_of_others(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    verify, _, budget = verifier(shop)
    leaving = asyncio.create_task(verify.verify_now("alice"))
    staying = asyncio.create_task(verify.verify_now("alice"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == Verified()
    assert budget.calls == 1


async def test_half_a_look_is_no_look(shop: Shop) -> None:
    first, _ = await shop.subscribe("alice")
    second, _ = await shop.subscribe("alice")
    await shop.receive_all()
    verify, _, _ = verifier(shop)
    shop.simulator.world.faults.api.append(ApiFault("500", 1000, customer=second))
    assert isinstance(await verify.verify_now("alice"), CouldNotVerify)
    assert first != second
