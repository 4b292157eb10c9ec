"""Who runs a background job: one process each, and another within 30 s of its death.

A lease is a row that its holder keeps renewing. Time is the database's, so that processes with different clocks agree.
The holder counts too, on its own steady clock, from before it asked: it stops its job before anybody else could start
it, also where the database can no longer be asked. A clock that jumps can still make two holders for a moment; jobs
bear it, because what they write is guarded by tickets.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete

from admin.ledger.engine import LedgerDownError
from admin.ledger.sql import database_clock, insert_into
from admin.ledger.tables import leases

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from admin.ledger.engine import Database

TTL_SECONDS: Final = 25.0

_LEAST_PATIENCE_SECONDS: Final = 3.0
"""Less, and a busy database would never get a connection made before it is given up."""

_log = logging.getLogger(__name__)


class Lease:
    """One job's lease. `holder` must be different for every start of every process."""

    def __init__(
        self,
        database: Database,
        name: str,
        holder: str,
        ttl: float = TTL_SECONDS,
    ) -> None:
        self._database = database
        self.name = name
        self.holder = holder
        self._ttl = ttl
        self._renew_every = ttl / 3
        # An answer may be up to a write's time limit late, and cancelling the job takes a moment.
        self._margin = ttl / 5
        # Death to takeover: ttl + one retry, 27.5 s with the usual ttl.
        self._retry_every = ttl / 10
        self._held_until = float("-inf")
        self._renewal: asyncio.Future[bool] | None = None

    @property
    def held(self) -> bool:
        """Whether this process is certain to be the only one, now."""
        return asyncio.get_running_loop().time() < self._held_until

    async def hold(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` whenever the lease is ours, until it returns or raises, or this is cancelled.

        Losing the lease cancels the job; when the lease is won again, it is started anew. Ended cleanly, the lease is
        given back at once.
        """
        while True:
            if not await self._acquire():
                await asyncio.sleep(self._retry_every)
                continue
            _log.info("lease %s is held by %s", self.name, self.holder)
            try:
                if await self._run(job):
                    return
            finally:
                await self._release()

    async def _run(self, job: Callable[[], Awaitable[None]]) -> bool:
        """Whether the job came to its own end."""
        working = asyncio.ensure_future(job())
        keeping = asyncio.ensure_future(self._keep())
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return True
            keeping.result()
            _log.warning("lease %s was lost by %s", self.name, self.holder)
            return False
        finally:
            self._held_until = float("-inf")
            for task in (keeping, working):
                task.cancel()
            await asyncio.gather(keeping, working, return_exceptions=True)
            # A renewal still under way would, after the lease was given back, take it again for nobody.
            if self._renewal is not None:
                self._renewal.cancel()
                await asyncio.gather(self._renewal, return_exceptions=True)

    async def _keep(self) -> None:
        """Renew; return when the lease is lost, or might be."""
        clock = asyncio.get_running_loop().time
        renew_at = clock() + self._renew_every
        while True:
            await asyncio.sleep(max(0.0, min(renew_at, self._held_until) - clock()))
            if not self.held:
                return
            # Shielded: ending a query that hangs takes longer than the job may still run.
            self._renewal = asyncio.ensure_future(self._take())
            try:
                async with asyncio.timeout(self._held_until - clock()):
                    ours = await asyncio.shield(self._renewal)
            except TimeoutError:
                return
            except LedgerDownError as error:
                _log.warning("lease %s could not be renewed: %s", self.name, error)
                renew_at = clock() + self._retry_every
                continue
            if not ours:
                return
            renew_at = clock() + self._renew_every

    async def _acquire(self) -> bool:
        try:
            return await self._take()
        except LedgerDownError as error:
            _log.warning("lease %s could not be asked for: %s", self.name, error)
            return False

    async def _take(self) -> bool:
        asked_at = asyncio.get_running_loop().time()
        now = database_clock(self._database)
        until = now + self._ttl
        async with self._database.write(seconds=max(_LEAST_PATIENCE_SECONDS, self._ttl / 3)) as connection:
            made = insert_into(connection, leases).values(name=self.name, holder=self.holder, expires_at=until)
            free = (leases.c.holder == self.holder) | (leases.c.expires_at <= now)
            taken = made.on_conflict_do_update(
                index_elements=[leases.c.name], set_={"holder": self.holder, "expires_at": until}, where=free
            )
            ours = (await connection.execute(taken.returning(leases.c.name))).first() is not None
        if ours:
            self._held_until = asked_at + self._ttl - self._margin
        return ours

    async def _release(self) -> None:
        self._held_until = float("-inf")
        mine = delete(leases).where(leases.c.name == self.name, leases.c.holder == self.holder)
        try:
            async with self._database.write(seconds=2) as connection:
                await connection.execute(mine)
        except LedgerDownError as error:
            _log.warning("lease %s could not be given back and will run out: %s", self.name, error)
