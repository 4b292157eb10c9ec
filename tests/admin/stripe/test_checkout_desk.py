"""Whoever clicks how often, wherever: at most one subscription, and the right page for what they have."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest

from admin.simulator.faults import ApiFault
from admin.stripe.checkout import CheckoutOutcome
from admin.stripe.results import AlreadySubscribed, BillingUnavailable, CheckoutUrl, NoCustomer, NotForSale, PortalUrl
from admin.stripe.returned import CouldNotSettle, NotOurs, SessionSettled
from policies.schema import Tier
from policies.tiers import build_ladder
from tests.admin.stripe.conftest import BACK, SUCCESS, Shop

DAY = 86_400


async def open_for(shop: Shop, customer: str = "alice", tier: str = "pro", **more: Any) -> CheckoutOutcome:
    return await shop.desk.open_checkout(customer, tier, success_url=SUCCESS, return_url=BACK, **more)


async def opened(shop: Shop, customer: str = "alice", tier: str = "pro", **more: Any) -> CheckoutUrl:
    outcome = await open_for(shop, customer, tier, **more)
    assert isinstance(outcome, CheckoutUrl), outcome
    return outcome


def sessions(shop: Shop, status: str = "open") -> list[Any]:
    return [one for one in shop.simulator.world.store.sessions.values() if one.status == status]


def running(shop: Shop) -> list[Any]:
    return [one for one in shop.simulator.world.store.subscriptions.values() if not one.ended]


async def test_a_first_purchase_opens_a_session_that_names_its_customer(shop: Shop) -> None:
    url = await opened(shop)
    assert url.kind == "checkout"
    (session,) = sessions(shop)
    assert session.client_reference_id == "alice"
    assert session.metadata == {"gateway_customer": "alice", "gateway_price": "price_pro_monthly"}
    assert session.subscription_metadata == {"gateway_customer": "alice"}
    assert session.success_url == SUCCESS
    assert 3500 <= session.expires_at - session.created <= 3700
    (stripe_customer,) = await shop.stripe_customers.links_of(shop.pair, "alice")
    assert shop.simulator.world.store.customers[stripe_customer].metadata == {"gateway_customer": "alice"}


async def test_paying_gives_the_tier_even_when_no_webhook_ever_comes(shop: Shop) -> None:
    url = await opened(shop)
    await shop.pay(url.url)
    (session,) = sessions(shop, "complete")
    assert await shop.returns.settle_session(session.id) == SessionSettled("alice", "pro", "complete")
    assert await shop.tier("alice") == "pro"


@pytest.mark.parametrize(
    ("more", "price"),
    [
        ({}, "price_pro_monthly"),
        ({"interval": "year"}, "price_pro_yearly"),
        ({"price": "price_pro_yearly"}, "price_pro_yearly"),
    ],
)
async def test_the_first_price_is_the_default_and_others_are_chosen(
    shop: Shop, more: dict[str, str], price: str
) -> None:
    await opened(shop, **more)
    (session,) = sessions(shop)
    assert [line.price for line in session.line_items] == [price]


@pytest.mark.parametrize(
    ("tier", "more"),
    [("pro", {"price": "price_ent"}), ("pro", {"interval": "week"}), ("free", {}), ("nonsense", {})],
)
async def test_what_is_not_offered_is_not_sold(shop: Shop, tier: str, more: dict[str, str]) -> None:
    assert isinstance(await open_for(shop, tier=tier, **more), NotForSale)
    assert shop.simulator.world.store.customers == {}


async def test_before_stripe_was_asked_what_a_tier_sells_nobody_hears_that_it_sells_nothing(shop: Shop) -> None:
    """A second gateway in its first seconds: the tier is given by a lookup key, and the prices are on their way."""
    shop.tiers = (Tier(name="free"), Tier(name="pro", lookup_keys=("pro_monthly",)))
    shop.ladder = build_ladder(shop.tiers)
    shop.rewire()
    assert isinstance(await open_for(shop), BillingUnavailable)
    assert isinstance(await open_for(shop, tier="free"), NotForSale)
    await shop.catalog.refresh()
    assert isinstance(await open_for(shop), CheckoutUrl)


async def test_asking_again_gives_the_same_session(shop: Shop) -> None:
    assert (await opened(shop)).url == (await opened(shop)).url
    assert len(sessions(shop)) == 1


async def test_asking_for_another_offer_expires_the_first(shop: Shop) -> None:
    first = await opened(shop)
    second = await opened(shop, interval="year")
    assert first.url != second.url
    assert (len(sessions(shop)), len(sessions(shop, "expired"))) == (1, 1)
    assert [row.price for row in await shop.checkouts.open_for(shop.pair, "alice", shop.now())] == ["price_pro_yearly"]


@pytest.mark.parametrize("knows", [False, True], ids=["newcomer", "known to Stripe"])
async def test_two_processes_asked_for_two_offers_at_once_leave_one_session_to_pay(shop: Shop, knows: bool) -> None:
    """Each process has its own lock, and two open sessions could both be paid: only Stripe can tell the two apart."""
    here = shop.desk
    shop.rewire()
    await shop.catalog.refresh()
    there = shop.desk
    for customer in ("ann", "ben", "cyd", "dan", "eve"):
        if knows:
            await opened(shop, customer)
        monthly, yearly = await asyncio.gather(
            here.open_checkout(customer, "enterprise", success_url=SUCCESS, return_url=BACK),
            there.open_checkout(customer, "pro", success_url=SUCCESS, return_url=BACK, interval="year"),
        )
        assert isinstance(monthly, CheckoutUrl)
        assert isinstance(yearly, CheckoutUrl)
        assert len([one for one in sessions(shop) if one.client_reference_id == customer]) == 1


async def test_a_session_that_is_almost_over_is_not_handed_out_again(shop: Shop) -> None:
    first = await opened(shop)
    shop.simulator.advance(3500)
    assert (await opened(shop)).url != first.url
    assert len(sessions(shop)) == 1


async def test_many_clicks_at_once_are_one_session(shop: Shop) -> None:
    outcomes = await asyncio.gather(*(open_for(shop) for _ in range(6)))
    assert len({outcome.url for outcome in outcomes if isinstance(outcome, CheckoutUrl)}) == 1
    assert len(sessions(shop)) == 1
    assert len(shop.simulator.world.store.customers) == 1


async def test_two_processes_at_once_end_with_one_session_and_one_customer(shop: Shop) -> None:
    here = shop.desk
    shop.rewire()
    await shop.catalog.refresh()
    first, second = await asyncio.gather(
        here.open_checkout("alice", "pro", success_url=SUCCESS, return_url=BACK),
        shop.desk.open_checkout("alice", "pro", success_url=f"{SUCCESS}&other=1", return_url=BACK),
    )
    assert isinstance(first, CheckoutUrl)
    assert isinstance(second, CheckoutUrl)
    assert first.url == second.url
    assert len(sessions(shop)) == 1
    assert len(shop.simulator.world.store.customers) == 1


async def test_a_try_whose_answer_was_lost_finds_its_own_session(shop: Shop) -> None:
    await opened(shop, "bob")
    shop.simulator.world.faults.api.append(ApiFault("lost_answer", 3))
    await open_for(shop)
    shop.simulator.world.faults.clear()
    url = await opened(shop)
    mine = [one for one in sessions(shop) if one.client_reference_id == "alice"]
    assert len(mine) == 1
    assert urlsplit(url.url).path.endswith(mine[0].id)


async def test_a_session_of_a_process_that_died_before_noting_it_is_used(shop: Shop) -> None:
    url = await opened(shop)
    (session,) = sessions(shop)
    async with shop.database.write() as connection:
        from sqlalchemy import delete

        from admin.ledger.tables import checkout_sessions

        await connection.execute(delete(checkout_sessions))
    assert (await opened(shop)).url == url.url
    assert (await shop.checkouts.get(shop.pair, session.id)) is not None


async def test_a_session_that_was_paid_a_moment_ago_is_no_second_sale(shop: Shop) -> None:
    url = await opened(shop)
    await shop.pay(url.url)
    outcome = await open_for(shop)
    assert isinstance(outcome, AlreadySubscribed)
    assert (outcome.tier, outcome.status) == ("pro", "active")
    assert len(running(shop)) == 1


async def test_who_pays_already_is_told_so(shop: Shop) -> None:
    await shop.subscribe("alice", "price_ent")
    await shop.receive_all()
    outcome = await open_for(shop)
    assert isinstance(outcome, AlreadySubscribed)
    assert outcome.tier == "enterprise"
    assert sessions(shop) == []


async def test_who_pays_for_less_confirms_the_change_in_the_portal(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    outcome = await opened(shop, tier="enterprise")
    assert outcome.kind == "portal"
    (session,) = shop.simulator.world.store.portal_sessions.values()
    assert session.flow is not None
    assert session.flow["type"] == "subscription_update_confirm"
    assert session.flow["subscription_update_confirm"]["items"][0]["price"] == "price_ent"
    assert sessions(shop) == []
    assert len(running(shop)) == 1


async def test_the_portal_configuration_is_kept_and_follows_the_tiers(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    await opened(shop, tier="enterprise")
    await opened(shop, tier="enterprise")
    ours = [one for one in shop.simulator.world.store.portal_configurations.values() if not one.is_default]
    assert len(ours) == 1
    assert {price for entry in ours[0].products for price in entry["prices"]} == {
        "price_pro_monthly",
        "price_pro_yearly",
        "price_ent",
    }
    shop.tiers = shop.tiers[:2]
    await shop.catalog.refresh()
    await shop.portal.open_portal("alice", BACK)
    after = [one for one in shop.simulator.world.store.portal_configurations.values() if not one.is_default]
    assert [one.id for one in after] == [ours[0].id]
    assert {price for entry in after[0].products for price in entry["prices"]} == {
        "price_pro_monthly",
        "price_pro_yearly",
    }


async def test_tiers_that_are_prices_of_one_product_can_be_moved_between(shop: Shop) -> None:
    """Stripe's portal lists one price per interval of a product; the others have a configuration of their own."""
    params: Any = {
        "product": shop.simulator.world.store.prices["price_pro_monthly"].product,
        "currency": "usd",
        "unit_amount": 9900,
        "recurring": {"interval": "month"},
    }
    team = await shop.client.v1.prices.create_async(params)
    shop.tiers = (*shop.tiers[:2], Tier(name="team", prices=(team.id,)))
    shop.ladder = build_ladder(shop.tiers)
    await shop.catalog.refresh()
    await shop.subscribe("alice")
    await shop.receive_all()
    for _ in range(2):
        assert (await opened(shop, tier="team")).kind == "portal"
    assert isinstance(await shop.portal.open_portal("alice", BACK), PortalUrl)
    ours = [one for one in shop.simulator.world.store.portal_configurations.values() if not one.is_default]
    assert len(ours) == 2


