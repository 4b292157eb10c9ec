"""Brings one Stripe customer's facts in the ledger up to what Stripe says: ticket, fetch, write.

No transaction is open while Stripe thinks: the ticket is one, the write is another, and it happens only if no newer
ticket exists (docs/design.md, section 6.3). Joining a run that hasn't begun saves double work and is never needed to be
right. It must never let a caller that gave up take a run down with it, nor a cache that is out of reach fail a sync.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from admin.ledger.engine import LedgerDownError
from admin.ledger.stripe_customers import LinkClaim, StripeCustomers, SyncResult, Ticket, Written
from admin.stripe.budget import Priority
from admin.stripe.fetch import LOOK_SECONDS, NOTHING_MORE, Failed, Fetched, fetch_customer, session_claims
from admin.stripe.payments import Wanted

if TYPE_CHECKING:
    from admin.ledger.pair import Pair
    from admin.stripe.client import StripeGateway
    from policies.facts import SubscriptionFact

_log = logging.getLogger(__name__)

PUBLISH_SECONDS: Final = 2.0

EdgeAfter: TypeAlias = "Callable[[tuple[SubscriptionFact, ...], float], int | None]"
Published: TypeAlias = Callable[[dict[str, int]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Synced:
    """The facts are in force: `versions` has each gateway customer they concern, `fetched` what was seen.

    `repaired` says that the ledger had held something else.
    """

    versions: dict[str, int]
    fetched: Fetched
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Superseded:
    """A newer look at the same customer is under way or done; `fetched` is what this one saw."""

    fetched: Fetched


SyncOutcome: TypeAlias = Synced | Superseded | Failed


@dataclass(slots=True, eq=False)
class _Run:
    """One sync of one customer. Those who come before it has begun share it."""

    priority: Priority
    task: asyncio.Task[SyncOutcome] = field(init=False)


class CustomerSync:
    """Syncs of one account in one mode."""

    def __init__(
        self,
        gateway: StripeGateway,
        stripe_customers: StripeCustomers,
        pair: Pair,
        *,
        edge_after: EdgeAfter,
        now: Callable[[], float],
        published: Published,
        look_seconds: float = LOOK_SECONDS,
        wanted: Wanted = NOTHING_MORE,
    ) -> None:
        self._gateway = gateway
        self._stripe_customers = stripe_customers
        self._pair = pair
        self._edge_after = edge_after
        self._now = now
        self._published = published
        self._look_seconds = look_seconds
        self.wanted = wanted
        self._running: dict[str, _Run] = {}
        self._next: dict[str, _Run] = {}

    async def sync_customer(self, stripe_customer: str, priority: Priority) -> SyncOutcome:
        """Fetch and write. What was stored before this call is answered by a ticket taken after it."""
        run = self._joined(stripe_customer, priority)
        return await asyncio.shield(run.task)

    async def aclose(self) -> None:
        """Stop every run; what it would have settled stays pending."""
        tasks = [run.task for run in (*self._running.values(), *self._next.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _joined(self, stripe_customer: str, priority: Priority) -> _Run:
        waiting = self._next.get(stripe_customer)
        running = self._running.get(stripe_customer)
        if running is None and waiting is None:
            return self._started(stripe_customer, priority)
        if running is not None and priority < running.priority:
            # Somebody more urgent doesn't queue behind a nightly look: the newer ticket makes the older one step back.
            return self._started(stripe_customer, priority)
        if waiting is None:
            waiting = _Run(priority)
            self._next[stripe_customer] = waiting
            waiting.task = asyncio.create_task(self._after(running, waiting, stripe_customer))
        waiting.priority = min(waiting.priority, priority)
        return waiting

    def _started(self, stripe_customer: str, priority: Priority) -> _Run:
        run = _Run(priority)
        self._running[stripe_customer] = run
        run.task = asyncio.create_task(self._run(run, stripe_customer))
        return run

    async def _after(self, before: _Run | None, run: _Run, stripe_customer: str) -> SyncOutcome:
        try:
            if before is not None:
                await asyncio.wait({before.task})
        finally:
            del self._next[stripe_customer]
        self._running[stripe_customer] = run
        return await self._run(run, stripe_customer)

    async def _run(self, run: _Run, stripe_customer: str) -> SyncOutcome:
        try:
            ticket = await self._stripe_customers.take_ticket(self._pair, stripe_customer, self._now())
            fetched = await self._fetch(stripe_customer, run.priority)
            return fetched if isinstance(fetched, Failed) else await self._write(ticket, fetched)
        except LedgerDownError as problem:
            return Failed(f"the ledger can't be reached: {problem}")
        finally:
            if self._running.get(stripe_customer) is run:
                del self._running[stripe_customer]

    async def _fetch(self, stripe_customer: str, priority: Priority) -> Fetched | Failed:
        fetched = await fetch_customer(self._gateway, stripe_customer, priority, self._look_seconds, self.wanted)
        if isinstance(fetched, Failed) or fetched.own_claim or fetched.other_claims or not fetched.subscriptions:
            return fetched
        if await self._stripe_customers.customer_of(self._pair, stripe_customer) is not None:
            return fetched
        claims = await session_claims(self._gateway, stripe_customer, priority)
        if isinstance(claims, Failed):
            return claims
        return replace(fetched, other_claims=claims)

    async def _write(self, ticket: Ticket, fetched: Fetched) -> SyncOutcome:
        now = self._now()
        links = [LinkClaim(fetched.own_claim, "customer metadata")] if fetched.own_claim else []
        links += [LinkClaim(claim, "subscription or session") for claim in fetched.other_claims]
        result = SyncResult(
            subscriptions=fetched.subscriptions,
            deleted=fetched.deleted,
            links=tuple(links),
            next_edge_at=self._edge_after(fetched.subscriptions, now),
            features=fetched.features,
        )
        written = await self._stripe_customers.write_sync(self._pair, ticket, result, now)
        if not isinstance(written, Written):
            return Superseded(fetched)
        await self._tell(written.versions)
        return Synced(written.versions, fetched, written.repaired)

    async def _tell(self, versions: dict[str, int]) -> None:
        if not versions:
            return
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await self._published(versions)
        except Exception as problem:  # noqa: BLE001 -- the row in `changes` is the mechanism, this only its fast path
            _log.warning("a change was committed but not published at once: %s", type(problem).__name__)
