"""The control plane of one process: the ledger's parts and Stripe's, joined.

It decides nothing; it hands each part what it needs. Without a Stripe key there are no Stripe parts, and everything
that doesn't take money works all the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from admin.ledger.api_keys import ApiKeys
from admin.ledger.catalog import Catalog
from admin.ledger.changes import Changes
from admin.ledger.checkouts import Checkouts
from admin.ledger.customer_records import CustomerRecord, CustomerSummary
from admin.ledger.customers import Customers
from admin.ledger.engine import Database
from admin.ledger.inbox import Inbox
from admin.ledger.inbox_rows import InboxRow, Status
from admin.ledger.meta import Meta
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import StripeCustomers

Job = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BackgroundJob:
    """Work that goes on until cancelled. One that is `leased` runs in one process at a time."""

    name: str
    run: Job
    leased: bool = True


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every repository over one database."""

    database: Database
    meta: Meta
    customers: Customers
    stripe_customers: StripeCustomers
    inbox: Inbox
    checkouts: Checkouts
    catalog: Catalog
    changes: Changes
    api_keys: ApiKeys

    @classmethod
    def over(cls, database: Database) -> Ledger:
        """All of them."""
        return cls(
            database=database,
            meta=Meta(database),
            customers=Customers(database),
            stripe_customers=StripeCustomers(database),
            inbox=Inbox(database),
            checkouts=Checkouts(database),
            catalog=Catalog(database),
            changes=Changes(database),
            api_keys=ApiKeys(database),
        )


@dataclass(frozen=True, slots=True)
class LedgerRecords:
    """What the operator reads, of the one account and mode that is configured."""

    ledger: Ledger
    pair: Pair
    now: Callable[[], float] = field(repr=False)

    async def find_customers(self, text: str, limit: int, after: str) -> list[CustomerSummary]:
        """Customers beyond `after` whose name or Stripe id holds `text`."""
        return await self.ledger.customers.search(self.pair, text, limit, after, self.now())

    async def show_customer(self, customer: str) -> CustomerRecord | None:
        """Everything on record."""
        return await self.ledger.customers.show(self.pair, customer, self.now())

    async def find_events(self, status: Status | None, before_seq: int | None, limit: int) -> list[InboxRow]:
        """Events, newest first."""
        return await self.ledger.inbox.search(self.pair, status=status, before_seq=before_seq, limit=limit)

    async def replay_event(self, event_id: str) -> bool:
        """Put an event back into the inbox."""
        # When an event is tried again is a matter of real time, whatever a simulator's clock says.
        return await self.ledger.inbox.replay(self.pair, event_id, time.time())
