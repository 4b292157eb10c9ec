"""The scenario table of Stripe's facts, row by row, in both shapes of a subscription and both wire formats.

Each row says what was delivered in which order and what must follow; the oracle is asked the same. Leeway is 48 h, grace
72 h. Where nothing was delivered since the world moved on, only the ledger is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from admin.rehearsal.house import BASE, BEGINNING, DAY, HOUR, opened_house
from admin.rehearsal.inline_sqlite import statements_run_inline
from admin.rehearsal.letters import SECRET
from admin.rehearsal.wires import Shape
from admin.simulator.delivery import sign
from admin.stripe.envelope import Envelope, read_envelope
from admin.stripe.reconcile import CaughtUp
from admin.stripe.webhook import Reception, inbox_event
from tests.admin.stripe.scenario import ENTERPRISE, FREE, PRO, TEAM, WAYS, Scenario
from tests.campaign.terms import TERMS
from tests.support.ledgers import fresh_sqlite


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0].replace(' ', '_')}-{way[1]}")
async def row(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scenario]:
    shape, payload = request.param
    with statements_run_inline():
        async with opened_house(fresh_sqlite(tmp_path), TERMS) as house:
            house.wire.shape, house.simulator.webhooks.payload = shape, payload
            yield Scenario(house)


async def test_1_a_first_payment_that_never_came_opens_nothing_although_the_period_is_ahead(row: Scenario) -> None:
    subscription = await row.subscribe(card="fails")
    await row.deliver()
    row.until(HOUR)
    assert row.ends_at(subscription) > HOUR
    await row.opens(FREE)
    row.until(2 * DAY)  # incomplete_expired
    await row.deliver()
    await row.opens(FREE)


async def test_2_the_creation_that_arrives_after_the_payment_does_not_undo_it(row: Scenario) -> None:
    subscription = await row.subscribe(payment_behavior="default_incomplete")
    created = row.mail()
    await row.page(f"/i/{row.bills(subscription)[0].id}", card="works")
    await row.deliver()
    await row.deliver(created)
    await row.opens(PRO)


async def test_4_a_subscription_that_was_ended_opens_nothing_although_its_period_is_ahead(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.deliver()
    row.until(10 * DAY)
    await row.opens(PRO)
    await row.do("DELETE", f"/v1/subscriptions/{subscription}")
    await row.deliver()
    row.until(10 * DAY + 1)
    await row.opens(FREE)


async def test_7_a_planned_end_is_kept_to_the_second_without_any_webhook(row: Scenario) -> None:
    subscription = await row.subscribe()
    row.until(5 * DAY)
    await row.do("POST", f"/v1/subscriptions/{subscription}", cancel_at_period_end="true")
    await row.deliver()
    row.until(6 * DAY)
    await row.opens(PRO)
    end = row.ends_at(subscription)
    row.until(end - 1)
    await row.opens(PRO)
    row.until(end)
    await row.opens(FREE, by_truth=False)
    row.until(end + 1)
    await row.opens(FREE)


async def test_8_a_cancellation_at_the_portal_names_only_the_moment_and_counts(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.do("POST", f"{await row.portal()}/cancel", subscription=subscription)
    assert row.book(subscription).cancel_at_period_end is False
    await row.deliver()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.opens(PRO)
    row.until(end + 1)
    await row.opens(FREE)


async def test_10_a_cancellation_that_was_taken_back_and_renewed_goes_on(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.do("POST", f"/v1/subscriptions/{subscription}", cancel_at_period_end="true")
    await row.deliver()
    row.until(20 * DAY)
    await row.do("POST", f"/v1/subscriptions/{subscription}", cancel_at_period_end="false")
    await row.deliver()
    row.until(row.ends_at(subscription) + DAY)
    await row.opens(PRO, by_truth=False)
    await row.deliver()
    await row.opens(PRO)


async def test_11_a_renewal_whose_webhook_is_late_refuses_nobody(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.deliver()
    row.until(row.ends_at(subscription) + 600)
    row.lose_mail()
    await row.opens(PRO)


async def test_12_with_stripe_out_of_reach_the_leeway_ends_all_the_same(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.deliver()
    end = row.ends_at(subscription)
    row.lose_mail()
    row.house.wire.cut = 1_000_000
    row.until(end + 48 * HOUR - 1)
    await row.house.edges.run_once()
    await row.opens(PRO, by_truth=False)
    row.until(end + 48 * HOUR)
    await row.house.edges.run_once()
    await row.opens(FREE, by_truth=False)


async def test_13_a_failed_renewal_has_its_grace_from_the_start_of_the_unpaid_period(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.deliver()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    row.until(end + 2 * HOUR)
    await row.deliver()
    assert row.book(subscription).status == "past_due"
    row.until(end + 72 * HOUR - 1)
    await row.deliver()
    await row.opens(PRO)
    row.until(end + 72 * HOUR)
    await row.deliver()
    await row.opens(FREE)


async def test_15_a_late_payment_opens_again_and_the_next_failure_has_a_grace_of_its_own(row: Scenario) -> None:
    await row.do("POST", "/_sim/settings", after_final_failure="past_due")
    subscription = await row.subscribe()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    row.until(end + 10 * DAY)
    await row.deliver()
    await row.opens(FREE)
    await row.page(f"/i/{row.bills(subscription)[-1].id}", card="works")
    await row.deliver()
    await row.opens(PRO)
    await row.card("fails")
    again = row.ends_at(subscription)
    row.until(again + 71 * HOUR)
    await row.deliver()
    await row.opens(PRO)
    row.until(again + 73 * HOUR)
    await row.deliver()
    await row.opens(FREE)


async def test_16_unpaid_is_refused_although_no_deletion_ever_comes(row: Scenario) -> None:
    await row.do("POST", "/_sim/settings", after_final_failure="unpaid")
    subscription = await row.subscribe()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    row.until(end + 16 * DAY)
    await row.deliver()
    assert row.book(subscription).status == "unpaid"
    await row.opens(FREE)
    row.until(row.ends_at(subscription) + DAY)  # a period begins that nobody will be charged for
    await row.deliver()
    await row.opens(FREE)


async def test_18_a_trial_that_was_ended_opens_nothing_although_its_days_are_ahead(row: Scenario) -> None:
    subscription = await row.subscribe(trial_period_days="14")
    await row.deliver()
    row.until(DAY)
    await row.opens(PRO)
    await row.do("DELETE", f"/v1/subscriptions/{subscription}")
    await row.deliver()
    row.until(2 * DAY)
    await row.opens(FREE)


async def test_19_a_trial_that_ended_without_a_card_is_paused_until_it_is_resumed(row: Scenario) -> None:
    subscription = await row.subscribe(
        card="none", trial_period_days="14", **{"trial_settings[end_behavior][missing_payment_method]": "pause"}
    )
    await row.deliver()
    row.until(15 * DAY)
    await row.deliver()
    assert row.book(subscription).status == "paused"
    await row.opens(FREE)
    await row.card("works")
    await row.do("POST", f"/v1/subscriptions/{subscription}/resume")
    await row.deliver()
    await row.opens(PRO)


async def test_20_pausing_the_collection_stops_no_service(row: Scenario) -> None:
    subscription = await row.subscribe()
    await row.do("POST", f"/v1/subscriptions/{subscription}", **{"pause_collection[behavior]": "void"})
    await row.deliver()
    row.until(3 * DAY)
    await row.opens(PRO)


async def test_a_bill_that_paused_collection_writes_off_ends_the_past_due(row: Scenario) -> None:
    await row.do("POST", "/_sim/settings", after_final_failure="past_due")
    subscription = await row.subscribe()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    row.until(end + 10 * DAY)
    await row.deliver()
    await row.opens(FREE)
    pause = {"pause_collection[behavior]": "mark_uncollectible"}
    await row.do("POST", f"/v1/subscriptions/{subscription}", **pause)
    row.until(row.ends_at(subscription) + 2 * HOUR)
    await row.deliver()
    assert row.book(subscription).status == "active"
    await row.opens(PRO)


async def test_22_the_end_of_one_subscription_leaves_the_other(row: Scenario) -> None:
    first = await row.subscribe("price_ent")
    await row.subscribe("price_pro_monthly")
    await row.do("DELETE", f"/v1/subscriptions/{first}")
    mail = row.mail()
    await row.deliver(reversed(mail))
    await row.opens(PRO)


async def test_24_a_change_that_waits_for_its_payment_has_not_happened(row: Scenario) -> None:
    subscription = await row.subscribe()
    row.until(DAY)
    await row.card("fails")
    change = {
        "items[0][id]": row.book(subscription).items[0].id,
        "items[0][price]": "price_ent",
        "proration_behavior": "always_invoice",
        "payment_behavior": "pending_if_incomplete",
    }
    await row.do("POST", f"/v1/subscriptions/{subscription}", **change)
    await row.deliver()
    assert row.book(subscription).pending_update is not None
    await row.opens(PRO)
    row.until(3 * DAY)
    await row.deliver()
    assert row.book(subscription).pending_update is None
    await row.opens(PRO)
    await row.do("POST", f"/v1/subscriptions/{subscription}", **change)
    await row.page(f"/i/{row.bills(subscription)[-1].id}", card="works")
    await row.deliver()
    await row.opens(ENTERPRISE)


async def test_27_a_change_of_shape_in_the_middle_of_a_life_changes_nothing(row: Scenario) -> None:
    await row.subscribe(trial_period_days="5")
    shapes: tuple[Shape, ...] = ("period on the subscription", "both", "period on the item")
    for day in range(1, 40, 3):
        row.house.wire.shape = shapes[day % 3]
        row.until(day * DAY)
        await row.deliver()
        await row.opens(PRO)
    row.house.wire.shape = "period on the subscription"
    for shape in shapes:
        row.house.wire.shape = shape
        await row.house.sync.sync_customer(row.payer, 0)  # type: ignore[arg-type]
        found = (await row.house.entitlements(["alice"]))[0]
        assert found.facts.subscriptions[0].items[0].period_end == row.book(found.facts.subscriptions[0].id).items[0].period_end  # fmt: skip


async def test_28_one_event_five_times_at_once_and_its_twin_are_one_state(row: Scenario) -> None:
    await row.subscribe()
    event = row.mail("customer.subscription.created")[0]
    (body,) = row.house.bodies(event)
    twin = body.replace(event.id.encode(), b"evt_twin")
    verdicts = await asyncio.gather(*(row.house.receive(one) for one in (*[body] * 5, twin)))
    assert {verdict.status for verdict in verdicts} == {200}
    rows = await row.house.inbox.search(row.house.pair)
    assert len({one.event_id for one in rows}) == len(rows) == 2
    await row.opens(PRO)


async def test_29_an_event_that_was_stored_and_not_acted_on_is_acted_on_when_it_comes_again(row: Scenario) -> None:
    await row.subscribe()
    event = row.mail("customer.subscription.created")[0]
    (body,) = row.house.bodies(event)
    row.house.wire.cut = 1_000_000
    assert (await row.house.receive(body)).reception is Reception.PENDING
    await row.house.restart()
    row.house.wire.cut = 0
    await row.opens(FREE, by_truth=False)
    assert (await row.house.receive(body)).reception is Reception.PROCESSED
    await row.opens(PRO)


async def test_30_a_look_that_stalls_does_not_put_back_what_was(row: Scenario) -> None:
    subscription = await row.subscribe()
    (created,) = row.mail("customer.subscription.created")
    row.lose_mail()
    row.house.wire.hold = 1
    stalled = asyncio.create_task(row.house.receive(row.house.bodies(created)[0]))
    while not row.house.wire.held:  # noqa: ASYNC110 -- the wire says so in no other way
        await asyncio.sleep(0)
    await row.do("DELETE", f"/v1/subscriptions/{subscription}")
    row.house._wire_up()  # a second process
    await row.deliver()
    await row.opens(FREE)
    row.house.wire.let_go()
    await stalled
    await row.opens(FREE)


@pytest.mark.parametrize("foreign", [{"livemode": True}, {"account": "acct_other"}])
async def test_31_what_is_of_another_mode_or_account_changes_nothing(row: Scenario, foreign: dict[str, object]) -> None:
    if row.house.simulator.webhooks.payload == "thin" and "account" in foreign:
        foreign = {"context": foreign["account"]}
    await row.subscribe()
    (event,) = row.mail("customer.subscription.created")
    verdict = await row.forged(event, lambda body: body.update(foreign))
    assert (verdict.status, verdict.reception) == (200, Reception.IGNORED)
    await row.opens(FREE, by_truth=False)


async def test_32_each_signature_of_the_edge_table_has_its_answer(row: Scenario) -> None:
    await row.subscribe()
    house = row.house
    house.use_secrets("whsec_new", SECRET)
    event = row.mail("customer.subscription.created")[0]
    (body,) = house.bodies(event)
    now = int(house.clock())
    ours, other = sign(body, SECRET, now), sign(body, "whsec_other", now)
    two = f"{other},{ours.split(',')[1]}"
    binary = b"\xff" + body
    deliveries = [
        (body, ours, 200),
        (body, sign(body, "whsec_new", now), 200),
        (body, two, 200),
        (body, other, 400),
        (body, ours.replace("v1=", "v0="), 400),
        (body, sign(body, SECRET, now - 301), 400),
        (body, sign(body, SECRET, now + DAY), 400),
        (body, f"t={now},v1=é", 400),
        (binary, sign(binary, SECRET, now), 400),
        (b"[]", sign(b"[]", SECRET, now), 400),
    ]
    verdicts = [await house.receiver.receive(body, header, house.clock()) for body, header, _ in deliveries]
    assert [verdict.status for verdict in verdicts] == [status for _, _, status in deliveries]


async def test_34_a_purchase_by_nobody_known_is_theirs_once_the_session_names_them(row: Scenario) -> None:
    made = await row.do(
        "POST",
        "/v1/checkout/sessions",
        **{
            "mode": "subscription",
            "client_reference_id": "alice",
            "line_items[0][price]": "price_pro_monthly",
            "line_items[0][quantity]": "1",
            "success_url": f"{BASE}/ok",
        },
    )
    await row.page(made.json()["url"], card="works")
    row.payer = next(iter(row.house.simulator.world.store.customers))
    completed = row.mail("checkout.session.completed")
    await row.deliver()
    await row.deliver(completed)
    await row.opens(PRO)


async def test_35_a_debit_that_fails_later_follows_the_status_that_stripe_keeps(row: Scenario) -> None:
    await row.subscribe()
    await row.deliver()
    (created,) = [
        event for event in row.house.simulator.world.store.events.values() if event.type.endswith("n.created")
    ]
    thin = row.house.simulator.webhooks.payload == "thin"
    for kind in ("invoice.voided", "invoice.payment_failed"):

        def as_told(body: dict[str, object], kind: str = kind) -> None:
            body.update(id=f"evt_{kind}", type=f"v1.{kind}" if thin else kind)

        assert (await row.forged(created, as_told)).status == 200
    await row.opens(PRO)


async def test_36_a_refund_changes_no_status(row: Scenario) -> None:
    await row.subscribe()
    await row.deliver()
    row.house.simulator.webhooks.payload = "snapshot"
    (created,) = [
        event for event in row.house.simulator.world.store.events.values() if event.type.endswith("n.created")
    ]

    def refund(body: dict[str, object]) -> None:
        charge = {"object": "charge", "id": "ch_1", "customer": row.payer, "refunded": True, "amount_refunded": 2900}
        body.update(id="evt_refund", type="charge.refunded", data={"object": charge})

    assert (await row.forged(created, refund)).reception is Reception.PROCESSED
    await row.opens(PRO)


async def test_37_an_end_during_days_of_outage_is_found_by_the_first_reading(row: Scenario) -> None:
    subscription = await row.subscribe("price_pro_yearly")
    await row.deliver()
    await row.house.reconcile()
    row.until(DAY)
    await row.do("DELETE", f"/v1/subscriptions/{subscription}")
    row.until(6 * DAY)
    row.lose_mail()
    await row.opens(PRO, by_truth=False)
    await row.house.restart()
    assert isinstance(await row.house.events.run_once(), CaughtUp)
    row.until(6 * DAY + 60)
    await row.house.worker.run_once()
    await row.opens(FREE)


async def test_an_end_that_a_hundred_later_events_have_buried_is_found_as_well(row: Scenario) -> None:
    subscription = await row.subscribe("price_pro_yearly")
    await row.deliver()
    await row.house.reconcile()
    row.until(DAY)
    await row.do("DELETE", f"/v1/subscriptions/{subscription}")
    for _ in range(120):
        await row.do("POST", "/v1/customers")
    row.lose_mail()
    assert isinstance(await row.house.events.run_once(), CaughtUp)
    row.until(DAY + 60)
    while await row.house.worker.run_once():
        pass
    await row.opens(FREE)


async def test_past_due_through_three_periods_has_one_grace_and_not_three(row: Scenario) -> None:
    await row.do("POST", "/_sim/settings", after_final_failure="past_due")
    subscription = await row.subscribe("price_team_weekly")
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    row.until(end + 23 * HOUR)  # the team tier has a grace of its own, a day
    await row.deliver()
    await row.opens(TEAM)
    for periods in range(3):
        for hour in (25, 167, 170):
            row.until(end + periods * 7 * DAY + hour * HOUR)
            await row.deliver()
            assert row.book(subscription).status == "past_due"
            await row.opens(FREE)


async def test_an_invoice_payable_within_thirty_days_has_its_grace_after_those(row: Scenario) -> None:
    subscription = await row.subscribe(collection_method="send_invoice", days_until_due="30")
    await row.deliver()
    await row.opens(PRO)
    due = row.bills(subscription)[0].due_date
    assert due is not None
    for days, rank in ((1, PRO), (29, PRO), (32, PRO), (34, FREE), (40, FREE)):
        row.until(days * DAY)
        await row.deliver()
        await row.opens(rank)
    for bill in row.bills(subscription):
        if bill.status == "open":
            await row.page(f"/i/{bill.id}", card="works")
    await row.deliver()
    await row.opens(PRO)


@pytest.mark.parametrize("told", [True, False])
async def test_an_end_planned_a_year_ahead_is_no_reason_to_go_unpaid_until_then(row: Scenario, told: bool) -> None:
    await row.do("POST", "/_sim/settings", after_final_failure="past_due")
    subscription = await row.subscribe(cancel_at=str(int(row.house.clock()) + 365 * DAY))
    await row.deliver()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    row.until(end + 47 * HOUR)
    if told:
        await row.deliver()
    await row.opens(PRO)
    row.until(end + (72 if told else 48) * HOUR)
    if told:
        await row.deliver()
    await row.opens(FREE, by_truth=told)
    row.until(end + 100 * DAY)
    await row.opens(FREE)


async def test_a_price_keeps_its_tier_when_its_lookup_key_moves_to_another(row: Scenario) -> None:
    await row.subscribe("price_team_weekly")
    await row.deliver()
    await row.opens(TEAM)
    await row.do(
        "POST",
        "/v1/prices",
        **{
            "product": "prod_team",
            "currency": "usd",
            "unit_amount": "5900",
            "recurring[interval]": "week",
            "lookup_key": "team_now",
            "transfer_lookup_key": "true",
        },
    )
    await row.house.open_for_business()
    row.until(2 * DAY)
    await row.house.sync.sync_customer(row.payer, 0)  # type: ignore[arg-type]
    assert (await row.house.entitlements(["alice"]))[0].facts.subscriptions[0].items[0].lookup_key is None
    await row.opens(TEAM)
    await row.house.restart()
    await row.opens(TEAM)


async def test_each_item_ends_by_itself_and_what_is_not_bought_opens_nothing(row: Scenario) -> None:
    row.house.wire.shape = "period on the item"
    await row.subscribe(
        "price_team_weekly", **{"items[1][price]": "price_pro_monthly", "items[2][price]": "price_ent", "items[2][quantity]": "0"}
    )  # fmt: skip
    await row.deliver()
    row.lose_mail()
    row.house.wire.cut = 1_000_000
    for days, rank in ((1, TEAM), (8, TEAM), (9, PRO), (30, PRO), (34, FREE)):
        row.until(days * DAY)
        await row.opens(rank, by_truth=False)


async def test_a_deleted_customer_has_nothing(row: Scenario) -> None:
    await row.subscribe("price_pro_yearly")
    await row.deliver()
    await row.do("DELETE", f"/v1/customers/{row.payer}")
    await row.deliver(row.mail("customer.deleted"))
    await row.opens(FREE)


async def test_a_status_that_nobody_has_heard_of_opens_nothing(row: Scenario) -> None:
    await row.subscribe()
    row.house.wire.renamed_statuses = {"active": "dormant"}
    await row.deliver()
    await row.opens(FREE, by_truth=False)
    row.house.wire.renamed_statuses = {}
    await row.house.reconcile(with_a_night=True)
    await row.opens(PRO)


async def test_an_event_that_arrives_during_a_look_is_not_answered_by_it(row: Scenario) -> None:
    subscription = await row.subscribe()
    (created,) = row.mail("customer.subscription.created")
    row.lose_mail()
    row.house.wire.hold = 1
    stalled = asyncio.create_task(row.house.receive(row.house.bodies(created)[0]))
    while not row.house.wire.held:  # noqa: ASYNC110 -- the wire says so in no other way
        await asyncio.sleep(0)
    await row.do("DELETE", f"/v1/subscriptions/{subscription}")
    (ended,) = row.mail("customer.subscription.deleted")
    envelope = read_envelope(json.dumps(row.house.simulator.webhooks._render(ended)).encode())
    assert isinstance(envelope, Envelope)
    # Another process stores it and is killed before it looks.
    await row.house.inbox.store(inbox_event(envelope, row.house.pair, int(row.house.clock())), row.house.clock())
    row.house.wire.let_go()
    await stalled
    await row.opens(PRO, by_truth=False)
    row.until(60)
    await row.house.worker.run_once()
    await row.opens(FREE)


async def test_a_stripe_customer_that_two_claim_keeps_the_first(row: Scenario) -> None:
    await row.subscribe()
    await row.deliver()
    made = await row.do(
        "POST",
        "/v1/checkout/sessions",
        **{
            "mode": "subscription",
            "client_reference_id": "mallory",
            "customer": row.payer,
            "line_items[0][price]": "price_pro_monthly",
            "line_items[0][quantity]": "1",
            "success_url": f"{BASE}/ok",
        },
    )
    await row.page(made.json()["url"], card="works")
    await row.deliver()
    await row.opens(PRO)
    assert (await row.house.entitlements(["mallory"]))[0].at(row.house.clock()).rank == FREE
    (conflict,) = await row.house.stripe_customers.conflicts(row.house.pair)
    assert (conflict.customer, conflict.claimed_by) == ("alice", "mallory")


async def test_items_that_stripe_leaves_out_of_the_list_count(row: Scenario) -> None:
    row.house.wire.shape = "period on the item"
    many = {}
    for number in range(10):
        price = await row.do(
            "POST",
            "/v1/prices",
            **{"product": "prod_price_extra", "currency": "usd", "unit_amount": "5", "recurring[interval]": "month"},
        )
        many[f"items[{number + 1}][price]"] = price.json()["id"]
    many["items[11][price]"] = "price_ent"
    await row.subscribe("price_extra", **many)
    await row.deliver()
    await row.opens(ENTERPRISE)


async def test_an_end_that_is_planned_within_the_grace_ends_the_grace(row: Scenario) -> None:
    subscription = await row.subscribe()
    end = row.ends_at(subscription)
    row.until(end - DAY)
    await row.card("fails")
    await row.do("POST", f"/v1/subscriptions/{subscription}", cancel_at=str(int(BEGINNING + end + DAY)))
    row.until(end + 2 * HOUR)
    await row.deliver()
    assert row.book(subscription).status == "past_due"
    row.until(end + DAY - 1)
    await row.opens(PRO)
    row.until(end + DAY)
    await row.opens(FREE)