async def test_the_portal_knows_nobody_who_never_bought(shop: Shop) -> None:
    assert await shop.portal.open_portal("nobody", BACK) == NoCustomer()


async def test_while_stripe_is_down_the_portal_says_so(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert isinstance(await shop.portal.open_portal("alice", BACK), BillingUnavailable)


async def test_of_several_stripe_customers_the_portal_shows_the_one_that_pays(shop: Shop) -> None:
    _, over = await shop.subscribe("alice")
    await shop.client.v1.subscriptions.cancel_async(over)
    paying, _ = await shop.subscribe("alice")
    await shop.receive_all()
    assert isinstance(await shop.portal.open_portal("alice", BACK), PortalUrl)
    (session,) = shop.simulator.world.store.portal_sessions.values()
    assert session.customer == paying


async def test_a_portal_configuration_switched_off_in_the_dashboard_is_made_anew(shop: Shop) -> None:
    await shop.subscribe("alice")
    await shop.receive_all()
    assert isinstance(await shop.portal.open_portal("alice", BACK), PortalUrl)
    for one in shop.simulator.world.store.portal_configurations.values():
        one.active = one.is_default
    assert isinstance(await shop.portal.open_portal("alice", BACK), PortalUrl)


async def test_who_owes_an_invoice_is_sent_to_pay_it(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    shop.simulator.world.store.customers[stripe_customer].card = "fails"
    shop.simulator.advance(33 * DAY)
    await shop.receive_all()
    assert await shop.tier("alice", later=DAY) in {"pro", "free"}
    outcome = await opened(shop)
    assert outcome.kind == "invoice"
    await shop.pay(outcome.url)
    await shop.receive_all()
    assert await shop.tier("alice") == "pro"


async def test_after_a_cancellation_a_new_subscription_is_sold(shop: Shop) -> None:
    _, subscription = await shop.subscribe("alice")
    await shop.client.v1.subscriptions.cancel_async(subscription)
    await shop.receive_all()
    assert (await opened(shop)).kind == "checkout"
    assert len(shop.simulator.world.store.customers) == 1


async def test_the_live_look_outranks_what_the_ledger_believes(shop: Shop) -> None:
    """The subscription was made behind our back and its webhook never came."""
    stripe_customer, subscription = await shop.subscribe("alice")
    await shop.client.v1.subscriptions.cancel_async(subscription)
    await shop.receive_all()
    await shop.client.v1.subscriptions.create_async(
        {"customer": stripe_customer, "items": [{"price": "price_pro_monthly"}]}
    )
    await shop.mail()
    assert isinstance(await open_for(shop), AlreadySubscribed)


async def test_nobody_pays_with_a_stripe_customer_that_only_a_link_of_a_stranger_made_theirs(shop: Shop) -> None:
    """Anybody can put any name into a payment link; their Stripe customer must not hold a victim's card."""
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
            "success_url": SUCCESS,
            "client_reference_id": "alice",
        }
    )
    await shop.pay(str(session.url), email="mallory@example.com")
    await shop.receive_all()
    (mallorys,) = await shop.stripe_customers.links_of(shop.pair, "alice")
    (subscription,) = running(shop)
    await shop.client.v1.subscriptions.cancel_async(subscription.id)
    await opened(shop)
    (opened_session,) = sessions(shop)
    assert opened_session.customer != mallorys


