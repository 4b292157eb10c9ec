from __future__ import annotations

import pytest

from gateway.entitlements.lifetimes import Lifetimes
from tests.support.ledger_stub import granted, nothing

LIFETIMES = Lifetimes(max_ttl=3600, max_stale=3600, negative_ttl=5)


@pytest.mark.parametrize(
    ("edge", "seconds"),
    [(None, 3600), (1_000_100.0, 100), (9_000_000.0, 3600), (1_000_000.0, 0.001), (999_000.0, 0.001)],
)
def test_facts_live_until_the_edge_or_the_longest_time_whichever_is_first(edge: float | None, seconds: float) -> None:
    assert LIFETIMES.until_edge(granted("cus_1", 1), edge, 1_000_000.0) == seconds


def test_a_customer_with_nothing_is_remembered_briefly() -> None:
    assert LIFETIMES.until_edge(nothing("cus_1", 1), None, 0) == 5
    assert Lifetimes(max_ttl=2, max_stale=1, negative_ttl=5).age_limit(nothing("cus_1", 1)) == 2
