"""Whoever waits at checkout goes before the nightly look, and nobody who left is served."""

from __future__ import annotations

import asyncio

from admin.stripe.budget import PacedBudget, Priority


async def test_the_more_urgent_go_first_and_equals_in_order() -> None:
    budget = PacedBudget(200, burst=1)
    await budget.acquire(Priority.NIGHTLY)
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        await budget.acquire(priority)
        order.append(name)

    wishes = [
        ("night 1", Priority.NIGHTLY),
        ("edge", Priority.EDGE),
        ("webhook 1", Priority.WEBHOOK),
        ("cancellation", Priority.CANCELLATION),
        ("night 2", Priority.NIGHTLY),
        ("webhook 2", Priority.WEBHOOK),
        ("customer", Priority.CUSTOMER),
    ]
    await asyncio.gather(*(take(*wish) for wish in wishes))
    assert order == ["customer", "cancellation", "webhook 1", "webhook 2", "edge", "night 1", "night 2"]
    assert budget.waiting == 0


async def test_nobody_overtakes_those_who_wait_already() -> None:
    budget = PacedBudget(200, burst=1)
    await budget.acquire(Priority.CUSTOMER)
    order: list[int] = []

    async def take(number: int) -> None:
        await budget.acquire(Priority.WEBHOOK)
        order.append(number)

    await asyncio.gather(*(take(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_a_burst_passes_at_once_and_the_rest_waits() -> None:
    budget = PacedBudget(0.001, burst=3)
    for _ in range(3):
        await budget.acquire(Priority.NIGHTLY)
    waiting = asyncio.create_task(budget.acquire(Priority.CUSTOMER))
    await asyncio.sleep(0)
    assert budget.waiting == 1
    waiting.cancel()
    await asyncio.wait({waiting})
    assert budget.waiting == 0


async def test_who_gave_up_costs_nothing() -> None:
    budget = PacedBudget(100, burst=1)
    await budget.acquire(Priority.CUSTOMER)
    leaving = [asyncio.create_task(budget.acquire(Priority.CUSTOMER)) for _ in range(500)]
    staying = asyncio.create_task(budget.acquire(Priority.NIGHTLY))
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    # At 100 a second, 500 that had to be served first would take five seconds.
    async with asyncio.timeout(2):
        await staying
    assert budget.waiting == 0
