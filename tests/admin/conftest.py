"""A whole gateway for the tests of what it serves of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.house import house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.house import House


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[House]:
    """With a simulated Stripe."""
    async with house(tmp_path) as one:
        yield one


@pytest.fixture
async def unpaid(tmp_path: Path) -> AsyncIterator[House]:
    """Without a Stripe key."""
    async with house(tmp_path, stripe=False) as one:
        yield one
