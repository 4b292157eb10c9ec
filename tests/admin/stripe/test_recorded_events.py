"""Everything that was ever recorded of Stripe, in any order and more than once: never an exception, never a 5xx."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.admin.stripe.conftest import Shop
from tests.admin.stripe.test_webhook_pipeline import signed

FIXTURES = Path(__file__).resolve().parents[3].parent / "shared" / "fixtures" / "stripe"


def recorded() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(FIXTURES.rglob("*.json"))]
    return [event for event in found if isinstance(event, dict) and event.get("object") == "event"]


@pytest.mark.fixtures
@pytest.mark.parametrize("seed", [1, 2])
async def test_recorded_events_in_any_order_are_all_taken_and_settled(shop: Shop, seed: int) -> None:
    if not FIXTURES.is_dir():
        pytest.skip(f"the recorded Stripe fixtures are not at {FIXTURES}")
    events = recorded()
    assert len(events) > 40
    shuffled = [{**event, "livemode": False, "account": None} for event in (*events, *events[::3])]
    random.Random(seed).shuffle(shuffled)
    for event in shuffled:
        verdict = await shop.receive(signed(event))
        assert verdict.status == 200, (event["type"], verdict)
    while await shop.worker.run_once():
        assert "dead" not in await shop.inbox.counts(shop.pair)
    assert set(await shop.inbox.counts(shop.pair)) == {"done", "ignored"}


@pytest.mark.fixtures
async def test_recorded_events_that_were_damaged_are_refused_or_taken_and_nothing_else(shop: Shop) -> None:
    if not FIXTURES.is_dir():
        pytest.skip(f"the recorded Stripe fixtures are not at {FIXTURES}")
    chance = random.Random(3)
    oddities: list[Any] = [None, [], {}, "", "\x00", 5, -1, 1e308, True, "x" * 5000, "\ud800"]
    for event in recorded():
        damaged = json.loads(json.dumps(event))
        target = chance.choice([damaged, damaged.get("data", damaged), damaged.get("data", {}).get("object", damaged)])
        if isinstance(target, dict) and target:
            target[chance.choice(sorted(target))] = chance.choice(oddities)
        assert (await shop.receive(signed(damaged))).status in {200, 400}, damaged
