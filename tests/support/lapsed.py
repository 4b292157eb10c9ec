"""Customers whose month ended unheard, a Stripe that notes each call, and a crowd that asks the gateway all at once.

For each of them Stripe may know better than the ledger, so that each refusal deserves a look. Stripe knows them and no
subscription of theirs: whoever is looked at has nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from admin.simulator import Simulator
from admin.simulator.entities import Customer
from policies.facts import ItemFact, SubscriptionFact
from tests.support.rawclient import RawClient
from tests.support.stack import token_for

DAY = 86_400
CALLS = "/_calls"
"""Where `Noted` shows them: of this path the real one knows nothing."""


@dataclass(slots=True)
class Noted:
    """Stands before a simulated Stripe and keeps when each call of its API came, on the machine's steady clock."""

    app: Any = None
    calls: list[tuple[float, str]] = field(default_factory=list)

    def before(self, app: Any) -> Any:
        """Stand before this one."""
        self.app = app
        return self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == CALLS:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(self.calls).encode()})
            return
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            self.calls.append((time.monotonic(), scope["path"]))
        await self.app(scope, receive, send)


def names(count: int) -> list[str]:
    """What tokens call them."""
    return [f"lapsed-{number}" for number in range(count)]


def known_to(simulator: Simulator, count: int) -> None:
    """Stripe has them, and says nothing of it."""
    for number in range(count):
        one = f"cus_lapsed{number}"
        simulator.world.store.customers[one] = Customer(id=one, created=int(time.time()) - 60 * DAY)


def write(ledger: Path, account: str, count: int, *, ended: bool = False) -> None:
    """Into the ledger of a gateway that has met its Stripe. `ended`: heard of, so that nobody need be asked.

    The background job that looks at periods that ended without news has them not on its list: each look is a request's.
    """
    end = int(time.time()) - 3 * DAY
    item = ItemFact("price_pro_monthly", "prod", None, end - 30 * DAY, end, 1)
    status, fetched_at = ("canceled", int(time.time())) if ended else ("active", end - DAY)
    with contextlib.closing(sqlite3.connect(ledger, timeout=30)) as connection, connection:
        rows = [
            (account, f"cus_lapsed{number}", name, _facts(number, status, item, end), fetched_at, end)
            for number, name in enumerate(names(count))
        ]
        connection.executemany(
            "INSERT INTO customers (customer, version, created_at) VALUES (?, 1, 1)", [(row[2],) for row in rows]
        )
        connection.executemany(
            "INSERT INTO stripe_customers (account, livemode, id, customer, facts, fetched_at, created_at)"
            " VALUES (?, 0, ?, ?, ?, ?, ?)",
            rows,
        )


def _facts(number: int, status: str, item: ItemFact, end: int) -> str:
    return json.dumps([asdict(SubscriptionFact(f"sub_lapsed{number}", status, (item,), created=end))])


def request_of(customer: str) -> bytes:
    """For what only a tier opens."""
    return f"GET /pro/x HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token_for(customer)}\r\n\r\n".encode()


async def crowd(
    address: tuple[str, int], requests: Sequence[bytes], *, connections: int, goes_on: Callable[[int], Awaitable[bool]]
) -> Counter[tuple[int, str | None]]:
    """Ask in turn over so many connections while it `goes_on`, which is told how many were asked and may take its time."""
    answers: Counter[tuple[int, str | None]] = Counter()
    turn = iter(_for_ever(requests))
    asked = 0

    async def one_after_the_other() -> None:
        nonlocal asked
        async with await RawClient.connect(address) as caller:
            while await goes_on(asked):
                asked += 1
                answer = await caller.ask(next(turn))
                answers[answer.status, answer.one("x-gateway-reason")] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one_after_the_other())
    return answers


def _for_ever(requests: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests
