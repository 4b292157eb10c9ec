"""Payment links and the way back: what holding one allows, and what it never does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from policies.reasons import Reason
from policies.signed import Claim, Purpose, sign
from tests.support.house import SIGNING_KEY, house, token_for

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.support.house import House

REFUSED = {Reason.BAD_REQUEST: 400, Reason.BILLING_UNAVAILABLE: 503}


def link(
    customer: str = "alice",
    tier: str = "pro",
    *,
    purpose: Purpose = Purpose.PAY,
    lifetime: float = 60,
    key: str = SIGNING_KEY,
) -> str:
    return sign(key.encode(), Claim(purpose, customer, tier, int(time.time() + lifetime)))


def refused(answer: httpx.Response, reason: Reason) -> str:
    assert (answer.status_code, answer.headers.get("x-gateway-reason")) == (REFUSED[reason], reason.value), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    return detail


async def pay_path(one: House, customer: str = "alice") -> str:
    answer = await one.get("/pro/x", token_for(customer))
    path: str = answer.json()["pay_url"].removeprefix(one.api)
    return path


def calls(one: House) -> int:
    assert one.simulator is not None
    return len(one.simulator.world.store.sessions) + len(one.simulator.world.store.customers)


async def test_fetching_a_link_shows_tier_and_price_and_changes_nothing(at: House) -> None:
    path = await pay_path(at)
    before = calls(at)
    for _ in range(3):
        answer = await at.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "Upgrade to pro" in answer.text
        assert "<strong>alice</strong>" in answer.text
        assert "<script" not in answer.text
    assert (await at.ask("HEAD", path)).status_code == 200
    assert calls(at) == before


async def test_a_customer_is_shown_as_text_whatever_it_is_called(at: House) -> None:
    path = await pay_path(at, "<script>alert(1)</script>")
    answer = await at.get(path)
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text


async def test_pressing_its_button_leads_to_one_session_that_is_used_again(at: House) -> None:
    path = await pay_path(at)
    first = await at.post(path)
    assert first.status_code == 303
    assert first.headers["cache-control"] == "no-store"
    again = await at.post(path, data={"price": "price_pro_monthly"})
    assert again.headers["location"] == first.headers["location"]
    assert (await at.post(path, json={"tier": "pro"})).headers["location"] == first.headers["location"]
    page = await at.http.get(first.headers["location"])
    assert page.status_code == 200


async def test_the_whole_way_from_the_402_to_the_200(at: House) -> None:
    path = await pay_path(at)
    opened = await at.post(path)
    paid = await at.http.post(opened.headers["location"], data={"card": "works"})
    assert paid.status_code == 303
    back = await at.http.get(paid.headers["location"])
    assert back.status_code == 200
    assert "You now have pro" in back.text
    assert (await at.get("/pro/x", token_for())).status_code == 200
    assert at.seen("x-gateway-tier") == ["pro"]
    # The link has nothing left to sell, and says so without calling anybody.
    assert "You already have pro" in (await at.get(path)).text
    second = await at.post(path)
    assert (second.status_code, second.headers["x-gateway-reason"]) == (409, "already_subscribed")


async def test_a_link_sells_its_own_tier_and_nothing_else(at: House) -> None:
    path = await pay_path(at)
    before = calls(at)
    assert "sells 'pro'" in refused(await at.post(path, json={"tier": "enterprise"}), Reason.BAD_REQUEST)
    refused(await at.post(path, data={"price": "price_ent"}), Reason.BAD_REQUEST)
    refused(await at.post(path, data={"customer": "bob"}), Reason.BAD_REQUEST)
    refused(await at.post(path, content=b"x" * 200), Reason.BAD_REQUEST)
    assert calls(at) == before


async def test_an_expired_foreign_or_cut_link_is_a_400(at: House) -> None:
    good = link()
    payload, _, signature = good.partition(".")
    bad = {
        "expired": link(lifetime=-1),
        "of another key": link(key="another-key-of-at-least-some-length"),
        "of another purpose": link(purpose=Purpose.RETURN),
        "cut": good[:-1],
        "cut short": payload,
        "with another payload": f"{link('bob').partition('.')[0]}.{signature}",
        "nonsense": "x",
        "long": "x" * 5000,
        "escaped": "%00%ff.x",
        "not ascii": "%C3%A9.x",
    }
    before = calls(at)
    for what, one in bad.items():
        for method in ("GET", "POST"):
            answer = await at.raw_get(f"/_gateway/pay/{one}") if method == "GET" else None
            status = answer.status if answer else (await at.post(f"/_gateway/pay/{one}")).status_code
            assert status == 400, (what, method)
    assert "expired" in refused(await at.get(f"/_gateway/pay/{bad['expired']}"), Reason.BAD_REQUEST)
    assert calls(at) == before


async def test_a_link_for_a_tier_that_is_not_sold_any_more_is_a_400(at: House) -> None:
    for tier in ("platinum", "gold", "free", ""):
        for answer in (
            await at.get(f"/_gateway/pay/{link(tier=tier)}"),
            await at.post(f"/_gateway/pay/{link(tier=tier)}"),
        ):
            assert "no longer offered" in refused(answer, Reason.BAD_REQUEST)


async def test_a_link_is_no_token_and_opens_no_portal(at: House) -> None:
    good = link()
    for path in ("/_gateway/me", "/mine"):
        assert (await at.get(path, good)).status_code == 401
    assert (await at.post("/_gateway/portal", good)).status_code == 401


async def test_links_keep_real_time_whatever_the_entitlement_clock_says(unpaid: House) -> None:
    path = await pay_path(unpaid)
    unpaid.clock.offset = 300 * 86400
    assert (await unpaid.get(path)).status_code == 200


async def test_stripe_out_of_reach_is_503_at_the_button(at: House) -> None:
    path = await pay_path(at)
    await at.steer("faults", api="500", count=1000)
    detail = refused(await at.post(path), Reason.BILLING_UNAVAILABLE)
    assert detail.endswith("Nothing was charged.")
    assert (await at.get(path)).status_code == 200


class TestReturn:
    """The browser comes back: only with a state that we signed and a session that we made."""

    async def test_without_a_state_it_says_nothing_about_anyone(self, at: House) -> None:
        answer = await at.get("/_gateway/return")
        assert answer.status_code == 200
        assert "You now have" not in answer.text
        assert (await at.get("/_gateway/return?session_id=cs_test_1")).status_code == 400

    async def test_a_state_that_we_did_not_sign_is_a_400(self, at: House) -> None:
        for state in (
            "x",
            link(purpose=Purpose.PAY),
            link(purpose=Purpose.RETURN, key="x" * 40),
            link(purpose=Purpose.RETURN, lifetime=-1),
        ):
            answer = await at.get("/_gateway/return", params={"state": state, "session_id": "cs_test_1"})
            refused(answer, Reason.BAD_REQUEST)

    async def test_a_session_that_we_did_not_make_is_a_400(self, at: House) -> None:
        state = link(purpose=Purpose.RETURN)
        for session in ("", "cs_test_unknown", "\x00", "../customers/cus_1", "x" * 300, "é", "{CHECKOUT_SESSION_ID}"):
            answer = await at.get("/_gateway/return", params={"state": state, "session_id": session})
            refused(answer, Reason.BAD_REQUEST)
        refused(await at.get("/_gateway/return", params={"state": state}), Reason.BAD_REQUEST)

    async def test_the_session_of_another_customer_is_a_400(self, at: House) -> None:
        opened = await at.post("/_gateway/checkout", token_for("bob"), json={"tier": "pro"})
        paid = await at.http.post(opened.json()["url"], data={"card": "works"})
        session = parse_qs(urlsplit(paid.headers["location"]).query)["session_id"][0]
        mine = await at.get(
            "/_gateway/return", params={"state": link("alice", purpose=Purpose.RETURN), "session_id": session}
        )
        refused(mine, Reason.BAD_REQUEST)
        assert "bob" not in mine.text
        theirs = await at.http.get(paid.headers["location"])
        assert "bob is on &#39;pro&#39;" in theirs.text

    async def test_a_return_before_the_payment_says_that_it_is_not_finished(self, at: House) -> None:
        opened = await at.post("/_gateway/checkout", token_for(), json={"tier": "pro"})
        session = opened.json()["url"].rpartition("/")[2]
        answer = await at.get("/_gateway/return", params={"state": link(purpose=Purpose.RETURN), "session_id": session})
        assert answer.status_code == 200
        assert "Payment not finished" in answer.text

    async def test_it_syncs_at_once_without_any_webhook(self, tmp_path: Path) -> None:
        async with house(tmp_path, webhooks=False) as one:
            await one.buy("alice")
            assert (await one.get("/pro/x", token_for())).status_code == 200
