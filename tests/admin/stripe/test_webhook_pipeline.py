"""From Stripe's delivery to what the customer may do: any order, repetition or loss ends in Stripe's truth (P6)."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest
import stripe

from admin.ledger.inbox import InboxEvent
from admin.ledger.pair import Pair
from admin.stripe.envelope import Envelope, read_envelope
from admin.stripe.webhook import Reception, WebhookReceiver, inbox_event
from tests.admin.stripe.conftest import BACK, SUCCESS, Delivery, Shop
from tests.support.simulator import WEBHOOK_SECRET

DAY = 86_400


def signed(event: Any, secret: str = WEBHOOK_SECRET, at: float | None = None) -> Delivery:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    moment = int(time.time() if at is None else at)
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=moment)
    return Delivery(body, str(header))


def thin(delivery: Delivery, **fields: Any) -> Delivery:
    """The thin twin of a snapshot."""
    event = delivery.event
    about = event["data"]["object"]
    return signed(
        {
            "object": "v2.core.event",
            "id": f"{event['id']}_thin",
            "type": f"v1.{event['type']}",
            "created": "2026-11-01T00:00:00.000Z",
            "livemode": event["livemode"],
            "related_object": {"id": about["id"], "type": about["object"], "url": f"/v1/x/{about['id']}"},
            **fields,
        }
    )


async def test_a_purchase_gives_access_with_its_first_event(shop: Shop) -> None:
    await shop.subscribe("alice")
    first = (await shop.mail())[0]
    verdict = await shop.receive(first)
    assert (verdict.status, verdict.reception) == (200, Reception.PROCESSED)
    assert await shop.tier("alice") == "pro"
    assert set(shop.published) == {"alice"}


async def test_events_in_any_order_end_in_what_stripe_says(shop: Shop) -> None:
    _, subscription = await shop.subscribe("alice")
    await shop.client.v1.subscriptions.update_async(subscription, {"cancel_at_period_end": True})
    await shop.client.v1.subscriptions.update_async(subscription, {"cancel_at_period_end": False})
    mail = await shop.mail()
    assert len(mail) > 3
    random.Random(1).shuffle(mail)
    verdicts = [await shop.receive(delivery) for delivery in (*mail, *mail)]
    assert {verdict.status for verdict in verdicts} == {200}
    standing = await shop.standing("alice")
    assert (standing.tier, standing.status) == ("pro", "active")


async def test_an_update_before_its_creation_keeps_access(shop: Shop) -> None:
    """Scenario 2: last write wins would store the older of the two."""
    await shop.subscribe("alice")
    for delivery in reversed(await shop.mail()):
        assert (await shop.receive(delivery)).status == 200
    assert await shop.tier("alice") == "pro"


async def test_a_cancellation_takes_access_although_the_period_goes_on(shop: Shop) -> None:
    """Scenario 4."""
    _, subscription = await shop.subscribe("alice")
    await shop.receive_all()
    shop.simulator.advance(10 * DAY)
    await shop.client.v1.subscriptions.cancel_async(subscription)
    await shop.receive_all()
    standing = await shop.standing("alice")
    assert (standing.tier, standing.status) == ("free", "expired")


async def test_a_stale_event_after_a_cancellation_revives_nothing(shop: Shop) -> None:
    _, subscription = await shop.subscribe("alice")
    early = await shop.mail()
    await shop.client.v1.subscriptions.cancel_async(subscription)
    for delivery in (*await shop.mail(), *early):
        await shop.receive(delivery)
    assert await shop.tier("alice") == "free"


async def test_the_end_of_one_subscription_leaves_the_other(shop: Shop) -> None:
    """Scenario 22."""
    stripe_customer, first = await shop.subscribe("alice", "price_ent")
    await shop.client.v1.subscriptions.create_async(
        {"customer": stripe_customer, "items": [{"price": "price_pro_monthly"}]}
    )
    await shop.client.v1.subscriptions.cancel_async(first)
    await shop.receive_all()
    assert await shop.tier("alice") == "pro"


async def test_one_event_five_times_at_once_is_one_row_and_one_state(shop: Shop) -> None:
    """Scenario 28."""
    await shop.subscribe("alice")
    delivery = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    verdicts = await asyncio.gather(*(shop.receive(delivery) for _ in range(5)))
    assert {verdict.status for verdict in verdicts} == {200}
    rows = await shop.inbox.search(shop.pair)
    assert [(row.event_id, row.status) for row in rows] == [(delivery.event["id"], "done")]
    assert await shop.tier("alice") == "pro"


async def test_a_second_event_about_the_same_change_is_harmless(shop: Shop) -> None:
    await shop.subscribe("alice")
    delivery = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    again = signed({**delivery.event, "id": "evt_again"})
    assert (await shop.receive(delivery)).reception == Reception.PROCESSED
    assert (await shop.receive(again)).reception == Reception.PROCESSED
    assert await shop.tier("alice") == "pro"


async def test_a_process_that_died_after_storing_loses_nothing(shop: Shop) -> None:
    """Scenario 29: stored and never acted on; Stripe's next delivery acts, and so does the worker."""
    for name, redelivered in (("alice", True), ("bob", False)):
        stripe_customer, _ = await shop.subscribe(name)
        delivery = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
        event = delivery.event
        row = InboxEvent(
            shop.pair,
            event["id"],
            event["type"],
            "sub",
            stripe_customer,
            "snapshot",
            event["created"],
            int(time.time()),
        )
        await shop.inbox.store(row, time.time())
        assert await shop.tier(name) == "free"
        if redelivered:
            assert (await shop.receive(delivery)).reception == Reception.PROCESSED
        else:
            assert await shop.worker.run_once() == 1
        assert await shop.tier(name) == "pro"
    assert await shop.inbox.counts(shop.pair) == {"done": 2}


