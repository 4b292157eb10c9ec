"""Fixtures of the tests of credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.fetched_keys import Clock
from tests.support.jwks_server import JwksServer, jwks_server


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    async with jwks_server() as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()
