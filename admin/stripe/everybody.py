"""Looks at every Stripe customer that the ledger knows, a page at a time, and goes on where it was cut off.

It decides how many are looked at side by side and when Stripe counts as away. The place up to which everybody was
looked at is kept in the ledger after each page: whoever is killed looks at most one page again, and whoever is stopped
keeps what that page repaired, which a second look would not count. It must never hold more than a page in memory, and
never move on past somebody without having asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
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
    """One Stripe customer was asked about. `problem` is why nothing was learned; `repaired`, that something was.

    `is_everybodys`: about others Stripe would not have answered either.
    """

    repaired: bool = False
    problem: str | None = None
    is_everybodys: bool = False


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
        """Look at everybody from where the last sweep was cut off, or `anew`. Raises LedgerDownError.

        `told` hears of each, with failures and repairs once a page is whole.
        """
        after, sweep = ("", Sweep(0)) if anew else await self._kept()
        if anew:  # or what is cut off in its first page would go on where an older one was
            await self._meta.set(self._meta_key, "")
        sweep = replace(sweep, total=await self._stripe_customers.count(self._pair))
        told(sweep)
        while page := await self._stripe_customers.all_ids(self._pair, after, PAGE):
            looked: dict[str, Looked] = {}
            try:
                problem = await self._page(page, looked, sweep, told)
            except asyncio.CancelledError:
                await self._keep(after, _repaired(sweep, looked))
                raise
            if problem is not None:
                await self._keep(after, _repaired(sweep, looked))
                return replace(sweep, stopped_by=problem)
            named = tuple(f"{one}: {looked[one].problem}" for one in page if looked[one].problem)
            sweep = replace(
                _repaired(sweep, looked),
                done=sweep.done + len(page),
                failed=sweep.failed + len(named),
                failures=(sweep.failures + named)[:NAMED_FAILURES],
            )
            after = page[-1]
            await self._keep(after, sweep)
        await self._meta.set(self._meta_key, "")
        return replace(sweep, finished=True)

    async def _page(
        self, page: list[str], looked: dict[str, Looked], before: Sweep, told: Callable[[Sweep], None]
    ) -> str | None:
        """Fill `looked`. Why Stripe counts as away, if it does."""
        left = iter(page)
        in_a_row = 0

        async def one_after_the_other() -> None:
            nonlocal in_a_row
            for one in left:
                if in_a_row >= FAILURES_IN_A_ROW:
                    return
                looked[one] = outcome = await self._look(one)
                in_a_row = in_a_row + 1 if outcome.is_everybodys else 0
                told(replace(before, done=before.done + len(looked)))

        async with asyncio.TaskGroup() as group:
            for _ in range(SIDE_BY_SIDE):
                group.create_task(one_after_the_other())
        if in_a_row >= FAILURES_IN_A_ROW:
            return next(outcome.problem for outcome in reversed(looked.values()) if outcome.problem)
        return None

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


def _repaired(sweep: Sweep, looked: dict[str, Looked]) -> Sweep:
    """Of a page that is looked at again: what was mended in it is as it should be by then, and would go uncounted."""
    return replace(sweep, repaired=sweep.repaired + sum(outcome.repaired for outcome in looked.values()))
