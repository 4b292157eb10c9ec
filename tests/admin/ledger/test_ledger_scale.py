"""What is asked at requests and every second finds its rows by an index, and reads nobody else's."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from admin.ledger.customers import Customers
from admin.ledger.inbox import Inbox
from admin.ledger.pair import Pair
from admin.ledger.stripe_customers import StripeCustomers
from admin.ledger.tables import metadata
from tests.support.ledgers import fresh_sqlite, opened

PAIR = Pair("acct_1", livemode=False)

ASKED: dict[str, Callable[[Any], Awaitable[object]]] = {
    "a customer's facts": lambda database: Customers(database).read_facts(PAIR, "alice", 1.0),
    "a customer's Stripe customers": lambda database: StripeCustomers(database).links_of(PAIR, "alice"),
    "whose a Stripe customer is": lambda database: StripeCustomers(database).customer_of(PAIR, "cus_1"),
    "a ticket": lambda database: StripeCustomers(database).take_ticket(PAIR, "cus_1", 1.0),
    "the twin of a thin event": lambda database: Inbox(database).settled_twin(PAIR, "evt_1", "evt_2"),
    "the twin of a snapshot": lambda database: Inbox(database).settled_twin(PAIR, "evt_1", None),
    "how long the oldest event waits": lambda database: Inbox(database).lag(PAIR, time.time()),
    "what is due": lambda database: Inbox(database).due(PAIR, time.time(), 100),
}
WHOLE_KEY = {
    "ix_inbox_due": 3,
    "ix_inbox_waiting": 3,
    "ix_inbox_stripe_customer": 3,
    "ix_inbox_snapshot_event": 3,
    "ix_stripe_customers_owner": 3,
    "sqlite_autoindex_stripe_customers_1": 3,
    "uq_inbox_event": 3,
}
"""Of each index that begins with account and mode, how many columns must be compared to read only what is meant."""


async def test_what_is_due_is_read_in_the_order_of_its_index_and_only_as_far_as_it_takes(tmp_path: Path) -> None:
    """With 800,000 waiting, to group them all took longer than a transaction may, and nothing was ever worked off."""
    plans = await plans_of(tmp_path, ASKED["what is due"])
    assert not any("GROUP BY" in plan for plan in plans.values())
    (in_order,) = [
        plan for statement, plan in plans.items() if "ORDER BY inbox.next_attempt_at, inbox.seq" in statement
    ]
    assert (
        in_order
        == "SEARCH inbox USING INDEX ix_inbox_due (account=? AND livemode=? AND status=? AND next_attempt_at<?)"
    )


@pytest.mark.parametrize("what", ASKED)
async def test_sqlite_without_statistics_reads_only_the_rows_that_are_meant(tmp_path: Path, what: str) -> None:
    """A lookup among a million customers took 0.7 s while the planner took the primary key's first two columns."""
    plans = await plans_of(tmp_path, ASKED[what])
    assert plans
    for plan in plans.values():
        for step in plan.splitlines():
            assert not any(step.startswith(f"SCAN {table}") for table in metadata.tables), step
            for index, columns in WHOLE_KEY.items():
                assert f"INDEX {index} (" not in step or step.count("=?") >= columns, step


async def plans_of(tmp_path: Path, ask: Callable[[Any], Awaitable[object]]) -> dict[str, str]:
    """How SQLite goes about each statement: its steps, a line each."""
    database = await opened(fresh_sqlite(tmp_path))
    statements: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    for engine in database._engines:
        event.listen(engine.sync_engine, "before_cursor_execute", keep)
    await ask(database)
    plans: dict[str, str] = {}
    async with database.read() as connection:
        for statement, parameters in [one for one in statements if one[0].startswith(("SELECT", "UPDATE"))]:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans[statement] = "\n".join(str(row._mapping["detail"]) for row in rows.all())
    await database.dispose()
    return plans
