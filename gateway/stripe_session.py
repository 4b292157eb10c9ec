"""What the command line does with Stripe: fetch one or all, read events again, take over customers that are there.

It works beside running gateways, under the same budget of calls and behind everybody who waits for an answer. What it
commits they hear of from the ledger, and one of them publishes it to Redis.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from admin.ledger.budgets import CallBudgets
from admin.operations import Done, Malformed, Rejected, Unavailable
from admin.stripe.account import AccountProblem, open_account
from admin.stripe.adoption import Adoption, Report, Rule
from admin.stripe.budget import Priority
from admin.stripe.everybody import Everybody, Looked, Sweep
from admin.stripe.fetch import Failed
from admin.stripe.on_demand import fetch_now
from admin.stripe.payments import Wanted
from admin.stripe.reconcile import CaughtUp, EventsCatchUp, NotCaughtUp
from admin.stripe.shared_budget import SharedBudget, calls_of
from admin.stripe.sync import CustomerSync, Synced
from policies.caller import customer_problem
from policies.entitlement import BillingRules, edge_after

if TYPE_CHECKING:
    from admin.control import Ledger
    from admin.stripe.account import Account
    from policies.schema import Config
    from policies.tiers import Ladder

SWEEP: Final = "sync"
_NO_KEY: Final = "there is no Stripe key in gateway.yaml, so there is nothing to fetch."


class StripeSession:
    """One account in one mode. Everything here raises LedgerDownError."""

    def __init__(self, account: Account, ledger: Ledger, sync: CustomerSync, now: Callable[[], float]) -> None:
        self._account = account
        self._ledger = ledger
        self._sync = sync
        self._now = now
        self._everybody = Everybody(self._look, ledger.stripe_customers, ledger.meta, account.pair, SWEEP)

    async def sync(self, customer: str) -> Done | Rejected:
        """Fetch one customer, or Stripe customer, now."""
        problem = customer_problem(customer)
        if problem is not None:
            return Malformed(f"The customer's name {problem}.")
        return await fetch_now(
            customer,
            gateway=self._account.gateway,
            sync=self._sync,
            stripe_customers=self._ledger.stripe_customers,
            pair=self._account.pair,
        )

    async def left_off(self) -> int:
        """How many a sync of everybody that was cut off had fetched."""
        return await self._everybody.left_off()

    async def sync_everybody(self, told: Callable[[Sweep], None], *, anew: bool) -> Sweep:
        """Fetch everybody, from where the last run was cut off unless `anew`."""
        return await self._everybody.run(told, anew=anew)

    async def backfill(self, seconds: float) -> CaughtUp | NotCaughtUp:
        """Put into the inbox what it lacks of Stripe's events of the last `seconds`."""
        events = EventsCatchUp(
            self._account.gateway,
            self._ledger.inbox,
            self._ledger.meta,
            self._account.pair,
            now=self._now,
            wall=time.time,
        )
        return await events.backfill(seconds)

    def adopt(self, rule: Rule, *, write: bool) -> AsyncIterator[Report]:
        """Who of Stripe's customers is whom, by `rule`; linked and fetched with `write`."""
        adoption = Adoption(
            self._account.gateway, self._sync, self._ledger.stripe_customers, self._account.pair, now=self._now
        )
        return adoption.run(rule, write=write)

    async def _look(self, stripe_customer: str) -> Looked:
        outcome = await self._sync.sync_customer(stripe_customer, Priority.NIGHTLY)
        if isinstance(outcome, Failed):
            return Looked(problem=outcome.detail, is_everybodys=outcome.unavailable)
        return Looked(repaired=isinstance(outcome, Synced) and outcome.repaired)


@asynccontextmanager
async def open_stripe(
    config: Config, ledger: Ledger, *, ladder: Callable[[], Ladder], now: Callable[[], float]
) -> AsyncIterator[StripeSession | Rejected]:
    """The account of `config`, until the block ends. Raises LedgerDownError."""
    account = await open_account(config.billing.stripe, ledger.meta)
    if account is None:
        yield Unavailable(_NO_KEY)
        return
    if isinstance(account, AccountProblem):
        yield Unavailable(account.detail)
        return
    rules = BillingRules.of(config.billing)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(account.gateway.aclose)
        budget = SharedBudget(CallBudgets(ledger.database), calls_of(account.pair))
        stack.push_async_callback(budget.aclose)
        account.gateway.use_budget(budget)
        sync = CustomerSync(
            account.gateway,
            ledger.stripe_customers,
            account.pair,
            edge_after=lambda subscriptions, at: edge_after(subscriptions, rules, at, ladder()),
            now=now,
            published=_left_to_the_gateway,
            wanted=Wanted.of(config.billing),
        )
        stack.push_async_callback(sync.aclose)
        yield StripeSession(account, ledger, sync, now)


async def _left_to_the_gateway(_versions: dict[str, int]) -> None:
    """Whoever follows the ledger forgets by itself; one of them publishes to Redis."""
