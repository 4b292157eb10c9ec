from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from admin.ledger.customers import Customers
from admin.ledger.inbox import Inbox
from admin.ledger.pair import Pair

if TYPE_CHECKING:
    from admin.ledger.engine import Database

LIVE = Pair("acct_1", True)

WORK_UNTIL_KILLED = """
import asyncio, sys
from admin.ledger.inbox import Inbox, InboxEvent
from admin.ledger.opening import open_database
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import LinkClaim, StripeCustomers, SyncResult

async def main():
    database = await open_database(sys.argv[1])
    inbox, stripe, pair = Inbox(database), StripeCustomers(database), Pair("acct_1", True)
    async def store(number):
        await inbox.store(InboxEvent(pair, f"evt_{number}", "t", None, f"cus_{number % 5}", "snapshot", 1, 1), 1)
        print(f"evt_{number}", flush=True)
    async def sync(number):
        ticket = await stripe.take_ticket(pair, f"cus_{number}", 1)
        await stripe.write_sync(pair, ticket, SyncResult((), links=(LinkClaim(f"customer_{number}", "t"),)), 1)
    number = 0
    while True:
        await asyncio.gather(*(store(number + n) for n in range(10)), *(sync(n) for n in range(5)))
        number += 10

asyncio.run(main())
"""


async def test_no_acknowledged_event_is_lost_when_the_process_is_killed(database: Database, ledger_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORK_UNTIL_KILLED, ledger_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = [(await process.stdout.readline()).decode().strip() for _ in range(60)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += (await process.stdout.read()).decode().split()
    await process.wait()
    kept = {row.event_id: row for row in await Inbox(database).search(LIVE, limit=100_000)}
    assert [event_id for event_id in acknowledged if event_id not in kept] == []
    # An event is settled only together with what its sync wrote: its Stripe customer has an owner then.
    for row in kept.values():
        if row.status == "done":
            assert row.stripe_customer is not None
            number = row.stripe_customer.removeprefix("cus_")
            record = await Customers(database).show(LIVE, f"customer_{number}", 1)
            assert record is not None
            assert [link.fetched_at for link in record.links] == [1]
