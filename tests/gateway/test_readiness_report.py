"""`/readyz`: ready while it serves, and honest about what works less well."""

from __future__ import annotations

from typing import Any

from gateway.credentials import KeyHealth, KeyState
from gateway.readiness import Readiness


def readiness(**changes: Any) -> Readiness:
    async def answers() -> bool:
        return True

    parts: dict[str, Any] = {
        "ledger_answers": answers, "feed_healthy": lambda: True, "redis": lambda: "ok",
        "keys": lambda: (KeyHealth("https://a.test/", KeyState.OK, 1),), "stripe": lambda: {"state": "ok"},
        "configuration": lambda: {"generation": 1},
    }  # fmt: skip
    return Readiness(**{**parts, **changes})


async def test_all_is_well() -> None:
    assert await readiness().report() == (
        True,
        {
            "status": "ok", "degraded": [], "ledger": "ok", "changes": "followed", "redis": "ok",
            "keys": {"https://a.test/": "ok"}, "stripe": {"state": "ok"},
            "configuration": {"generation": 1},
        },
    )  # fmt: skip


async def test_what_is_off_is_not_worse() -> None:
    is_ready, shown = await readiness(redis=lambda: "off", stripe=lambda: {"state": "off"}, keys=tuple).report()
    assert (is_ready, shown["status"], shown["degraded"]) == (True, "ok", [])


async def test_each_part_that_is_worse_is_named_and_none_of_them_makes_it_unready() -> None:
    async def down() -> bool:
        return False

    worse: dict[str, dict[str, Any]] = {
        "ledger": {"ledger_answers": down},
        "changes": {"feed_healthy": lambda: False},
        "redis": {"redis": lambda: "degraded"},
        "keys": {"keys": lambda: tuple(KeyHealth(state, state, 0) for state in KeyState)},
        "stripe": {"stripe": lambda: {"state": "unreachable"}},
    }
    for part, change in worse.items():
        is_ready, shown = await readiness(**change).report()
        assert (is_ready, shown["status"], shown["degraded"]) == (True, "degraded", [part])
    everything: dict[str, Any] = {}
    for change in worse.values():
        everything |= change
    is_ready, shown = await readiness(**everything).report()
    assert (is_ready, shown["degraded"]) == (True, list(worse))


async def test_a_process_that_stops_is_not_ready_whatever_else_is() -> None:
    one = readiness()
    one.stopping = True
    is_ready, shown = await one.report()
    assert (is_ready, shown["status"]) == (False, "stopping")
