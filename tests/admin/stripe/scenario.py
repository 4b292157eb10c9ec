"""One row of the scenario table: a customer named alice, a world, and what was delivered in which order.

`opens` asks the ledger and, where everything was delivered, the oracle as well: the table, the product and the second
opinion must all say the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from admin.rehearsal.house import BASE, BEGINNING, House
from admin.rehearsal.oracle import rank_at
from admin.rehearsal.wires import Shape, dressed
from admin.stripe.objects import CLAIM_KEY
from tests.campaign.terms import EVERYBODY

if TYPE_CHECKING:
    import httpx

    from admin.simulator.entities import Event, Invoice, Subscription
    from admin.stripe.webhook import Verdict

FREE, PRO, TEAM, ENTERPRISE = range(4)
WAYS: Final[tuple[tuple[Shape, str], ...]] = (
    ("period on the item", "snapshot"),
    ("period on the item", "thin"),
    ("period on the subscription", "snapshot"),
    ("period on the subscription", "thin"),
)


@dataclass(slots=True)
class Scenario:
    """Times are seconds from the beginning."""

    house: House
    payer: str = ""

    async def customer(self, card: str = "works", claim: str | None = "alice") -> str:
        """A new Stripe customer."""
        made = await self.house.ask("POST", "/v1/customers", **({f"metadata[{CLAIM_KEY}]": claim} if claim else {}))
        self.payer = str(made.json()["id"])
        await self.card(card)
        return self.payer

    async def card(self, card: str) -> None:
        await self.do("POST", f"/_sim/customers/{self.payer}/card", card=card)

    async def subscribe(self, price: str = "price_pro_monthly", card: str = "works", **more: str) -> str:
        """A subscription of alice's, by the merchant's own call."""
        if not self.payer:
            await self.customer()
        await self.card(card)
        made = await self.do("POST", "/v1/subscriptions", **{"customer": self.payer, "items[0][price]": price, **more})
        return str(made.json()["id"])

    async def do(self, method: str, path: str, **form: str) -> httpx.Response:
        answer = await self.house.ask(method, path, **form)
        assert answer.status_code < 400, answer.text
        self.house.chronicle.keep()
        return answer

    async def page(self, url: str, **form: str) -> None:
        await self.do("POST", urlsplit(url).path, **form)

    def book(self, subscription: str) -> Subscription:
        return self.house.simulator.world.store.subscriptions[subscription]

    def bills(self, subscription: str) -> list[Invoice]:
        return self.house.simulator.world.store.invoices_of(subscription)

    def ends_at(self, subscription: str) -> float:
        return self.book(subscription).items[0].period_end - BEGINNING

    def until(self, moment: float) -> None:
        """Time passes up to `moment`; what falls due in it happens."""
        self.house.advance(BEGINNING + moment - self.house.clock())

    def lose_mail(self) -> None:
        self.house.mail.clear()

    def mail(self, *types: str) -> list[Event]:
        """What was posted and not yet delivered, in the order of sending; taken out."""
        taken = [event for event in self.house.mail if not types or event.type in types]
        self.house.mail[:] = [event for event in self.house.mail if event not in taken]
        return taken

    async def deliver(self, events: Iterable[Event] | None = None) -> list[Verdict]:
        """These events (or everything that waits) arrive, each in the wire's own shape."""
        verdicts = []
        for event in self.mail() if events is None else events:
            for body in self.house.bodies(event):
                worn = json.dumps(dressed(json.loads(body), self.house.wire.shape)).encode()
                verdicts.append(await self.house.receive(worn))
        assert all(verdict.status == 200 for verdict in verdicts), verdicts
        return verdicts

    async def rank(self) -> int:
        entitlement = (await self.house.entitlements(["alice"]))[0]
        return entitlement.at(self.house.clock()).rank

    async def opens(self, rank: int, *, by_truth: bool = True) -> None:
        """What alice has now. Not `by_truth`: the world has moved on and nobody told us."""
        assert await self.rank() == rank
        if not by_truth:
            return
        store, states = self.house.simulator.world.store, self.house.chronicle.states
        hers = [
            one for one in store.customers.values() if one.metadata.get(CLAIM_KEY) == "alice" or one.id == self.payer
        ]
        openings = tuple(opening for one in hers for opening in states.get(one.id, [()])[-1])
        assert rank_at(openings, self.house.clock(), EVERYBODY) == rank, "the oracle says otherwise"

    async def forged(self, event: Event, change: Callable[[dict[str, Any]], None]) -> Verdict:
        """The event as it was sent, but changed and signed again."""
        body = json.loads(self.house.bodies(event)[0])
        change(body)
        return await self.house.receive(json.dumps(body).encode())

    async def portal(self) -> str:
        made = await self.do("POST", "/v1/billing_portal/sessions", customer=self.payer, return_url=f"{BASE}/back")
        return urlsplit(str(made.json()["url"])).path
