"""Anything in any order: whatever is done to the simulator, its books stay consistent and its events tell all of it."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from admin.simulator import Offer, Simulator
from admin.simulator.entities import CARDS, STATUSES
from admin.simulator.entitlements import ENTITLING
from tests.support.simulator import OFFERS
from tests.support.stripe_types import disagreements

PRICES = ("price_pro_monthly", "price_pro_yearly", "price_ent", "price_daily")
STEPS = 250


class Driver:
    """Sends random requests, most of them sensible."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_800_000_000.0
        self.simulator = Simulator(wall_clock=lambda: self.now, public_base="http://sim.test")
        self.simulator.seed([*OFFERS, Offer("price_daily", "Daily", 100, interval="day")])
        transport = httpx.ASGITransport(self.simulator.asgi)
        self.http = httpx.AsyncClient(
            transport=transport, base_url="http://sim.test", headers={"Authorization": "Bearer sk_test_simulator"}
        )

    def one_of(self, table: dict[str, Any]) -> str:
        return self.random.choice([*table, "nothing"])

    async def step(self) -> httpx.Response:
        store, choose = self.simulator.world.store, self.random.choice
        customer, subscription = self.one_of(store.customers), self.one_of(store.subscriptions)
        invoice, session = self.one_of(store.invoices), self.one_of(store.sessions)
        items = store.subscriptions[subscription].items if subscription in store.subscriptions else []
        item = self.random.choice(items).id if items else "si_nothing"
        flag = choose(["true", "false"])
        behavior = {"payment_behavior": choose(["allow_incomplete", "pending_if_incomplete", "error_if_incomplete"])}
        proration = {"proration_behavior": choose(["none", "create_prorations", "always_invoice"])}
        soon = str(int(self.simulator.now()) + self.random.randrange(1, 90 * 86400))
        price, portal = choose(PRICES), self.one_of(store.portal_sessions)
        charge, dispute, product = self.one_of(store.charges), self.one_of(store.disputes), self.one_of(store.products)
        line = {"mode": "subscription", "line_items[0][price]": price, "line_items[0][quantity]": "1"}
        actions: list[tuple[str, str, dict[str, str]]] = [
            ("POST", "/v1/customers", {"name": str(self.random.random())}),
            ("POST", "/v1/subscriptions", {"customer": customer, "items[0][price]": price}),
            ("POST", "/v1/subscriptions", {"customer": customer, "items[0][price]": price, "trial_period_days": "5"}),
            ("POST", "/v1/checkout/sessions", {**line, "success_url": "http://x.test/", "customer": customer}),
            ("POST", "/v1/checkout/sessions", {**line, "success_url": "http://x.test/"}),
            (
                "POST",
                f"/c/pay/{session}",
                {"card": choose(["works", "declined", "fails_later", "debit", "debit_bounces"])},
            ),
            ("POST", f"/v1/checkout/sessions/{session}/expire", {}),
            ("POST", f"/v1/subscriptions/{subscription}", {"cancel_at_period_end": flag}),
            ("POST", f"/v1/subscriptions/{subscription}", {"cancel_at": choose([soon, ""])}),
            ("POST", f"/v1/subscriptions/{subscription}", {"trial_end": choose([soon, "now"])}),
            (
                "POST",
                f"/v1/subscriptions/{subscription}",
                {"items[0][id]": item, "items[0][price]": price, **behavior, **proration},
            ),
            ("POST", f"/v1/subscriptions/{subscription}", {"items[0][price]": price, **behavior, **proration}),
            ("POST", f"/v1/subscriptions/{subscription}", {"items[0][id]": item, "items[0][deleted]": "true"}),
            (
                "POST",
                f"/v1/subscriptions/{subscription}",
                {"pause_collection[behavior]": choose(["void", "keep_as_draft"])},
            ),
            ("POST", f"/v1/subscriptions/{subscription}", {"pause_collection": "", "metadata[a]": flag}),
            ("POST", f"/v1/subscriptions/{subscription}/pause", {}),
            ("POST", f"/v1/subscriptions/{subscription}/resume", {}),
            ("DELETE", f"/v1/subscriptions/{subscription}", {}),
            ("POST", f"/v1/invoices/{invoice}/{choose(['pay', 'void', 'finalize', 'mark_uncollectible'])}", {}),
            ("POST", f"/i/{invoice}", {"card": choose(["works", "declined"])}),
            ("POST", "/v1/billing_portal/sessions", {"customer": customer}),
            (
                "POST",
                f"/p/session/{portal}/{choose(['cancel', 'resume', 'card', 'update'])}",
                {"subscription": subscription},
            ),
            ("POST", f"/_sim/customers/{customer}/card", {"card": choose(CARDS)}),
            ("POST", "/_sim/settings", {"after_final_failure": choose(["canceled", "unpaid", "past_due", "paused"])}),
            ("POST", f"/_sim/subscriptions/{subscription}/auto_renew", {"enabled": flag}),
            ("POST", "/_sim/refunds", {"charge": charge, **choose([{}, {"amount": "100"}])}),
            (
                "POST",
                "/_sim/disputes",
                {"charge": charge, "status": choose(["needs_response", "warning_needs_response"])},
            ),
            ("POST", f"/_sim/disputes/{dispute}/close", {"status": choose(["won", "lost", "warning_closed"])}),
            ("POST", f"/_sim/products/{product}/features", {"lookup_key": choose(["a", "b"]), "attached": flag}),
            ("GET", f"/customers/{customer}", {}),
            ("GET", f"/p/session/{portal}", {}),
            ("GET", f"/i/{invoice}", {}),
            ("GET", "/", {}),
        ]
        if self.random.random() < 0.02:
            actions = [("DELETE", f"/v1/customers/{customer}", {})]
        if self.random.random() < 0.25:
            days = choose(["0.1", "1", "3", "31"])
            actions = [("POST", "/_sim/clock/advance", {"days": days})]
        method, path, data = choose(actions)
        return await self.http.request(method, path, data=data if method == "POST" else None)


