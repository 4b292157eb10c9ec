"""What happens seldom to a subscription, and is what naive readings fall over: more items than a list shows, a payer who is
claimed by two or only later by anybody, a status that is news, a deletion of which nothing else is said.

As in `lives`, nothing here decides what is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from admin.rehearsal.wires import ODD
from admin.stripe.objects import CLAIM_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from admin.rehearsal.lives import Lives
    from admin.rehearsal.wires import Shape

_NEWS: Final = ("suspended", "under_review", "active_pending_migration")


class Rare:
    """Deeds of the customers of `lives`."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._house, self._chance = lives.house, lives.chance
        self._nobodys: dict[str, list[str]] = {}
        """Stripe customers who will say only later whose they are."""
        self._keys_moved = house_shows_no_keys(lives.house.wire.shape)
        self.deeds: tuple[tuple[int, Callable[[str], Awaitable[str]]], ...] = (
            (1, self._has_many_items),
            (2, self._says_later_whose_it_is),
            (1, self._is_claimed_by_another),
            (1, self._has_a_status_that_is_news),
            (1, self._is_deleted),
            (1, self._finds_a_lookup_key_moved),
        )

    async def _has_many_items(self, name: str) -> str:
        payer = await self._lives.payer_with_room(name)
        if payer is None:
            return "has enough"
        prices = [*self._house.terms.extras]
        self._chance.shuffle(prices)
        # Most often where a reader of the first ten doesn't come.
        place = len(prices) if self._chance.random() < 0.7 else self._chance.randrange(len(prices))
        prices.insert(place, self._chance.choice(self._house.terms.prices))
        items = {f"items[{number}][price]": price for number, price in enumerate(prices)}
        answer = await self._house.ask("POST", "/v1/subscriptions", customer=payer, **items)
        return f"is subscribed to {len(items)} prices: {answer.status_code}"

    async def _says_later_whose_it_is(self, name: str) -> str:
        waiting = self._nobodys.setdefault(name, [])
        if not waiting:
            made = await self._house.ask("POST", "/v1/customers")
            if made.status_code != 200:
                return f"is not made a customer: {made.status_code}"
            waiting.append(str(made.json()["id"]))
            price = self._chance.choice(self._house.terms.prices)
            answer = await self._house.ask(
                "POST", "/v1/subscriptions", customer=waiting[0], **{"items[0][price]": price}
            )
            return f"is subscribed to {price} as nobody's {waiting[0]}: {answer.status_code}"
        payer = waiting[0]
        running = [one for one in self._house.simulator.world.store.subscriptions_of(payer) if not one.ended]
        at_subscription = bool(running) and self._chance.random() < 0.4
        where = f"/v1/subscriptions/{running[0].id}" if at_subscription else f"/v1/customers/{payer}"
        status = await self._claim(where, name)
        if status == 200:
            waiting.clear()
        return f"says by {where} that {payer} is theirs: {status}"

    async def _is_claimed_by_another(self, name: str) -> str:
        """Only where the gateway surely knows whose it is: the first who is named keeps it."""
        payer, others = self._lives.payer(name), [one for one in self._lives.names if one != name]
        if payer is None or not others or not self._lives.seen.is_linked(payer):
            return "is claimed by nobody"
        other, running = self._chance.choice(others), self._lives.running(name)
        way = self._chance.choice(["session", "session", "customer", "subscription"])
        if way == "session":
            return f"{payer} buys for {other}: {await self._lives.buy_at_the_merchants(other, customer=payer)}"
        mine = [one for one in running if one.customer == payer]
        if way == "subscription" and mine:
            return f"{mine[0].id} names {other}: {await self._claim(f'/v1/subscriptions/{mine[0].id}', other)}"
        return f"{payer} names {other}: {await self._claim(f'/v1/customers/{payer}', other)}"

    async def _claim(self, path: str, name: str) -> int:
        return (await self._house.ask("POST", path, **{f"metadata[{CLAIM_KEY}]": name})).status_code

    async def _has_a_status_that_is_news(self, name: str) -> str:
        subscription = self._lives.some(name)
        if subscription is None:
            return "has nothing whose status could be news"
        before = subscription.metadata.get(ODD)
        # Noted on it, so that there is an event that says so, and an old answer has the status of its time.
        word = "" if before else self._chance.choice(_NEWS)
        answer = await self._house.ask("POST", f"/v1/subscriptions/{subscription.id}", **{f"metadata[{ODD}]": word})
        now = subscription.metadata.get(ODD)
        if now == before:
            return f"keeps the status of {subscription.id}: {answer.status_code}"
        self._house.chronicle.odd(subscription, is_odd=bool(now))
        return f"{subscription.id} is {now or 'back to a status that is known'}"

    async def _is_deleted(self, name: str) -> str:
        payer = self._lives.payer(name)
        if payer is None or self._chance.random() < 0.5:
            return "stays on record"
        store = self._house.simulator.world.store
        before = len(store.events)
        answer = await self._house.ask("DELETE", f"/v1/customers/{payer}")
        if self._chance.random() < 0.5:
            return f"{payer} is deleted: {answer.status_code}"
        # Whether Stripe then tells of each subscription, too, it does not say: here it doesn't.
        unsaid = [event for event in [*store.events.values()][before:] if event.type != "customer.deleted"]
        for event in unsaid:
            del store.events[event.id]
        self._house.mail[:] = [event for event in self._house.mail if event not in unsaid]
        return f"{payer} is deleted, and nothing else is said: {answer.status_code}"

    async def _finds_a_lookup_key_moved(self, _name: str) -> str:
        """The merchant raises a price: a new one takes the lookup key, and who pays the old one keeps their tier."""
        terms, store = self._house.terms, self._house.simulator.world.store
        keys = {key: rank for rank, tier in enumerate(terms.tiers) for key in tier.lookup_keys}
        if self._keys_moved or not keys:
            return "finds every price as it was"
        key = self._chance.choice(sorted(keys))
        holder = store.price_with_key(key)
        if holder is None:
            return f"finds no price under {key}"
        form = {
            "product": holder.product,
            "currency": holder.currency,
            "unit_amount": str(holder.unit_amount + 100),
            "recurring[interval]": "month",
            "lookup_key": key,
            "transfer_lookup_key": "true",
        }
        answer = await self._house.ask("POST", "/v1/prices", **form)
        heir = store.price_with_key(key)
        if heir is not None and heir is not holder:  # an answer that was lost says nothing of it
            # Once in a world: a price that held the key between two looks at the catalogue was never seen under it.
            self._keys_moved = True
            self._house.chronicle.oracle.is_worth(heir.id, keys[key], terms.tiers[keys[key]].past_due_grace)
            self._lives.sell(heir.id)
        return f"finds {key} moved away from {holder.id}: {answer.status_code}"


def house_shows_no_keys(shape: Shape) -> bool:
    """Plans, as they were before prices, have no lookup keys."""
    return shape == "period on the subscription"
