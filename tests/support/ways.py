"""Which way requests go through the gateway: the short one, or the long one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.short_way import ShortWay, ShortWays

if TYPE_CHECKING:
    import pytest

    from gateway.short_way import Request


class Ways:
    """Which way each request went. `closed`: none may go the short one."""

    def __init__(self) -> None:
        self.closed = False
        self.taken: list[bool] = []
        self.went_on = 0
        self.goes_on = asyncio.Event()


def watched_ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    """Those of every gateway that is made from now on."""
    told = Ways()
    take, takes_long = ShortWays.take, ShortWay.takes_long

    def taking(self: ShortWays, request: Request) -> bool:
        told.taken.append(not told.closed and take(self, request))
        return told.taken[-1]

    def going_on(self: ShortWay) -> None:
        told.went_on += 1
        told.goes_on.set()
        takes_long(self)

    monkeypatch.setattr(ShortWays, "take", taking)
    monkeypatch.setattr(ShortWay, "takes_long", going_on)
    return told
