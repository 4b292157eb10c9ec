from __future__ import annotations

import asyncio

import pytest

from gateway.entitlements.tasks import end


async def test_a_task_that_loses_its_first_cancellations_is_ended_all_the_same() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await end([task])
    assert task.cancelled()
    assert lost == 3


async def test_a_task_that_had_ended_and_no_task_at_all_are_fine() -> None:
    async def done() -> int:
        return 1

    task = asyncio.create_task(done())
    await task
    await end([task])
    await end([])


async def test_a_task_that_broke_says_so() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    task = asyncio.create_task(broken())
    await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await end([task])
