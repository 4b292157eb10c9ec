"""When keys were last used: written in pieces, kept when it can't be written, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from admin import key_use
from admin.key_use import BATCH, KeyUse
from admin.ledger.engine import LedgerDownError


class Noted:
    def __init__(self, count: int) -> None:
        self.used = {f"k{number}": number for number in range(count)}

    def take_used(self) -> dict[str, int]:
        used, self.used = self.used, {}
        return used

    def put_back(self, used: dict[str, int]) -> None:
        self.used = {**used, **self.used}


class Records:
    def __init__(self) -> None:
        self.written: list[dict[str, int]] = []
        self.down_from = 10**9
        self.hangs = False

    async def touch(self, used: Mapping[str, int], seconds: int) -> None:
        assert seconds == 300
        if self.hangs:
            await asyncio.Event().wait()
        if len(self.written) >= self.down_from:
            raise LedgerDownError("gone")
        self.written.append(dict(used))


async def test_nothing_noted_is_no_transaction() -> None:
    records = Records()
    await KeyUse(Noted(0), records, seconds=300).write()
    assert records.written == []


async def test_many_are_written_in_pieces() -> None:
    noted, records = Noted(2 * BATCH + 1), Records()
    everything = dict(noted.used)
    await KeyUse(noted, records, seconds=300).write()
    assert [len(one) for one in records.written] == [BATCH, BATCH, 1]
    assert {key: at for one in records.written for key, at in one.items()} == everything
    assert noted.used == {}


async def test_what_could_not_be_written_is_kept_and_only_that() -> None:
    noted, records = Noted(2 * BATCH), Records()
    records.down_from = 1
    await KeyUse(noted, records, seconds=300).write()
    assert len(noted.used) == BATCH
    assert not noted.used.keys() & records.written[0].keys()
    records.down_from = 10**9
    await KeyUse(noted, records, seconds=300).write()
    assert noted.used == {}


async def test_a_ledger_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_use, "LAST_SECONDS", 0.01)
    noted, records = Noted(3), Records()
    records.hangs = True
    await asyncio.wait_for(KeyUse(noted, records, seconds=300).finish(), 5)
    assert len(noted.used) == 3


async def test_it_goes_on_until_it_is_cancelled() -> None:
    noted, records = Noted(1), Records()
    running = asyncio.create_task(KeyUse(noted, records, seconds=300, pause=0.001).run())
    async with asyncio.timeout(5):
        while not records.written:  # noqa: ASYNC110 -- it tells nobody
            await asyncio.sleep(0.001)
        noted.used = {"again": 1}
        while len(records.written) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
