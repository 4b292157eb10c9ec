"""Looks at every Stripe customer that the ledger knows, a page at a time, and goes on where it was cut off.

It decides how many are looked at side by side and when Stripe counts as away. The place up to which everybody was
looked at is kept in the ledger after each page: whoever is killed looks at most one page again. It must never hold more
than a page in memory, and never move on past somebody without having asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.stripe.worker import FAILURES_IN_A_ROW

if TYPE_CHECKING:
    from admin.ledger.meta import Meta
    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers

PAGE: Final = 100
SIDE_BY_SIDE: Final = 8
NAMED_FAILURES: Final = 10

Look = Callable[[str], Awaitable["Looked"]]


@dataclass(frozen=True, slots=True)
class Looked:
    """One Stripe customer was asked about. `problem` is why nothing was learned; `repaired`, that something was."""

    repaired: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far it is. `failed` and `repaired` are of those `done`; `failures` names the first of the failed."""

    total: int
    done: int = 0
    failed: int = 0
    repaired: int = 0
    failures: tuple[str, ...] = ()
    finished: bool = False
    stopped_by: str | None = None


class Everybody:
    """One kind of sweep over one account in one mode. `name` tells its place in the ledger from other kinds'."""

    def __init__(self, look: Look, stripe_customers: StripeCustomers, meta: Meta, pair: Pair, name: str) -> None:
        self._look = look
        self._stripe_customers = stripe_customers
        self._meta = meta
        self._pair = pair
        self._meta_key = f"stripe.{name}.{pair.account}.{'live' if pair.livemode else 'test'}"

    async def left_off(self) -> int:
        """How many the sweep that was cut off had looked at; 0 where none was."""
        return (await self._kept())[1].done

    async def run(self, told: Callable[[Sweep], None], *, anew: bool = False) -> Sweep:
        """Look at everybody from where the last sweep was cut off, or `anew`. Raises LedgerDownError."""
        after, sweep = ("", Sweep(0)) if anew else await self._kept()
        total = await self._stripe_customers.count(self._pair)
        sweep = Sweep(total, sweep.done, sweep.failed, sweep.repaired, sweep.failures)
        told(sweep)
        while page := await self._stripe_customers.all_ids(self._pair, after, PAGE):
            looked = await self._page(page)
            if isinstance(looked, str):
                return Sweep(total, sweep.done, sweep.failed, sweep.repaired, sweep.failures, stopped_by=looked)
            named = tuple(f"{one}: {outcome.problem}" for one, outcome in looked.items() if outcome.problem)
            sweep = Sweep(
                total,
                sweep.done + len(page),
                sweep.failed + len(named),
                sweep.repaired + sum(outcome.repaired for outcome in looked.values()),
                (sweep.failures + named)[:NAMED_FAILURES],
            )
            after = page[-1]
            await self._keep(after, sweep)
            told(sweep)
        await self._meta.set(self._meta_key, "")
        return Sweep(total, sweep.done, sweep.failed, sweep.repaired, sweep.failures, finished=True)

    async def _page(self, page: list[str]) -> dict[str, Looked] | str:
        """What became of each, or why Stripe counts as away."""
        looked: dict[str, Looked] = {}
        left = iter(page)
        in_a_row = 0

        async def one_after_the_other() -> None:
            nonlocal in_a_row
            for one in left:
                if in_a_row >= FAILURES_IN_A_ROW:
                    return
                looked[one] = outcome = await self._look(one)
                in_a_row = in_a_row + 1 if outcome.problem else 0

        async with asyncio.TaskGroup() as group:
            for _ in range(SIDE_BY_SIDE):
                group.create_task(one_after_the_other())
        if in_a_row >= FAILURES_IN_A_ROW:
            return next(outcome.problem for outcome in reversed(looked.values()) if outcome.problem)
        return looked

    async def _kept(self) -> tuple[str, Sweep]:
        try:
            kept = json.loads(await self._meta.get(self._meta_key) or "null")
            after, done, failed, repaired, failures = kept
            sweep = Sweep(0, int(done), int(failed), int(repaired), tuple(str(one) for one in failures))
        except (ValueError, TypeError):
            return "", Sweep(0)
        return (after, sweep) if isinstance(after, str) else ("", Sweep(0))

    async def _keep(self, after: str, sweep: Sweep) -> None:
        kept = [after, sweep.done, sweep.failed, sweep.repaired, list(sweep.failures)]
        await self._meta.set(self._meta_key, json.dumps(kept))
