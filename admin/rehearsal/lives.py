"""What people and merchants do to subscriptions, at random: buy, upgrade, fall behind, pay, cancel, change their mind.

It decides nothing about what is right. Everything is done where they would do it: at the product's checkout, on the
simulated pages, and by the merchant's own calls to Stripe. What Stripe refuses is no mistake: people try such things.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from admin.rehearsal.house import BASE, DAY, HOUR, House
from admin.rehearsal.money_back import MoneyBack
from admin.rehearsal.rare import Rare
from admin.stripe.objects import CLAIM_KEY
from admin.stripe.results import CheckoutUrl

if TYPE_CHECKING:
    from admin.rehearsal.seen import Seen
    from admin.simulator.entities import Invoice, Subscription

MOST_RUNNING: Final = 3
_PAGE: Final = f"{BASE}/back"


class Lives:
    """Several customers of one house. `said` is the diary, for whoever has to understand what went wrong."""

    def __init__(self, house: House, names: tuple[str, ...], chance: random.Random, seen: Seen) -> None:
        self.house = self._house = house
        self.chance = self._chance = chance
        self.seen = seen
        self._prices = [*house.terms.prices]
        self.names = names
        self.said: list[str] = []
        self.payers: dict[str, list[str]] = {name: [] for name in names}
        """Whose each Stripe customer is, as the world knows it."""
        self._deeds: tuple[tuple[int, Callable[[str], Awaitable[str]]], ...] = (
            (6, self._buy_here),
            (3, self._merchant_subscribes),
            (2, self._buys_at_the_merchants),
            (4, self._plans_an_end),
            (3, self._changes_plan),
            (4, self._card_changes),
            (4, self._settles_a_bill),
            (2, self._pauses_or_resumes),
            (2, self._collection_is_paused),
            (2, self._cancels),
            (1, self._trial_moves),
            (1, self._dashboard_changes),
            (3, self._lives_on),
            *Rare(self).deeds,
            *MoneyBack(self).deeds,
        )

    def sell(self, price: str) -> None:
        """There is one more price to buy at."""
        self._prices.append(price)

    async def step(self, name: str) -> None:
        """One thing in the life of `name`."""
        deed = self._chance.choices([deed for _, deed in self._deeds], [weight for weight, _ in self._deeds])[0]
        told = await deed(name)
        self.said.append(f"{self._house.clock():.0f} {name}: {told}")
        self.adopt()
        self._house.chronicle.keep()

    def adopt(self) -> None:
        """Note whose each Stripe customer is that was nobody's: its own metadata or a subscription's, or its session's."""
        store = self._house.simulator.world.store
        known = {payer for payers in self.payers.values() for payer in payers}
        claims = {one.customer: one.client_reference_id for one in store.sessions.values() if one.status == "complete"}
        for one in store.subscriptions.values():
            claims.setdefault(one.customer, one.metadata.get(CLAIM_KEY))
        for customer in store.customers.values():
            owner = customer.metadata.get(CLAIM_KEY) or claims.get(customer.id)
            if customer.id not in known and owner in self.payers:
                self.payers[owner].append(customer.id)
                self.seen.claimed(customer.id)

    # What there is

    def running(self, name: str) -> list[Subscription]:
        """What they have that has not ended."""
        store = self._house.simulator.world.store
        return [one for payer in self.payers[name] for one in store.subscriptions_of(payer) if not one.ended]

    def some(self, name: str) -> Subscription | None:
        """Something that they have, if anything."""
        running = self.running(name)
        return self._chance.choice(running) if running else None

    def ends_in_debt(self, name: str) -> bool:
        """Whether something of theirs has a planned end and an unpaid bill: the next look at them may come too late."""
        return any(one.status == "past_due" and one.cancel_at is not None for one in self.running(name))

    def payer(self, name: str) -> str | None:
        """One of their Stripe customers that is still there."""
        store = self._house.simulator.world.store
        living = [payer for payer in self.payers[name] if not store.customers[payer].deleted]
        return self._chance.choice(living) if living else None

    def _bills(self, name: str) -> list[Invoice]:
        store = self._house.simulator.world.store
        return [one for one in store.invoices.values() if one.customer in self.payers[name] and one.status == "open"]

    # Deeds

    async def _buy_here(self, name: str) -> str:
        house = self._house
        tier = self._chance.choice(house.terms.on_sale)
        outcome = await house.desk.open_checkout(
            name, tier, success_url=f"{BASE}/ok?s={{CHECKOUT_SESSION_ID}}", return_url=_PAGE
        )
        if not isinstance(outcome, CheckoutUrl):
            return f"wants {tier}: {type(outcome).__name__}"
        page = urlsplit(outcome.url).path
        if self._chance.random() < 0.2:
            return f"wants {tier}, is shown {outcome.kind} and leaves"
        if outcome.kind == "portal":
            answer = await house.ask("POST", f"{page}/confirm")
        else:
            card = self._chance.choice(["works", "works", "works", "declined", "fails_later"])
            answer = await house.ask("POST", page, card=card)
        if outcome.kind == "checkout" and answer.status_code == 303 and self._chance.random() < 0.3:
            await house.returns.settle_session(page.rsplit("/", 1)[1])
        return f"buys {tier} by {outcome.kind}: {answer.status_code}"

    async def payer_with_room(self, name: str) -> str | None:
        """A Stripe customer of theirs for one more subscription, known or new; None where they have enough."""
        if len(self.running(name)) >= MOST_RUNNING:
            return None
        payer = self.payer(name)
        if payer is None or self._chance.random() < 0.2:
            made = await self._house.ask("POST", "/v1/customers", **{f"metadata[{CLAIM_KEY}]": name})
            if made.status_code != 200:
                return None
            payer = str(made.json()["id"])
            self.adopt()
        return payer

    async def _merchant_subscribes(self, name: str) -> str:
        house, payer = self._house, await self.payer_with_room(name)
        if payer is None:
            return "has enough"
        price = self._chance.choice(self._prices)
        soon = int(house.clock()) + self._chance.choice([3 * DAY, 45 * DAY, 365 * DAY])
        extra_price = house.terms.extra
        extras: list[dict[str, str]] = [
            {},
            {},
            {"trial_period_days": "5"},
            {"trial_period_days": "3", "trial_settings[end_behavior][missing_payment_method]": "pause"},
            {"payment_behavior": "default_incomplete"},
            {"collection_method": "send_invoice", "days_until_due": self._chance.choice(["7", "30"])},
            {"cancel_at": str(soon)},
            {"items[1][price]": extra_price},
            {"items[1][price]": self._chance.choice([one for one in self._prices if one != price] or [extra_price])},
            {"items[0][quantity]": "0", "items[1][price]": extra_price},
        ]
        extra = self._chance.choice(extras)
        answer = await house.ask("POST", "/v1/subscriptions", **{"customer": payer, "items[0][price]": price, **extra})
        return f"is subscribed to {price} {extra}: {answer.status_code}"

    async def _buys_at_the_merchants(self, name: str) -> str:
        if len(self.running(name)) >= MOST_RUNNING:
            return "has enough"
        return f"buys at the merchant's own page: {await self.buy_at_the_merchants(name)}"

    async def buy_at_the_merchants(self, name: str, **who: str) -> int:
        """Something, on a page that says whom it is for; how that ended."""
        made = await self._house.ask(
            "POST",
            "/v1/checkout/sessions",
            **{
                "mode": "subscription",
                "client_reference_id": name,
                "line_items[0][price]": self._chance.choice(self._prices),
                "line_items[0][quantity]": "1",
                "success_url": f"{BASE}/thanks",
                **who,
            },
        )
        if made.status_code != 200:
            return made.status_code
        card = self._chance.choice(["works", "fails_later"])
        return (await self._house.ask("POST", urlsplit(made.json()["url"]).path, card=card)).status_code

    async def _plans_an_end(self, name: str) -> str:
        subscription = self.some(name)
        if subscription is None:
            return "has nothing to cancel"
        # Whoever can't pay is likely to end it, and soon: that is when grace and a planned end meet.
        behind = [one for one in self.running(name) if one.status == "past_due"]
        if behind:
            subscription = behind[0]
        soon = int(self._house.clock()) + self._chance.choice(
            [HOUR, DAY, 2 * DAY, 10 * DAY] if behind else [HOUR, 10 * DAY, 40 * DAY, 365 * DAY]
        )
        wish = self._chance.choice(
            [{"cancel_at_period_end": "true"}, {"cancel_at_period_end": "false"}, {"cancel_at": str(soon)}, {"cancel_at": ""}]
        )  # fmt: skip
        answer = await self._house.ask("POST", f"/v1/subscriptions/{subscription.id}", **wish)
        return f"plans {subscription.id} {wish}: {answer.status_code}"

    async def _changes_plan(self, name: str) -> str:
        subscription = self.some(name)
        if subscription is None:
            return "has nothing to change"
        change = self._chance.choice(
            [
                {"items[0][price]": self._chance.choice(self._prices)},
                {"items[0][price]": self._chance.choice(self._prices)},
                {"items[0][quantity]": self._chance.choice(["0", "1", "5"])},
            ]
        )
        how = {
            "items[0][id]": subscription.items[0].id,
            "proration_behavior": self._chance.choice(["none", "create_prorations", "always_invoice"]),
            "payment_behavior": self._chance.choice(
                ["allow_incomplete", "pending_if_incomplete", "error_if_incomplete"]
            ),
        }
        answer = await self._house.ask("POST", f"/v1/subscriptions/{subscription.id}", **change, **how)
        return f"changes {subscription.id} {change}: {answer.status_code}"

    async def _card_changes(self, name: str) -> str:
        payer = self.payer(name)
        if payer is None:
            return "has no card"
        card = self._chance.choice(["works", "fails", "fails", "none"])
        await self._house.ask("POST", f"/_sim/customers/{payer}/card", card=card)
        return f"card {card}"

    async def _settles_a_bill(self, name: str) -> str:
        bills = self._bills(name)
        if not bills:
            return "owes nothing"
        bill = self._chance.choice([bills[0], bills[-1]])
        way = self._chance.choice(["page", "page", "pay", "void", "mark_uncollectible"])
        if way == "page":
            answer = await self._house.ask("POST", f"/i/{bill.id}", card="works")
        else:
            answer = await self._house.ask("POST", f"/v1/invoices/{bill.id}/{way}")
        return f"bill {bill.id} {way}: {answer.status_code}"

    async def _pauses_or_resumes(self, name: str) -> str:
        subscription = self.some(name)
        if subscription is None:
            return "has nothing to pause"
        what = "resume" if subscription.status == "paused" else "pause"
        how = {"payment_behavior": self._chance.choice(["resume_on_payment_success", "resume_on_payment_attempt"])}
        answer = await self._house.ask(
            "POST", f"/v1/subscriptions/{subscription.id}/{what}", **(how if what == "resume" else {})
        )
        return f"{what}s {subscription.id}: {answer.status_code}"

    async def _collection_is_paused(self, name: str) -> str:
        subscription = self.some(name)
        if subscription is None:
            return "has nothing that is collected"
        behaviors = ("keep_as_draft", "void", "void", "mark_uncollectible")
        wish = self._chance.choice(
            [*({"pause_collection[behavior]": one} for one in behaviors), {"pause_collection": ""}]
        )
        answer = await self._house.ask("POST", f"/v1/subscriptions/{subscription.id}", **wish)
        return f"collection of {subscription.id} {wish}: {answer.status_code}"

    async def _cancels(self, name: str) -> str:
        subscription = self.some(name)
        if subscription is None:
            return "has nothing to end"
        answer = await self._house.ask("DELETE", f"/v1/subscriptions/{subscription.id}")
        return f"ends {subscription.id}: {answer.status_code}"

    async def _trial_moves(self, name: str) -> str:
        subscription = next((one for one in self.running(name) if one.status == "trialing"), None)
        if subscription is None:
            return "is not trying anything"
        until = self._chance.choice(["now", str(int(self._house.clock()) + 9 * DAY)])
        answer = await self._house.ask("POST", f"/v1/subscriptions/{subscription.id}", trial_end=until)
        return f"trial of {subscription.id} until {until}: {answer.status_code}"

    async def _dashboard_changes(self, _name: str) -> str:
        final = self._chance.choice(["canceled", "unpaid", "past_due", "paused"])
        await self._house.ask("POST", "/_sim/settings", after_final_failure=final)
        return f"sees: after the last retry comes {final}"

    async def _lives_on(self, _name: str) -> str:
        return "lives on"
