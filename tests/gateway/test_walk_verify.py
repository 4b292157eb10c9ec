"""Verify before refusing: where Stripe may know better than the facts, it is asked once before a 402 goes out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.app import Verification
from tests.support.house import house, token_for

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


def reason(answer: httpx.Response) -> str:
    return str(answer.headers["x-gateway-reason"])


async def test_a_renewal_that_no_webhook_told_of_is_found_by_looking(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False) as one:
        await one.buy("alice")
        assert (await one.get("/pro/x", token_for())).status_code == 200
        await one.steer("clock/advance", days=40)  # past the period and its leeway, and renewed at Stripe
        answer = await one.get("/pro/x", token_for())
        assert answer.status_code == 200, answer.text
        assert one.seen("x-gateway-status") == ["active"]


async def test_a_payment_that_no_webhook_told_of_is_found_by_looking(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False) as one:
        token = token_for()
        assert (await one.get("/pro/x", token)).status_code == 402
        opened = await one.post("/_gateway/checkout", token, json={"tier": "pro"})
        paid = await one.http.post(opened.json()["url"], data={"card": "works"})
        assert paid.status_code == 303
        # The browser never came back; the open session is the reason to look.
        assert (await one.until(200, "/pro/x", token)).status_code == 200


async def test_whoever_was_paying_is_not_asked_for_money_while_stripe_is_silent(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False) as one:
        await one.buy("alice")
        await one.steer("faults", api="500", count=1000)
        await one.steer("clock/advance", days=40)
        answer = await one.get("/pro/x", token_for())
        assert (answer.status_code, reason(answer)) == (503, "entitlement_unavailable")
        assert answer.headers["retry-after"]
        assert "pay_url" not in answer.json()
        line = await one.logged(answer.headers["x-request-id"])
        assert (line["customer"], line["tier"]) == ("alice", None)  # who is left with the free tier nobody can say


async def test_whoever_had_planned_to_end_is_asked_at_once_and_for_certain(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False) as one:
        await one.buy("alice")
        assert one.simulator is not None
        subscription = next(iter(one.simulator.world.store.subscriptions))
        await one.steer(f"subscriptions/{subscription}/auto_renew", enabled=False)
        synced = await one.operate("POST", "/api/sync/alice")
        assert synced.status_code == 200, synced.text
        await one.until(200, "/pro/x", token_for())
        await one.steer("faults", api="500", count=1000)
        await one.steer("clock/advance", days=32)
        answer = await one.get("/pro/x", token_for())
        assert (answer.status_code, reason(answer)) == (402, "subscription_expired")
        assert answer.json()["current"]["status"] == "expired"
        assert 'title="Subscribe again"' in answer.headers["link"]


async def test_a_refusal_that_nothing_contradicts_calls_nobody(tmp_path: Path) -> None:
    asked: list[str] = []
    async with house(tmp_path, webhooks=False) as one:
        gateway = one.process.gateway
        verify = gateway._verify_now

        async def watched(customer: str) -> Verification:
            asked.append(customer)
            return await verify(customer)

        gateway._verify_now = watched
        for _ in range(3):
            assert (await one.get("/pro/x", token_for())).status_code == 402
        await one.buy("alice")
        assert (await one.get("/pro/x", token_for())).status_code == 200
        assert (await one.get("/ent", token_for())).status_code == 402
        assert asked == []
        await one.post("/_gateway/checkout", token_for("bob"), json={"tier": "pro"})
        await one.until(402, "/pro/x", token_for("bob"))
        async with asyncio.timeout(5):
            while "bob" not in asked:  # once the gateway has heard that a session is open
                await one.get("/pro/x", token_for("bob"))


async def test_a_failed_payment_is_named_once_its_grace_is_over(tmp_path: Path) -> None:
    async with house(tmp_path, webhooks=False) as one:
        await one.buy("alice")
        assert one.simulator is not None
        for customer in one.simulator.world.store.customers:
            await one.steer(f"customers/{customer}/card", card="fails")
        await one.steer("clock/advance", days=31)
        assert (await one.operate("POST", "/api/sync/alice")).status_code == 200
        await one.until(200, "/pro/x", token_for())
        assert one.seen("x-gateway-status") == ["past_due"]
        await one.steer("clock/advance", days=4)
        answer = await one.get("/pro/x", token_for())
        assert (answer.status_code, reason(answer)) == (402, "payment_failed")
        assert 'title="Pay the open invoice"' in answer.headers["link"]
        pressed = await one.post(answer.json()["pay_url"].removeprefix(one.api))
        assert pressed.status_code == 303
        assert "/i/" in pressed.headers["location"], "the open invoice, not a second subscription"