async def test_a_fetch_that_lingered_does_not_put_back_what_was(shop: Shop) -> None:
    """Scenario 30: the first look sees `active` and stalls; the second sees and writes `canceled`; the first resumes."""
    stripe_customer, subscription = await shop.subscribe("alice")
    slow = await shop.stripe_customers.take_ticket(shop.pair, stripe_customer, shop.now())
    from admin.stripe.budget import Priority
    from admin.stripe.fetch import Fetched, fetch_customer
    from admin.stripe.sync import Superseded

    seen = await fetch_customer(shop.gateway, stripe_customer, Priority.WEBHOOK)
    assert isinstance(seen, Fetched)
    assert seen.subscriptions[0].status == "active"
    await shop.client.v1.subscriptions.cancel_async(subscription)
    await shop.receive_all()
    assert await shop.tier("alice") == "free"
    assert isinstance(await shop.sync._write(slow, seen), Superseded)
    assert await shop.tier("alice") == "free"


@pytest.mark.parametrize(
    "fields", [{"livemode": True}, {"account": "acct_foreign"}], ids=["live mode", "foreign account"]
)
async def test_what_is_not_of_this_account_and_mode_is_recorded_and_has_no_effect(
    shop: Shop, fields: dict[str, Any]
) -> None:
    """Scenario 31."""
    await shop.subscribe("alice")
    delivery = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    foreign = signed({**delivery.event, **fields})
    verdicts = [await shop.receive(foreign) for _ in range(2)]
    assert [verdict.status for verdict in verdicts] == [200, 200]
    assert verdicts[0].reception == Reception.IGNORED
    assert await shop.tier("alice") == "free"
    elsewhere = Pair(str(fields.get("account", shop.pair.account)), bool(fields.get("livemode", False)))
    assert [row.status for row in await shop.inbox.search(elsewhere)] == ["ignored"]
    assert await shop.inbox.search(shop.pair) == []


async def test_a_purchase_by_somebody_unknown_is_theirs_once_the_session_names_them(shop: Shop) -> None:
    """Scenario 34, with the session's event stored before the subscription's is worked off, and after."""
    for name, session_first in (("alice", False), ("bob", True)):
        session = await shop.client.v1.checkout.sessions.create_async(
            {
                "mode": "subscription",
                "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
                "success_url": SUCCESS,
                "client_reference_id": name,
            }
        )
        await shop.pay(str(session.url), email=f"{name}@example.com")
        mail = sorted(await shop.mail(), key=lambda one: (one.type == "checkout.session.completed") != session_first)
        for delivery in mail:
            assert (await shop.receive(delivery)).status == 200
        assert await shop.tier(name) == "pro"


