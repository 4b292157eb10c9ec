"""Which account a key belongs to is Stripe's word, asked once and remembered."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from admin.ledger.meta import Meta
from admin.simulator import DEFAULT_API_KEY
from admin.stripe.account import Account, AccountProblem, known_pair, open_account
from admin.stripe.client import StripeGateway
from policies.schema import StripeSettings
from tests.admin.stripe.conftest import Shop
from tests.support.ledgers import fresh_sqlite, opened
from tests.support.simulator import free_socket


def settings(key: str, base: str) -> StripeSettings:
    return StripeSettings(secret_key=SecretStr(key), api_base=base)


def nowhere() -> str:
    listener = free_socket()
    port = listener.getsockname()[1]
    listener.close()
    return f"http://127.0.0.1:{port}"


async def test_without_a_key_there_is_no_account(shop: Shop) -> None:
    assert await open_account(settings("", shop.base), shop.meta) is None
    assert await open_account(settings("  ", shop.base), shop.meta) is None


async def test_a_known_key_needs_no_stripe_to_start(shop: Shop) -> None:
    real = settings("sk_test_no_simulator_has_this", nowhere())
    gateway = StripeGateway("sk_test_no_simulator_has_this")
    await shop.meta.set(f"stripe.account.{gateway.key_digest}", shop.pair.account)
    await gateway.aclose()
    found = await open_account(real, shop.meta, patience_seconds=0)
    assert isinstance(found, Account)
    assert found.pair == shop.pair
    await found.gateway.aclose()


async def test_a_simulator_is_asked_each_time_because_it_is_another_account_each_time(shop: Shop) -> None:
    found = await open_account(settings(DEFAULT_API_KEY, nowhere()), shop.meta, patience_seconds=0)
    assert isinstance(found, AccountProblem)
    assert "gateway simulator" in found.detail


async def test_a_simulator_that_is_away_leaves_on_record_what_it_was(shop: Shop) -> None:
    here, away = settings(DEFAULT_API_KEY, shop.base), settings(DEFAULT_API_KEY, nowhere())
    found = await open_account(here, shop.meta)
    assert isinstance(found, Account)
    await found.gateway.aclose()
    assert isinstance(await open_account(away, shop.meta, patience_seconds=0), AccountProblem)
    assert await known_pair(away, shop.meta) == shop.pair
    await shop.meta.set(f"stripe.account.{found.gateway.key_digest}", "acct_of_the_one_before")
    again = await open_account(here, shop.meta)
    assert isinstance(again, Account)
    assert again.pair == shop.pair
    await again.gateway.aclose()


async def test_an_unknown_key_without_stripe_is_told_without_the_key(tmp_path: Path) -> None:
    database = await opened(fresh_sqlite(tmp_path))
    found = await open_account(settings("sk_test_geheim", nowhere()), Meta(database), patience_seconds=0)
    await database.dispose()
    assert isinstance(found, AccountProblem)
    assert "can't be asked" in found.detail
    assert "geheim" not in found.detail


async def test_a_key_that_stripe_refuses_is_told_at_once(shop: Shop) -> None:
    found = await open_account(settings("sk_test_wrong_geheim", shop.base), shop.meta)
    assert isinstance(found, AccountProblem)
    assert "refused" in found.detail
    assert "geheim" not in found.detail


async def test_a_key_that_is_none_is_told_at_once(shop: Shop) -> None:
    for key in ("sk_test_\r\nHost: x", "sk_test_ü", "two words"):
        found = await open_account(settings(key, shop.base), shop.meta)
        assert isinstance(found, AccountProblem)
        assert key not in found.detail
