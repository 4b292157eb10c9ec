"""What every test may use."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine makes or runs an example is no property of the code: two busy cores must not fail a test.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("house")


def pytest_collection_finish() -> None:
    """What was loaded stays: to look for garbage among it, again and again, was a sixth of what the tests took."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(25_000, 20, 50)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
