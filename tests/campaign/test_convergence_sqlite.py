"""Convergence and safety on SQLite: 200 of the suite's 300 random lives; `make campaign` runs 20,000 (docs/campaign.md)."""

from __future__ import annotations

import pytest

from admin.rehearsal.worlds import LIVES_A_WORLD, ROUNDS
from tests.campaign.run import one_world

SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_on_the_way_access_is_what_was_paid_for(seed: int) -> None:
    tally = one_world(seed)
    assert tally.lives == LIVES_A_WORLD
    assert tally.steps >= LIVES_A_WORLD * ROUNDS
    # A world in which nothing was let in, lost or cut off would have shown nothing.
    assert tally.admitted > tally.checks / 10
    assert min(tally.probes, tally.reconciles, tally.delivered, tally.dropped, tally.cut_off) > 0
