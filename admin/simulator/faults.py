"""What goes wrong on purpose: API answers that fail, hang, lie or get lost, and webhooks that do.

It decides which of the next calls or deliveries is hit. It must never do anything that was not asked for at `/_sim/faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from admin.simulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from admin.simulator.store import Store
    from admin.simulator.wire import Params

ApiKind = Literal["429", "500", "hang", "stale", "lost_answer"]
DeliveryKind = Literal[
    "duplicate", "reorder", "delay", "drop", "same_second", "wrong_mode", "old_version", "two_secrets"
]
API_KINDS: Final[tuple[ApiKind, ...]] = get_args(ApiKind)
DELIVERY_KINDS: Final[tuple[DeliveryKind, ...]] = get_args(DeliveryKind)
LONGEST_HANG_SECONDS: Final = 600.0


@dataclass(slots=True)
class ApiFault:
    """`left` calls, all or one customer's, go wrong; `seconds` is how long a `hang` lasts, if faults aren't cleared."""

    kind: ApiKind
    left: int
    seconds: float = 60.0
    customer: str | None = None

    def refuse(self) -> None:
        """Raise what the caller gets instead of an answer, where the fault is one of those."""
        if self.kind == "429":
            raise ApiError(429, "Too many requests, as asked for.", code="rate_limit")
        if self.kind == "500":
            raise ApiError(500, "Something went wrong on Stripe's end, as asked for.", kind="api_error")


@dataclass(slots=True)
class DeliveryFault:
    """What becomes of the next `left` events.

    They are sent twice, after their successor, `seconds` late or never; all with the `created` of the first of them, as
    of the other mode, in the shape of an older API version, or signed by another secret besides, as while one is rolled.
    """

    kind: DeliveryKind
    left: int
    seconds: float = 5.0
    second: int | None = None


class Faults:
    """The faults that wait for their call or event."""

    def __init__(self) -> None:
        self.api: list[ApiFault] = []
        self.delivery: list[DeliveryFault] = []
        self._cleared = asyncio.Event()

    def clear(self) -> None:
        """Everything works again, and what hangs goes on."""
        self.api.clear()
        self.delivery.clear()
        self._cleared.set()
        self._cleared = asyncio.Event()

    async def hang(self, seconds: float) -> None:
        """For so long, or until faults are cleared."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._cleared.wait()

    def take_api(self, params: Params, path: Mapping[str, str], store: Store) -> ApiFault | None:
        """The fault that hits this call, which uses it up once."""
        for fault in self.api:
            if fault.customer is None or fault.customer in _customers_named(params, path, store):
                fault.left -= 1
                if fault.left <= 0:
                    self.api.remove(fault)
                return fault
        return None

    def take_delivery(self) -> DeliveryFault | None:
        """The fault that hits this event."""
        if not self.delivery:
            return None
        fault = self.delivery[0]
        fault.left -= 1
        if fault.left <= 0:
            self.delivery.pop(0)
        return fault


def _customers_named(params: Params, path: Mapping[str, str], store: Store) -> set[str]:
    """Whom a call is about: named in its parameters or path, or the owner of what is named there."""
    named = {value for value in (*params.tree.values(), *path.values()) if isinstance(value, str)}
    owners = {getattr(store.find(one), "customer", None) for one in named}
    return named | {owner for owner in owners if isinstance(owner, str)}
