"""When API keys were last used, written into the ledger now and then: never a write for a request.

It decides how often. What can't be written stays with whoever noted it, and is tried again; at the end of the process
once more. It must never fail anything: this is for people who wonder which keys are still in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

from admin.ledger.engine import LedgerDownError

WRITE_SECONDS: Final = 15.0
LAST_SECONDS: Final = 2.0
BATCH: Final = 500

_log = logging.getLogger(__name__)


class NotedUse(Protocol):
    """Whoever sees keys being used."""

    def take_used(self) -> dict[str, int]:
        """Keys used since this was last asked, and when."""

    def put_back(self, used: dict[str, int]) -> None:
        """They could not be written down."""


class UseRecords(Protocol):
    """Where it is written down."""

    async def touch(self, used: Mapping[str, int], seconds: int) -> None:
        """When keys were last used, where that is news by at least `seconds`."""


class KeyUse:
    """`seconds` is how coarsely use is known."""

    def __init__(self, noted: NotedUse, records: UseRecords, *, seconds: int, pause: float = WRITE_SECONDS) -> None:
        self._noted = noted
        self._records = records
        self._seconds = seconds
        self._pause = pause

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            await self.write()

    async def finish(self) -> None:
        """What is left, at the end of the process, which nothing of this may hold up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self.write()

    async def write(self) -> None:
        """What has been noted, in a few transactions that hold nobody up for long."""
        used = self._noted.take_used()
        while used:
            some = dict(islice(used.items(), BATCH))
            try:
                await self._records.touch(some, self._seconds)
            except LedgerDownError as error:
                _log.warning("when API keys were last used can't be written down: %s", error)
                return self._noted.put_back(used)
            except asyncio.CancelledError:
                self._noted.put_back(used)
                raise
            for key_id in some:
                del used[key_id]
        return None
