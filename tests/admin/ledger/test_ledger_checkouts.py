from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from admin.ledger.catalog import Catalog, StoredPrice
from admin.ledger.checkouts import Checkouts, CheckoutSession
from admin.ledger.meta import Meta
from admin.ledger.pair import Pair

if TYPE_CHECKING:
    from admin.ledger.engine import Database

LIVE = Pair("acct_1", True)
TEST = Pair("acct_1", False)
NOW = 1_800_000_000


async def opened(database: Database, name: str = "cs_1", *, attempt: int = 1, pair: Pair = LIVE, now: int = NOW) -> int:
    return await Checkouts(database).record_opened(
        pair, id=name, customer="bob", tier="pro", price="price_1", stripe_customer="cus_1", url="https://pay.example/x",
        expires_at=now + 3600, attempt=attempt, now=now,
    )  # fmt: skip


def session(name: str = "cs_1") -> CheckoutSession:
    return CheckoutSession(name, "bob", "pro", "price_1", "cus_1", "https://pay.example/x", "open", NOW, NOW + 3600)


async def test_an_open_session_is_found_until_it_ends_or_expires(database: Database) -> None:
    checkouts = Checkouts(database)
    await opened(database)
    assert await checkouts.open_for(LIVE, "bob", NOW) == [session()]
    assert await checkouts.get(LIVE, "cs_1") == session()
    assert await checkouts.open_for(LIVE, "bob", NOW + 3600) == []
    await checkouts.close(LIVE, "cs_1", "complete", NOW)
    assert await checkouts.open_for(LIVE, "bob", NOW) == []
    assert await checkouts.get(LIVE, "cs_1") is not None


async def test_a_session_of_another_mode_is_not_ours(database: Database) -> None:
    await opened(database, pair=TEST)
    assert await Checkouts(database).open_for(LIVE, "bob", NOW) == []
    assert await Checkouts(database).get(LIVE, "cs_1") is None
    assert await Checkouts(database).next_attempt_number(LIVE, "bob") == 1


async def test_opening_and_closing_raise_the_version_and_closing_twice_does_not(database: Database) -> None:
    first = await opened(database)
    assert await Checkouts(database).close(LIVE, "cs_1", "expired", NOW) == first + 1
    assert await Checkouts(database).close(LIVE, "cs_1", "expired", NOW) is None
    assert await Checkouts(database).close(LIVE, "cs_unknown", "expired", NOW) is None


async def test_a_session_that_ended_is_not_reopened_by_recording_it_late(database: Database) -> None:
    await opened(database)
    await Checkouts(database).close(LIVE, "cs_1", "complete", NOW)
    await opened(database)
    assert await Checkouts(database).open_for(LIVE, "bob", NOW) == []


async def test_two_clicks_at_once_share_an_attempt_and_the_next_try_has_another(database: Database) -> None:
    checkouts = Checkouts(database)
    numbers = await asyncio.gather(*(checkouts.next_attempt_number(LIVE, "bob") for _ in range(2)))
    assert numbers == [1, 1]
    await asyncio.gather(*(opened(database, attempt=1) for _ in range(2)))
    assert len(await checkouts.open_for(LIVE, "bob", NOW)) == 1
    assert await checkouts.next_attempt_number(LIVE, "bob") == 2


async def test_an_attempt_that_stripe_answered_with_an_error_is_not_tried_again(database: Database) -> None:
    checkouts = Checkouts(database)
    await checkouts.spend_attempt(LIVE, "bob", 4)
    await checkouts.spend_attempt(LIVE, "bob", 2)
    assert await checkouts.next_attempt_number(LIVE, "bob") == 5


async def test_retention_deletes_old_sessions_and_keeps_counting_attempts(database: Database) -> None:
    checkouts = Checkouts(database)
    await opened(database)
    assert await checkouts.prune(NOW + 3600) == 0
    assert await checkouts.prune(NOW + 3601) == 1
    assert await checkouts.get(LIVE, "cs_1") is None
    assert await checkouts.next_attempt_number(LIVE, "bob") == 2


async def test_a_session_shows_no_url_where_it_might_be_logged() -> None:
    assert "pay.example" not in repr(session())


def price(name: str, amount: int | None = 2900) -> StoredPrice:
    return StoredPrice(name, "prod_1", "pro_monthly", amount, "usd", "month", 1, True, False, NOW)


async def test_fetched_prices_replace_those_before_in_their_mode_only(database: Database) -> None:
    catalog = Catalog(database)
    await catalog.replace_prices(TEST, [price("price_t")])
    await catalog.replace_prices(LIVE, [price("price_1"), price("price_2", None)])
    await catalog.replace_prices(LIVE, [price("price_2", None), price("price_3")])
    assert await catalog.prices(LIVE) == (price("price_2", None), price("price_3"))
    await catalog.replace_prices(LIVE, [])
    assert await catalog.prices(LIVE) == ()
    assert await catalog.prices(TEST) == (price("price_t"),)


async def test_a_price_stays_pinned_to_the_tier_it_was_first_seen_in_unless_replaced(database: Database) -> None:
    catalog = Catalog(database)
    assert await catalog.pin(LIVE, "price_1", "pro") == "pro"
    assert await catalog.pin(LIVE, "price_1", "enterprise") == "pro"
    assert await catalog.pins(LIVE) == {"price_1": "pro"}
    assert await catalog.pin(LIVE, "price_1", "enterprise", replace=True) == "enterprise"
    assert await catalog.pins(LIVE) == {"price_1": "enterprise"}
    assert await catalog.pins(TEST) == {}


async def test_a_value_made_by_several_at_once_is_the_first_ones_for_all(database: Database) -> None:
    meta = Meta(database)
    made = await asyncio.gather(*(meta.get_or_make("ledger_id", lambda n=n: f"id_{n}") for n in range(6)))  # type: ignore[misc]
    assert len(set(made)) == 1
    assert await meta.get("ledger_id") == made[0]


async def test_a_value_is_replaced_by_setting_it(database: Database) -> None:
    meta = Meta(database)
    assert await meta.get("cursor") is None
    await meta.set("cursor", "evt_1")
    await meta.set("cursor", "evt_2")
    assert await meta.get("cursor") == "evt_2"
