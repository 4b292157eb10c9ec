"""Following `changes`: what any process commits, this one hears of, in any order of commits and over any gap.

The feed only ever says "forget this customer". It must never miss a commit: a reader on PostgreSQL asks for everything
that had not ended when it last looked (the oldest running transaction's number then), not for ids beyond the last one
seen, because ids are handed out before commit. Where continuity can't be shown, it says so through `on_gap`, and
whoever remembers anything must forget everything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from admin.ledger.engine import LedgerDownError
from admin.ledger.feed_postgres import PostgresTail
from admin.ledger.feed_sqlite import SqliteTail

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.engine import Database

HEALTHY_SECONDS: Final = 1.0
GAP_SECONDS: Final = 1800.0
"""Retention keeps changes for at least an hour; away for longer than this, some might be gone."""

_LONGEST_BACKOFF_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Tail(Protocol):
    """One database's way to be told of new rows. `None` from `read` means that continuity is lost."""

    async def open(self) -> None:
        """Connect, keeping what is known of the place reached."""

    async def wait(self) -> None:
        """Until there is something to read, or it is time to look anyway."""

    async def read(self) -> list[tuple[str, int]] | None:
        """Customers and versions committed since the last look."""

    async def close(self) -> None:
        """Disconnect; harmless when not connected."""


class ChangesFeed:
    """Calls `on_change(customer, version)` for every change that is committed after `run` reached `started`.

    `on_change` must be quick and must not raise. `clock` is any steady clock in seconds.
    """

    def __init__(
        self,
        database: Database,
        on_change: Callable[[str, int], None],
        *,
        on_gap: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tail: Tail = SqliteTail(database) if database.is_sqlite else PostgresTail(database)
        self._on_change = on_change
        self._on_gap = on_gap
        self._clock = clock
        self.started = asyncio.Event()
        self.last_confirmed_at: float | None = None
        """By `clock`: everything committed before this moment has been reported."""

    @property
    def healthy(self) -> bool:
        """Whether what other processes commit is known here within a second."""
        return self.last_confirmed_at is not None and self._clock() - self.last_confirmed_at <= HEALTHY_SECONDS

    async def run(self) -> None:
        """Follow until cancelled, connecting again whenever the database comes back."""
        backoff = 0.05
        while True:
            try:
                await self._tail.open()
                while True:
                    await self._look()
                    backoff = 0.05
                    await self._tail.wait()
            except LedgerDownError as error:
                _log.warning("changes can't be followed: %s", error)
            finally:
                await self._tail.close()
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)

    async def _look(self) -> None:
        looked_at = self._clock()
        found = await self._tail.read()
        away = 0.0 if self.last_confirmed_at is None else looked_at - self.last_confirmed_at
        if (found is None or away > GAP_SECONDS) and self._on_gap is not None:
            self._on_gap()
        for customer, version in found or ():
            self._on_change(customer, version)
        self.last_confirmed_at = looked_at
        self.started.set()
