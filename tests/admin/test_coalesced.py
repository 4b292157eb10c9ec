"""One renewal is five to eight events, and one look or two: counted at Stripe, through the endpoint and the worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import stripe as sdk

from admin.stripe.envelope import concerns_a_customer
from admin.stripe.sync import CustomerSync, SyncOutcome
from admin.stripe.webhook import WebhookReceiver
from tests.support.counted_stripe import CountedStripe
from tests.support.house import House, house, token_for
from tests.support.simulator import WEBHOOK_SECRET

LOOK = {"/v1/customers/{id}": 1, "/v1/subscriptions": 1}
"""What one look asks."""


@pytest.fixture
def stripe() -> CountedStripe:
    return CountedStripe()


@pytest.fixture
async def at(tmp_path: Path, stripe: CountedStripe, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A gateway that webhooks reach only when a test delivers them, and that tries inline for as long as a test holds it."""
    defaults = WebhookReceiver.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "inline_seconds", 60.0)
    async with house(tmp_path, webhooks=False, on_the_way=stripe.before) as found:
        yield found


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whoever has asked for a look so far, begun or not."""
    asked: list[str] = []
    real = CustomerSync.sync_customer

    async def noted(self: CustomerSync, stripe_customer: str, *rest: Any) -> SyncOutcome:
        asked.append(stripe_customer)
        return await real(self, stripe_customer, *rest)

    monkeypatch.setattr(CustomerSync, "sync_customer", noted)
    return asked


async def events_since(one: House, known: set[str]) -> list[dict[str, Any]]:
    """What Stripe has to tell, oldest first."""
    listed = await one.http.get(f"{one.stripe}/v1/events", params={"limit": 100}, auth=("sk_test_simulator", ""))
    return [event for event in listed.json()["data"][::-1] if event["id"] not in known]


async def renewal(one: House) -> list[dict[str, Any]]:
    """Alice has bought, a month has passed and was paid: every event of that."""
    await one.buy("alice")
    known = {event["id"] for event in await events_since(one, set())}
    await one.steer("clock/advance", days=31, hours=2)
    events = await events_since(one, known)
    types = [event["type"] for event in events]
    assert {"customer.subscription.updated", "invoice.created", "invoice.paid"} <= set(types)
    assert 5 <= len([one for one in types if concerns_a_customer(one)]) <= 8, types
    return events


def thin(event: dict[str, Any]) -> dict[str, Any]:
    about = event["data"]["object"]
    return {
        "object": "v2.core.event",
        "id": f"{event['id']}_thin",
        "type": f"v1.{event['type']}",
        "created": "2026-11-01T00:00:00.000Z",
        "livemode": False,
        "related_object": {"id": about["id"], "type": about["object"], "url": f"/v1/x/{about['id']}"},
    }


async def deliver(one: House, event: dict[str, Any]) -> str:
    """What the endpoint says became of it."""
    body = json.dumps(event)
    header = sdk.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET, timestamp=int(time.time()))
    answer = await one.post("/_gateway/stripe/webhook", content=body, headers={"Stripe-Signature": header})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["outcome"])


async def until(happened: Any) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 -- nobody announces it
            await asyncio.sleep(0.005)


def fates(one: House) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(one.ledger)) as connection:
        return dict(connection.execute("SELECT event_id, status FROM inbox").fetchall())


@pytest.mark.parametrize("wire", ["snapshot", "thin"])
async def test_the_events_of_a_renewal_that_come_at_once_are_one_look_and_one_that_began_after_the_last_of_them(
    at: House, stripe: CountedStripe, looking: list[str], wire: str
) -> None:
    events = [event if wire == "snapshot" else thin(event) for event in await renewal(at)]
    concerned = [event for event in events if concerns_a_customer(event["type"].removeprefix("v1."))]
    objects = {event["related_object"]["id"] for event in concerned} if wire == "thin" else set()
    looking.clear()
    stripe.calls.clear()
    stripe.to_hold = 1
    posted = [asyncio.create_task(deliver(at, event)) for event in events]
    await stripe.until_held(1)
    await until(lambda: len(looking) == len(concerned))  # all of them have come, and the first look is under way
    stripe.held[0].set()
    outcomes = await asyncio.gather(*posted)
    assert set(outcomes) <= {"processed", "ignored"}
    asked = {path: count for path, count in stripe.calls.items() if path in LOOK}
    assert asked == dict.fromkeys(LOOK, 2)
    # What is sold is asked for in the background, at its own time.
    about_them = sum(count for path, count in stripe.calls.items() if not path.startswith("/v1/prices"))
    assert about_them == 4 + len(objects), "a thin event's object is asked for once, however many name it"
    assert {fates(at)[event["id"]] for event in concerned} == {"done"}
    assert (await at.get("/pro/x", token_for("alice"))).status_code == 200


async def test_an_event_that_comes_during_a_look_is_answered_by_one_that_begins_after_it(
    at: House, stripe: CountedStripe, looking: list[str]
) -> None:
    """However they are spread: one under way, one behind it, and the last event has been seen."""
    first, *others = [event for event in await renewal(at) if concerns_a_customer(event["type"])]
    [subscription] = {event["data"]["object"]["id"] for event in others if "subscription" in event["type"]}
    known = {event["id"] for event in await events_since(at, set())}
    looking.clear()
    stripe.calls.clear()
    stripe.to_hold = 2
    begun = asyncio.create_task(deliver(at, first))
    await stripe.until_held(1)  # and has its answer, from before what follows
    later = []
    for count, event in enumerate(others, 2):
        later.append(asyncio.create_task(deliver(at, event)))
        await until(lambda count=count: len(looking) == count)
    changed = await at.http.post(
        f"{at.stripe}/v1/subscriptions/{subscription}",
        data={"items[0][price]": "price_ent", "proration_behavior": "none"},
        auth=("sk_test_simulator", ""),
    )
    assert changed.is_success, changed.text
    last = next(one for one in await events_since(at, known) if one["type"] == "customer.subscription.updated")
    later.append(asyncio.create_task(deliver(at, last)))
    await until(lambda: len(looking) == len(others) + 2)

    stripe.held[0].set()
    assert await begun == "processed"
    await stripe.until_held(2)
    fate = fates(at)
    assert fate[first["id"]] == "done"
    assert {fate[one["id"]] for one in (*others, last)} == {"pending"}, "that look began before any of these"
    assert (await at.get("/_gateway/me", token_for("alice"))).json()["tier"] == "pro"

    stripe.held[1].set()
    assert set(await asyncio.gather(*later)) == {"processed"}
    assert set(fates(at).values()) == {"done"}
    assert {path: count for path, count in stripe.calls.items() if path in LOOK} == dict.fromkeys(LOOK, 2)
    assert (await at.get("/_gateway/me", token_for("alice"))).json()["tier"] == "enterprise"


async def test_a_cancellation_does_not_wait_behind_the_look_that_is_under_way(
    at: House, stripe: CountedStripe, looking: list[str]
) -> None:
    events = [event for event in await renewal(at) if concerns_a_customer(event["type"])]
    [subscription] = {event["data"]["object"]["id"] for event in events if "subscription" in event["type"]}
    known = {event["id"] for event in await events_since(at, set())}
    looking.clear()
    stripe.calls.clear()
    stripe.to_hold = 1
    before = [asyncio.create_task(deliver(at, event)) for event in events]
    await stripe.until_held(1)
    await until(lambda: len(looking) == len(events))
    ended = await at.http.delete(f"{at.stripe}/v1/subscriptions/{subscription}", auth=("sk_test_simulator", ""))
    assert ended.is_success, ended.text
    last = next(one for one in await events_since(at, known) if one["type"] == "customer.subscription.deleted")
    assert await deliver(at, last) == "processed"
    assert (await at.get("/pro/x", token_for("alice"))).status_code == 402
    stripe.held[0].set()  # with the answer from before the cancellation
    assert set(await asyncio.gather(*before)) <= {"processed", "pending"}
    assert set(fates(at).values()) == {"done"}
    assert stripe.calls["/v1/subscriptions"] <= 3
    assert (await at.get("/pro/x", token_for("alice"))).status_code == 402