async def test_the_sync_of_another_event_does_not_settle_a_sessions_event(shop: Shop) -> None:
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
            "success_url": SUCCESS,
            "client_reference_id": "alice",
        }
    )
    await shop.pay(str(session.url), email="alice@example.com")
    mail = {one.type: one for one in await shop.mail()}
    completed = mail["checkout.session.completed"].event
    envelope = read_envelope(mail["checkout.session.completed"].body)
    assert isinstance(envelope, Envelope)
    assert envelope.stripe_customer is not None
    await shop.inbox.store(inbox_event(envelope, shop.pair, int(time.time())), time.time())
    await shop.receive(mail["customer.subscription.created"])
    stored = await shop.inbox.get(shop.pair, completed["id"])
    assert stored is not None
    assert stored.status == "pending"
    await shop.worker.run_once()
    assert await shop.tier("alice") == "pro"


async def test_a_thin_event_is_resolved_by_its_object(shop: Shop) -> None:
    _, subscription = await shop.subscribe("alice")
    created = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    assert (await shop.receive(thin(created))).reception == Reception.PROCESSED
    assert await shop.tier("alice") == "pro"
    await shop.client.v1.subscriptions.cancel_async(subscription)
    deleted = next(one for one in await shop.mail() if one.type == "customer.subscription.deleted")
    assert (await shop.receive(thin(deleted))).reception == Reception.PROCESSED
    assert await shop.tier("alice") == "free"


async def test_thin_and_snapshot_of_one_change_both_arrive_and_one_of_them_fetches(shop: Shop) -> None:
    await shop.subscribe("alice")
    created = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    await shop.receive(created)
    version = shop.published["alice"]
    await shop.receive(thin(created, snapshot_event=created.event["id"]))
    assert shop.published["alice"] == version
    row = await shop.inbox.get(shop.pair, f"{created.event['id']}_thin")
    assert row is not None
    assert (row.status, row.outcome) == ("done", f"as {created.event['id']}")


@pytest.mark.parametrize("about", [None, {}, {"id": "sub_gone", "type": "subscription"}, {"id": 5}])
async def test_a_thin_event_about_nothing_that_can_be_fetched_is_settled(shop: Shop, about: Any) -> None:
    event = {
        "object": "v2.core.event",
        "id": "evt_odd",
        "type": "v1.customer.subscription.updated",
        "created": "never",
        "livemode": False,
        "related_object": about,
    }
    assert (await shop.receive(signed(event))).status == 200
    row = await shop.inbox.get(shop.pair, "evt_odd")
    assert row is not None
    assert row.status in {"done", "ignored"}


