"""What Stripe's side came to, as reasons and sentences for whoever waits at a public endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from admin.billing import NoBilling, StripeBilling
from admin.ledger.engine import LedgerDownError
from admin.public.ports import Bought, NotBought, Received
from admin.stripe.results import (
    AlreadySubscribed,
    BillingNotConfigured,
    BillingUnavailable,
    CheckoutUrl,
    NoCustomer,
    NotForSale,
    PortalUrl,
)
from admin.stripe.returned import CouldNotSettle, NotOurs, SessionSettled
from admin.stripe.webhook import Reception, Verdict
from policies.reasons import Reason


class Scripted:
    """Stands where receiver, desk, portal and return desk stand, and comes to `outcome`."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    async def _come(self, *_: Any, **__: Any) -> Any:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    receive = open_checkout = open_portal = settle_session = _come


def billing(outcome: Any, counted: list[Verdict] | None = None) -> StripeBilling:
    part: Any = Scripted(outcome)
    told = counted if counted is not None else []
    return StripeBilling(part, part, part, part, return_url=lambda: "http://x/r", wall=lambda: 0.0, count=told.append)


async def buy(outcome: Any) -> Bought | NotBought:
    return await billing(outcome).open_checkout("alice", "pro", None, None, "http://x/s")


async def test_a_page_to_pay_on_is_handed_on_and_shows_in_no_repr() -> None:
    bought = await buy(CheckoutUrl("https://stripe.test/secret", "checkout"))
    assert bought == Bought("https://stripe.test/secret")
    assert "secret" not in repr(bought)
    opened = await billing(PortalUrl("https://stripe.test/secret")).open_portal("alice", "http://x/r")
    assert opened == Bought("https://stripe.test/secret")


@pytest.mark.parametrize(
    ("outcome", "reason", "words"),
    [
        (AlreadySubscribed("pro", "active", "it is paid for"), Reason.ALREADY_SUBSCRIBED, "alice already has 'pro' (active)"),
        (AlreadySubscribed(None, "active", ""), Reason.ALREADY_SUBSCRIBED, "alice already has a subscription (active)."),
        (NotForSale("tier 'x' has no price on offer"), Reason.BAD_REQUEST, "Tier 'x' has no price on offer."),
        (BillingUnavailable("Stripe took too long"), Reason.BILLING_UNAVAILABLE, "Nothing was charged."),
        (BillingNotConfigured(), Reason.BILLING_NOT_CONFIGURED, "STRIPE_SECRET_KEY"),
        (LedgerDownError("password=hunter2"), Reason.BILLING_UNAVAILABLE, "nothing was charged"),
    ],
)  # fmt: skip
async def test_every_way_not_to_sell_has_a_reason_and_a_sentence(outcome: Any, reason: Reason, words: str) -> None:
    refused = await buy(outcome)
    assert isinstance(refused, NotBought)
    assert refused.reason is reason
    assert words in refused.detail
    assert refused.detail.endswith(".")
    assert "hunter2" not in refused.detail


async def test_the_portal_of_nobody_is_a_subscription_required() -> None:
    for outcome, reason in (
        (NoCustomer(), Reason.SUBSCRIPTION_REQUIRED),
        (BillingUnavailable("x"), Reason.BILLING_UNAVAILABLE),
        (LedgerDownError("x"), Reason.BILLING_UNAVAILABLE),
    ):
        refused = await billing(outcome).open_portal("alice", "http://x/r")
        assert isinstance(refused, NotBought)
        assert refused.reason is reason


async def test_a_return_is_settled_only_for_whom_the_session_was_made() -> None:
    assert await billing(SessionSettled("alice", "pro", "complete")).settle_session("cs_1", "alice") is None
    for outcome, reason in (
        (SessionSettled("bob", "pro", "complete"), Reason.BAD_REQUEST),
        (CouldNotSettle("bob", "pro", "x"), Reason.BAD_REQUEST),
        (NotOurs(), Reason.BAD_REQUEST),
        (CouldNotSettle("alice", "pro", "x"), Reason.BILLING_UNAVAILABLE),
        (LedgerDownError("x"), Reason.BILLING_UNAVAILABLE),
    ):
        refused = await billing(outcome).settle_session("cs_1", "alice")
        assert isinstance(refused, NotBought)
        assert refused.reason is reason
        assert "bob" not in refused.detail


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, None),
        (400, Reason.BAD_REQUEST),
        (413, Reason.BODY_TOO_LARGE),
        (503, Reason.BILLING_UNAVAILABLE),
        (418, Reason.BAD_REQUEST),
    ],
)
async def test_each_delivery_is_counted_and_only_a_2xx_lets_stripe_forget(status: int, reason: Reason | None) -> None:
    counted: list[Verdict] = []
    verdict = Verdict(status, Reception.PROCESSED, "the words")
    received = await billing(verdict, counted).receive_event(b"{}", None)
    assert counted == [verdict]
    assert received == (Received("processed") if reason is None else Received("The words.", reason))


async def test_without_a_key_everything_that_takes_money_says_which_setting_is_missing() -> None:
    one = NoBilling()
    outcomes: list[Any] = [
        await one.receive_event(b"", None),
        await one.open_checkout("a", "pro", None, None, ""),
        await one.open_portal("a", ""),
        await one.settle_session("cs", "a"),
    ]
    assert {outcome.reason for outcome in outcomes} == {Reason.BILLING_NOT_CONFIGURED}
    assert all("STRIPE_SECRET_KEY" in outcome.detail for outcome in outcomes)


class Slow:
    """A portal and a return desk that take a while, and know how many they serve at once."""

    def __init__(self) -> None:
        self.at_once: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def _serve(self, who: str) -> None:
        self.at_once[who] = self.at_once.get(who, 0) + 1
        self.most[who] = max(self.most.get(who, 0), self.at_once[who])
        await asyncio.sleep(0.01)
        self.at_once[who] -= 1

    async def open_portal(self, customer: str, _return_url: str) -> PortalUrl:
        await self._serve(customer)
        return PortalUrl("https://stripe.test/p")

    async def settle_session(self, session_id: str) -> SessionSettled:
        await self._serve(session_id)
        return SessionSettled(session_id, "pro", "open")


async def test_one_customer_has_one_question_to_stripe_under_way_however_many_he_asks_at_once() -> None:
    """Or the one who asks most would spend what Stripe lets all of them ask."""
    slow: Any = Slow()
    desk = StripeBilling(
        slow, slow, slow, slow, return_url=lambda: "http://x/r", wall=lambda: 0.0, count=lambda _: None
    )
    asked = [desk.open_portal(who, "http://x/r") for who in ("alice", "bob") for _ in range(5)]
    asked_too = [desk.settle_session("alice", "alice") for _ in range(5)]
    answers = await asyncio.gather(*asked, *asked_too)
    assert answers == [Bought("https://stripe.test/p")] * 10 + [None] * 5
    assert slow.most == {"alice": 1, "bob": 1}


async def test_a_customer_waits_for_his_own_questions_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin.billing.TURN_SECONDS", 0.005)
    slow: Any = Slow()
    desk = StripeBilling(
        slow, slow, slow, slow, return_url=lambda: "http://x/r", wall=lambda: 0.0, count=lambda _: None
    )
    answers = await asyncio.gather(*(desk.open_portal("alice", "http://x/r") for _ in range(3)))
    assert answers[0] == Bought("https://stripe.test/p")
    assert [one.reason for one in answers[1:] if isinstance(one, NotBought)] == [Reason.BILLING_UNAVAILABLE] * 2
    assert await desk.open_portal("alice", "http://x/r") == Bought("https://stripe.test/p")
