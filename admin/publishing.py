"""From the ledger into Redis: what was committed is published until Redis holds it, and only then marked.

It decides when a change counts as published. It must never fail the commit that caused it: whoever wrote has written,
and every gateway process knows from `changes` that Redis may be behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from admin.ledger.changes import Changes
from admin.ledger.customers import Customers
from admin.ledger.engine import LedgerDownError
from admin.ledger.pair import Pair
from gateway.entitlements.redis import EntitlementPublisher, Held

POLL_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 5.0
BATCH: Final = 200
_ANY_TIME: Final = 2.0**60

_log = logging.getLogger(__name__)


class CachePublisher:
    """Publishes customers' facts. `now` is the entitlement clock."""

    def __init__(
        self,
        publisher: EntitlementPublisher,
        customers: Customers,
        changes: Changes,
        pair: Pair,
        now: Callable[[], float],
    ) -> None:
        self._publisher = publisher
        self._customers = customers
        self._changes = changes
        self._pair = pair
        self._now = now

    async def publish(self, customer: str) -> bool:
        """Put what the ledger holds into Redis; whether Redis has it now."""
        facts = await self._customers.read_facts(self._pair, customer, self._now())
        held = await self._publisher.publish(facts)
        if not isinstance(held, Held):
            return False
        await self._changes.mark_published(customer, min(facts.version, held.version), self._now())
        return True

    async def published(self, versions: dict[str, int]) -> None:
        """The fast path after a commit of this process; what fails here is done by `run`."""
        try:
            await self._publish_all(versions)
        except LedgerDownError as error:
            # It is committed; whoever committed must not hear that it failed.
            _log.warning("a change is left to the publisher: %s", error)

    async def run(self) -> None:
        """Work off what is unpublished, until cancelled. One process does this at a time."""
        pause = POLL_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                waiting = await self._changes.unpublished(BATCH, _ANY_TIME)
                is_done = await self._publish_all(change.customer for change in waiting)
            except LedgerDownError as error:
                _log.warning("changes can't be published: %s", error)
                is_done = False
            # Redis is away: every process knows, and asking ten times a second would not bring it back.
            pause = POLL_SECONDS if is_done else min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _publish_all(self, customers: Iterable[str]) -> bool:
        """Whether Redis has all of them. The first that it doesn't take ends the try: each costs a timeout."""
        for customer in customers:
            if not await self.publish(customer):
                return False
        return True