def newest_events(simulator: Simulator) -> dict[str, tuple[str, dict[str, Any]]]:
    """For each object, what the last event about it said."""
    return {str(event.object.get("id")): (event.type, event.object) for event in simulator.world.store.events.values()}


def check(simulator: Simulator) -> None:
    store, now = simulator.world.store, simulator.now()
    schedule = simulator.world.schedule
    left = [one.id for one in schedule._all() if (due := schedule._due_at(one)) is not None and due <= now]
    assert left == [], "something was due and nobody noticed"
    said = newest_events(simulator)
    for subscription in store.subscriptions.values():
        assert subscription.status in STATUSES
        assert (subscription.ended_at is not None) == (subscription.status == "canceled")
        assert subscription.items
        if subscription.status in ("active", "trialing", "past_due", "unpaid"):
            assert all(item.period_start <= now < item.period_end for item in subscription.items)
            assert subscription.cancel_at is None or subscription.cancel_at > now
        if subscription.id in said:
            kind, shown = said[subscription.id]
            assert shown == simulator.world.journal.render(subscription), f"a change went by unsaid since {kind}"
    for invoice in store.invoices.values():
        assert invoice.amount_due >= 0
        assert (invoice.number is None) == (invoice.status == "draft")
        assert (invoice.paid_at is not None) == (invoice.status == "paid")
        assert invoice.next_payment_attempt is None or invoice.status == "open"
        assert invoice.settles_at is None or (invoice.status == "open" and invoice.settles_at > now)
        if invoice.id in said:
            kind, shown = said[invoice.id]
            assert shown["status"] == invoice.status, f"a change went by unsaid since {kind}"
    for charge in store.charges.values():
        assert 0 <= charge.amount_refunded <= (charge.amount if charge.status == "succeeded" else 0)
    for customer in {one.customer for one in store.entitlements.values()}:
        assert any(one.status in ENTITLING for one in store.subscriptions_of(customer)), "entitled by nothing"
    for session in store.sessions.values():
        assert (session.subscription is not None) == (session.status == "complete")
        assert session.status != "open" or session.expires_at > now
    created = [event.created for event in store.events.values()]
    assert created == sorted(created), "events are told in the order in which they happened"


@pytest.mark.parametrize("seed", range(8))
async def test_the_books_stay_consistent_whatever_is_done_in_whatever_order(seed: int) -> None:
    driver = Driver(seed)
    done = 0
    async with driver.http:
        for _ in range(STEPS):
            answer = await driver.step()
            assert answer.status_code < 500, answer.text
            done += answer.status_code < 400
            check(driver.simulator)
    told = {
        problem for event in driver.simulator.world.store.events.values() for problem in disagreements(event.object, "")
    }
    assert told == set()
    assert done > STEPS / 5, "most of what was tried was refused, so little was tried"
