"""`/readyz`: whether to send requests here, and what works less well than it should.

Not ready means that this process should get no new traffic: it is stopping. Degraded means that it works with less than
usual; that is still ready, because a ledger that is gone is gone for every replica, and taking them all away would
refuse the customers that their caches know (docs/design.md, section 8).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.credentials import KeyHealth, KeyState


@dataclass(slots=True)
class Readiness:
    """What /readyz asks. `ledger_answers` tries the ledger; `redis` and `stripe` say how those are."""

    ledger_answers: Callable[[], Awaitable[bool]]
    feed_healthy: Callable[[], bool]
    redis: Callable[[], str]
    keys: Callable[[], tuple[KeyHealth, ...]]
    stripe: Callable[[], dict[str, Any]]
    configuration: Callable[[], dict[str, Any]]
    stopping: bool = field(default=False)
    workers: Callable[[], tuple[int, int]] | None = None
    """How many serve and how many should, where this process has any. Without one of them there is nobody to send requests to."""

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and each part's state."""
        keys = {health.issuer: health.state.value for health in self.keys()}
        parts: dict[str, Any] = {
            "ledger": "ok" if await self.ledger_answers() else "unreachable",
            "changes": "followed" if self.feed_healthy() else "not followed",
            "redis": self.redis(),
            "keys": keys,
            "stripe": self.stripe(),
            "configuration": self.configuration(),
        }
        serving, wanted = (1, 1) if self.workers is None else self.workers()
        if self.workers is not None:
            parts["workers"] = {"serving": serving, "wanted": wanted}
        degraded = [
            name
            for name, is_worse in (
                ("ledger", parts["ledger"] != "ok"),
                ("changes", parts["changes"] != "followed"),
                ("redis", parts["redis"] == "degraded"),
                ("keys", any(state != KeyState.OK.value for state in keys.values())),
                ("stripe", parts["stripe"].get("state") not in {"ok", "off"}),
                ("configuration", "refused" in parts["configuration"]),
                ("workers", serving < wanted),
            )
            if is_worse
        ]
        status = "stopping" if self.stopping else "degraded" if degraded else "ok"
        return not self.stopping and serving > 0, {"status": status, "degraded": degraded, **parts}