async def test_a_deleted_customer_has_nothing(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    await shop.receive_all()
    await shop.client.v1.customers.delete_async(stripe_customer)
    deleted = next(one for one in await shop.mail() if one.type == "customer.deleted")
    await shop.receive(deleted)
    assert await shop.tier("alice") == "free"
    assert await shop.stripe_customers.links_of(shop.pair, "alice") == ()


async def test_while_stripe_is_down_events_are_kept_doubted_and_worked_off_later(shop: Shop) -> None:
    _stripe_customer, subscription = await shop.subscribe("alice")
    await shop.receive_all()
    await shop.client.v1.subscriptions.cancel_async(subscription)
    from admin.simulator.faults import ApiFault

    shop.simulator.world.faults.api.append(ApiFault("429", 1000))
    deleted = next(one for one in await shop.mail() if one.type == "customer.subscription.deleted")
    verdict = await shop.receive(deleted)
    assert (verdict.status, verdict.reception) == (200, Reception.PENDING)
    facts = await shop.customers.read_facts(shop.pair, "alice", shop.now())
    assert facts.doubtful_until is not None
    assert await shop.worker.run_once() == 1
    row = await shop.inbox.get(shop.pair, deleted.event["id"])
    assert row is not None
    assert (row.status, row.attempts) == ("pending", 1)
    shop.simulator.world.faults.clear()
    shop.worker._wall = lambda: time.time() + 7200
    await shop.worker.run_once()
    assert await shop.tier("alice") == "free"
    assert (await shop.customers.read_facts(shop.pair, "alice", shop.now())).doubtful_until is None


async def test_stripe_does_not_wait_for_a_look_that_hangs(shop: Shop) -> None:
    from admin.simulator.faults import ApiFault

    shop.rewire(inline_seconds=0.2)
    await shop.subscribe("alice")
    mail = await shop.mail()
    shop.simulator.world.faults.api.append(ApiFault("hang", 1, seconds=30))
    async with asyncio.timeout(5):
        verdict = await shop.receive(mail[0])
    assert (verdict.status, verdict.reception) == (200, Reception.PENDING)
    shop.simulator.world.faults.clear()
    await shop.aclose()


async def test_an_event_that_keeps_failing_is_set_aside_visibly_and_can_be_replayed(shop: Shop) -> None:
    from admin.simulator.faults import ApiFault
    from admin.stripe.worker import InboxWorker

    await shop.subscribe("alice")
    delivery = next(one for one in await shop.mail() if one.type == "customer.subscription.created")
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    await shop.receive(delivery)
    ahead = time.time()
    for _ in range(2):
        ahead += 7200
        worker = InboxWorker(shop.work, shop.inbox, shop.pair, wall=lambda ahead=ahead: ahead, give_up_after=2)  # type: ignore[misc]
        await worker.run_once()
    row = await shop.inbox.get(shop.pair, delivery.event["id"])
    assert row is not None
    assert row.status == "dead"
    assert "500" in row.error
    shop.simulator.world.faults.clear()
    assert await shop.inbox.replay(shop.pair, row.event_id, time.time())
    await shop.worker.run_once()
    assert await shop.tier("alice") == "pro"


async def test_a_ledger_that_is_down_is_a_503_so_that_stripe_delivers_again(shop: Shop) -> None:
    from admin.ledger.engine import LedgerDownError

    class DownInbox:
        async def store(self, *_: Any, **__: Any) -> None:
            raise LedgerDownError("no answer in time")

    receiver = WebhookReceiver(WEBHOOK_SECRET, shop.pair, DownInbox(), shop.work, wall=time.time)  # type: ignore[arg-type]
    await shop.subscribe("alice")
    delivery = (await shop.mail())[0]
    verdict = await receiver.receive(delivery.body, delivery.signature, time.time())
    assert (verdict.status, verdict.reception) == (503, Reception.NOT_STORED)


async def test_every_wrong_delivery_of_the_edge_table_is_a_400(shop: Shop) -> None:
    """Scenario 32 and the table of what the SDK itself lets through or raises on."""
    good = signed({"object": "event", "id": "evt_1", "type": "ping", "livemode": False, "data": {}})
    now = time.time()
    wrong = [
        (good.body, None),
        (good.body, good.signature.replace("v1=", "v0=")),
        (good.body, signed(good.body, at=now - 302).signature),
        (good.body, signed(good.body, at=now + DAY).signature),
        (good.body, f"t={int(now)},v1=é"),
        (good.body, signed(good.body, "whsec_other").signature),
        (b"\xff" + good.body, good.signature),
        (b"[]", signed(b"[]").signature),
        (b"no json", signed(b"no json").signature),
        (b"[" * 100_000, signed(b"[" * 100_000).signature),
        (b"{}", signed(b"{}").signature),
        (b" " * (2 << 20), signed(b" " * (2 << 20)).signature),
    ]
    verdicts = [await shop.receiver.receive(body, header, now) for body, header in wrong]
    assert [verdict.status for verdict in verdicts] == [400] * len(wrong)
    assert (await shop.receive(good)).status == 200
    assert await shop.inbox.counts(shop.pair) == {"ignored": 1}


async def test_price_events_refresh_what_is_on_sale(shop: Shop) -> None:
    await shop.client.v1.prices.update_async("price_pro_yearly", {"active": False})
    await shop.receive_all()
    assert [offer.price for offer in shop.catalog.offers_for("pro")] == ["price_pro_monthly"]


async def test_a_cache_that_is_out_of_reach_fails_no_sync(shop: Shop) -> None:
    async def broken(_versions: dict[str, int]) -> None:
        raise ConnectionError("redis is gone")

    shop.sync._published = broken
    await shop.subscribe("alice")
    assert {verdict.reception for verdict in await shop.receive_all()} <= {Reception.PROCESSED, Reception.IGNORED}
    assert await shop.tier("alice") == "pro"


async def test_a_closed_session_is_no_longer_doubted(shop: Shop) -> None:
    from admin.stripe.results import CheckoutUrl

    opened = await shop.desk.open_checkout("alice", "pro", success_url=SUCCESS, return_url=BACK)
    assert isinstance(opened, CheckoutUrl)
    assert (await shop.customers.read_facts(shop.pair, "alice", shop.now())).doubtful_until is not None
    await shop.pay(opened.url)
    await shop.receive_all()
    facts = await shop.customers.read_facts(shop.pair, "alice", shop.now())
    assert facts.doubtful_until is None
    assert await shop.tier("alice") == "pro"
