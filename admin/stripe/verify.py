"""Verify before refusing: one live look at Stripe where the facts behind a 402 may be stale.

It decides whether a look is worth making now: per customer one in 30 s, five a second over all, two seconds each, and
never two of one customer at a time (docs/design.md, section 6.6). It must never answer `Verified` for a look that was not
finished, nor keep a caller longer than those two seconds, nor at all where so many wait that the turn can't come.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from admin.ledger.engine import LedgerDownError
from admin.stripe.budget import Budget, PacedBudget, Priority
from admin.stripe.fetch import Failed
from admin.stripe.sync import CustomerSync, Superseded
from admin.stripe.work import EventWork, NotYet

if TYPE_CHECKING:
    from admin.ledger.checkouts import Checkouts
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers

LOOK_SECONDS: Final = 2.0
ONCE_IN_SECONDS: Final = 30.0
LOOKS_PER_SECOND: Final = 5.0
MOST_REMEMBERED: Final = 10_000
MOST_AT_ONCE: Final = 16
"""As many as wait for their turn, and get it, within two seconds, and as many again that have had it."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The facts in the ledger are Stripe's, as of at most 30 s ago."""


@dataclass(frozen=True, slots=True)
class CouldNotVerify:
    """Nobody knows better than before."""

    detail: str


Verification: TypeAlias = Verified | CouldNotVerify


class VerifyNow:
    """Live looks for one account in one mode."""

    def __init__(
        self,
        sync: CustomerSync,
        work: EventWork,
        *,
        pair: Pair,
        stripe_customers: StripeCustomers,
        checkouts: Checkouts,
        now: Callable[[], float],
        budget: Budget | None = None,
        steady: Callable[[], float] = time.monotonic,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._sync = sync
        self._work = work
        self._pair = pair
        self._stripe_customers = stripe_customers
        self._checkouts = checkouts
        self._now = now
        self._budget = budget or PacedBudget(LOOKS_PER_SECOND, burst=int(LOOKS_PER_SECOND))
        self._steady = steady
        self._look_seconds = look_seconds
        self._remembered: OrderedDict[str, tuple[float, float, Verification]] = OrderedDict()
        self._looking: dict[str, asyncio.Task[Verification]] = {}

    async def verify_now(self, customer: str) -> Verification:
        """Look at everything of the customer's, unless that was done just now."""
        found = self._remembered.get(customer)
        if found is not None:
            steady_at, looked_at, outcome = found
            # On both clocks: a simulator's may have moved past another edge since.
            if self._steady() - steady_at < ONCE_IN_SECONDS and self._now() - looked_at < ONCE_IN_SECONDS:
                return outcome
        task = self._looking.get(customer)
        if task is None and len(self._looking) >= MOST_AT_ONCE:
            # Not remembered: nothing was asked, and somebody who pays must not be locked out by those who don't.
            return CouldNotVerify("many others are looked at")
        if task is None:
            task = asyncio.create_task(self._look(customer))
            self._looking[customer] = task
            task.add_done_callback(lambda _: self._looking.pop(customer, None))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop every look."""
        tasks = list(self._looking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, customer: str) -> Verification:
        looked_at = self._now()
        try:
            async with asyncio.timeout(self._look_seconds):
                outcome = await self._look_at_all(customer)
        except TimeoutError:
            outcome = CouldNotVerify("Stripe took too long")
        except LedgerDownError:
            outcome = CouldNotVerify("the ledger can't be reached")
        self._remembered[customer] = (self._steady(), looked_at, outcome)
        self._remembered.move_to_end(customer)
        while len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return outcome

    async def _look_at_all(self, customer: str) -> Verification:
        sessions = await self._checkouts.open_for(self._pair, customer, self._now())
        links = await self._stripe_customers.links_of(self._pair, customer)
        if not sessions and not links:
            return Verified()  # Stripe was never given a reason to know this customer
        await self._budget.acquire(Priority.CUSTOMER)
        looks = [self._session(session.id) for session in sessions] + [self._linked(link) for link in links]
        problems = [detail for detail in await asyncio.gather(*looks) if detail is not None]
        return CouldNotVerify(problems[0]) if problems else Verified()

    async def _session(self, session_id: str) -> str | None:
        outcome = await self._work.look_at_session(session_id, Priority.CUSTOMER)
        return outcome.detail if isinstance(outcome, NotYet) else None

    async def _linked(self, stripe_customer: str) -> str | None:
        for _ in range(2):
            outcome = await self._sync.sync_customer(stripe_customer, Priority.CUSTOMER)
            if isinstance(outcome, Failed):
                return outcome.detail
            if not isinstance(outcome, Superseded):
                return None
        return "others look at the same customer"