async def test_a_deleted_stripe_customer_is_replaced(shop: Shop) -> None:
    stripe_customer, _ = await shop.subscribe("alice")
    await shop.receive_all()
    await shop.client.v1.customers.delete_async(stripe_customer)
    assert (await opened(shop)).kind == "checkout"
    (fresh,) = await shop.stripe_customers.links_of(shop.pair, "alice")
    assert fresh != stripe_customer


@pytest.mark.parametrize("kind", ["500", "429"])
async def test_while_stripe_is_down_checkout_says_so_and_recovers(shop: Shop, kind: Any) -> None:
    shop.simulator.world.faults.api.append(ApiFault(kind, 1000))
    assert isinstance(await open_for(shop), BillingUnavailable)
    shop.simulator.world.faults.clear()
    assert (await opened(shop)).kind == "checkout"
    assert len(sessions(shop)) == 1


async def test_what_stripe_said_in_words_is_logged_and_not_shown_to_the_payer(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    del shop.simulator.world.store.prices["price_pro_monthly"]
    outcome = await open_for(shop)
    assert outcome == BillingUnavailable("Stripe refused (resource_missing)")
    assert "No such price" in caplog.text


async def test_a_long_customer_is_named_by_metadata_alone(shop: Shop) -> None:
    name = "ü" * 250
    url = await opened(shop, name)
    assert sessions(shop)[0].client_reference_id is None
    await shop.pay(url.url)
    await shop.receive_all()
    assert await shop.tier(name) == "pro"


async def test_no_address_shows_in_a_repr(shop: Shop) -> None:
    url = await opened(shop)
    assert url.url not in repr(url)


async def test_a_browser_returning_with_a_session_that_is_not_ours_learns_nothing(shop: Shop) -> None:
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": "price_pro_monthly", "quantity": 1}],
            "success_url": SUCCESS,
        }
    )
    assert await shop.returns.settle_session(session.id) == NotOurs()
    assert await shop.returns.settle_session("../../v1/customers") == NotOurs()


async def test_a_browser_returning_unpaid_or_while_stripe_is_down_is_told_so(shop: Shop) -> None:
    await opened(shop)
    (session,) = sessions(shop)
    assert await shop.returns.settle_session(session.id) == SessionSettled("alice", "pro", "open")
    shop.simulator.world.faults.api.append(ApiFault("500", 1000))
    assert isinstance(await shop.returns.settle_session(session.id), CouldNotSettle)
