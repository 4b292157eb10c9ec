"""When the background work runs.

It decides intervals and what happens when a turn fails: it is logged, and the next turn comes. It must never end by
itself, and never run the leased part in two processes at once: the caller holds the lease around `run_leased`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from admin.ledger.engine import LedgerDownError
from admin.stripe.catalog import REFRESH_EVERY_SECONDS, NotRefreshed, PriceCatalog
from admin.stripe.reconcile import CATCH_UP_EVERY_SECONDS, EventsCatchUp, NightlyDiff, forget_old

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from admin.ledger.changes import Changes
    from admin.ledger.inbox import Inbox
    from admin.stripe.worker import EdgeWatch, InboxWorker

_log = logging.getLogger(__name__)

INBOX_EVERY_SECONDS: Final = 1.0
EDGES_EVERY_SECONDS: Final = 60.0
NIGHT_CHECK_SECONDS: Final = 600.0
FORGET_EVERY_SECONDS: Final = 3600.0
CATALOG_LOAD_SECONDS: Final = 60.0
AFTER_FAILURE_SECONDS: Final = 5.0


class BackgroundJobs:
    """Everything that runs beside requests, for one account in one mode."""

    def __init__(
        self,
        *,
        worker: InboxWorker,
        edges: EdgeWatch,
        catch_up: EventsCatchUp,
        night: NightlyDiff,
        catalog: PriceCatalog,
        inbox: Inbox,
        changes: Changes,
        wall: Callable[[], float],
        publishes: bool,
    ) -> None:
        self._worker = worker
        self._edges = edges
        self._catch_up = catch_up
        self._night = night
        self._catalog = catalog
        self._inbox = inbox
        self._changes = changes
        self._wall = wall
        self._publishes = publishes

    async def run_leased(self) -> None:
        """What one process does for all: hand this to a lease. Ends only by being cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, turn, every in (
                ("inbox", self._worker.run_once, INBOX_EVERY_SECONDS),
                ("edges", self._edges.run_once, EDGES_EVERY_SECONDS),
                ("events", self._catch_up.run_once, CATCH_UP_EVERY_SECONDS),
                ("night", self._night_turn, NIGHT_CHECK_SECONDS),
                ("retention", self._forget_turn, FORGET_EVERY_SECONDS),
            ):
                group.create_task(_forever(name, turn, every))

    async def run_catalog(self) -> None:
        """What every process does for itself: offers are in its memory. Ends only by being cancelled."""
        turns_per_refresh = int(REFRESH_EVERY_SECONDS / CATALOG_LOAD_SECONDS)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            if turns == 0 and isinstance(refreshed := await self._catalog.refresh(), NotRefreshed):
                _log.warning("prices could not be fetched: %s", refreshed.detail)
                await self._catalog.load()
                return  # asked again at the next turn, not in an hour
            if turns:
                await self._catalog.load()
            turns = (turns + 1) % turns_per_refresh

        await _forever("catalog", turn, CATALOG_LOAD_SECONDS)

    async def _night_turn(self) -> None:
        if await self._night.due_in() == 0:
            night = await self._night.run_once()
            _log.info("looked at %d Stripe customers, %d without an answer", night.looked, night.failed)

    async def _forget_turn(self) -> None:
        await forget_old(self._inbox, self._changes, self._wall(), publishes=self._publishes)


async def _forever(name: str, turn: Callable[[], Awaitable[object]], every: float) -> None:
    while True:
        wait = every
        try:
            await turn()
        except (LedgerDownError, SQLAlchemyError) as problem:
            _log.warning("job %s: the ledger failed: %s", name, type(problem).__name__)
            wait = max(AFTER_FAILURE_SECONDS, min(every, 60.0))
        except Exception:  # noqa: BLE001 -- logged whole; see below
            # A job that ends unnoticed would be worse than one that fails in the log every minute.
            _log.exception("job %s failed", name)
            wait = max(AFTER_FAILURE_SECONDS, every)
        await asyncio.sleep(wait)
