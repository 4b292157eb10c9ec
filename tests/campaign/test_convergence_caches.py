"""Convergence and safety as callers see them: through the memories of two processes and a Redis that is restarted."""

from __future__ import annotations

import pytest

from admin.rehearsal.worlds import LIVES_A_WORLD, ROUNDS
from tests.campaign.run import one_world
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("seed", range(200, 202))
def test_no_cache_lets_in_or_refuses_whom_stripes_truth_does_not(seed: int) -> None:
    with RedisServer() as server:
        tally = one_world(seed, redis=server)
    assert tally.steps >= LIVES_A_WORLD * ROUNDS
    assert min(tally.admitted, tally.restarts) > 0
