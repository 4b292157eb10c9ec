"""An existing business: whose is each customer that Stripe has already, by a rule that the operator names.

It decides from Stripe's own list, page after page, who would be linked to whom, and writes only when asked to. A link is
never moved: somebody who is linked otherwise, or whose metadata names somebody else, is a conflict and left alone. It
must never hold more than a page of customers in memory, and writing twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from admin.ledger.stripe_customers import Conflict, Owned
from admin.stripe.budget import Priority
from admin.stripe.client import PAGE_SIZE, StripeGateway, StripeRefused, StripeUnavailable
from admin.stripe.everybody import SIDE_BY_SIDE
from admin.stripe.fetch import Failed, failed
from admin.stripe.fields import Json, child, entries, identifier
from admin.stripe.objects import claim_of
from policies.caller import customer_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.ledger.pair import Pair
    from admin.ledger.stripe_customers import StripeCustomers
    from admin.stripe.sync import CustomerSync

_METADATA: Final = "metadata:"
LONGEST_KEY: Final = 40
"""Of Stripe's metadata."""


class Fate(StrEnum):
    """What the rule makes of one Stripe customer."""

    NEW = "new"
    KNOWN = "known"
    CONFLICT = "conflict"
    UNNAMED = "unnamed"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the customer's name stands: `metadata:KEY`, `email`, or `id`, which is Stripe's own."""

    text: str

    def name_in(self, customer: Json) -> str | None:
        """The name as it stands there, whatever it is; None where there is none."""
        if self.text.startswith(_METADATA):
            value = child(customer, "metadata").get(self.text.removeprefix(_METADATA))
        else:
            value = customer.get(self.text)
        return value if isinstance(value, str) and value else None


@dataclass(frozen=True, slots=True)
class Adopted:
    """One line of the report. `customer` is whom the rule names; `detail` says what is in the way.

    `unfetched`: the link is written, and what Stripe knows of them is not.
    """

    stripe_customer: str
    customer: str | None
    fate: Fate
    detail: str = ""
    unfetched: bool = False


@dataclass(frozen=True, slots=True)
class NotRead:
    """Stripe's list could not be read on; what was written stays, and running it again goes on."""

    detail: str


Report: TypeAlias = Adopted | NotRead


def read_rule(text: str) -> Rule | str:
    """The rule, or what is wrong with it."""
    if text in {"email", "id"}:
        return Rule(text)
    if text.startswith(_METADATA) and 0 < len(text.removeprefix(_METADATA)) <= LONGEST_KEY:
        return Rule(text)
    return "is metadata:KEY, email or id"


class Adoption:
    """One reading of all customers of one account in one mode."""

    def __init__(
        self,
        gateway: StripeGateway,
        sync: CustomerSync,
        stripe_customers: StripeCustomers,
        pair: Pair,
        *,
        now: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._sync = sync
        self._stripe_customers = stripe_customers
        self._pair = pair
        self._now = now

    async def run(self, rule: Rule, *, write: bool) -> AsyncIterator[Report]:
        """Every customer with its fate; with `write`, linked and looked at by then. Raises LedgerDownError."""
        async for page in self._pages():
            if isinstance(page, NotRead):
                yield page
                return
            known = await self._stripe_customers.owners(self._pair, [one for one, _ in page])
            reports = [_judged(rule, one, customer, known.get(one)) for one, customer in page]
            if write:
                turns = asyncio.Semaphore(SIDE_BY_SIDE)
                writing = (self._written(report, known.get(report.stripe_customer), rule, turns) for report in reports)
                reports = list(await asyncio.gather(*writing))
            for report in reports:
                yield report

    async def _written(self, report: Adopted, owned: Owned | None, rule: Rule, turns: asyncio.Semaphore) -> Adopted:
        if report.customer is None or report.fate not in {Fate.NEW, Fate.KNOWN}:
            return report
        async with turns:
            return await self._linked(report, report.customer, owned, rule)

    async def _linked(self, report: Adopted, customer: str, owned: Owned | None, rule: Rule) -> Adopted:
        one = report.stripe_customer
        if report.fate is Fate.NEW:
            linked = await self._stripe_customers.link(self._pair, one, customer, f"import {rule.text}", self._now())
            if isinstance(linked, Conflict):
                return Adopted(one, customer, Fate.CONFLICT, f"is linked to {linked.existing}")
        if owned is not None and owned.fetched and report.fate is Fate.KNOWN:
            return report
        # Linked and not looked at is also what a run that was killed leaves behind.
        outcome = await self._sync.sync_customer(one, Priority.NIGHTLY)
        if isinstance(outcome, Failed):
            return Adopted(one, customer, report.fate, f"not fetched: {outcome.detail}", unfetched=True)
        return report

    async def _pages(self) -> AsyncIterator[list[tuple[str, Json]] | NotRead]:
        after: str | None = None
        while True:
            query = {"limit": PAGE_SIZE, **({"starting_after": after} if after else {})}
            page = await self._gateway.get("/v1/customers", query, priority=Priority.NIGHTLY)
            if isinstance(page, StripeUnavailable | StripeRefused):
                yield NotRead(failed(page).detail)
                return
            listed = [entry for entry in entries(page, "data") if isinstance(entry, Mapping)]
            named = [(found, entry) for entry in listed if (found := identifier(entry.get("id"))) is not None]
            yield named
            if page.get("has_more") is not True:
                return
            before, after = after, named[-1][0] if named else None
            if after is None or after == before:
                yield NotRead("a page of Stripe's customers says that there is more, but not after what")
                return


def _judged(rule: Rule, stripe_customer: str, source: Json, owned: Owned | None) -> Adopted:
    named, claimed = rule.name_in(source), claim_of(source)
    owner = owned.customer if owned is not None else None
    if named is None:
        detail = f"is linked to {owner}" if owner is not None else "nothing there"
        return Adopted(stripe_customer, None, Fate.UNNAMED, detail)
    problem = customer_problem(named)
    if problem is not None:
        return Adopted(stripe_customer, None, Fate.UNNAMED, f"what stands there can't name a customer: {problem}")
    if owner is not None and owner != named:
        return Adopted(stripe_customer, named, Fate.CONFLICT, f"is linked to {owner}")
    if owner is None and claimed is not None and claimed != named:
        return Adopted(stripe_customer, named, Fate.CONFLICT, f"its metadata names {claimed}")
    return Adopted(stripe_customer, named, Fate.NEW if owner is None else Fate.KNOWN)
