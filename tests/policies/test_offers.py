"""What an offer says of itself to a program and to a person."""

from __future__ import annotations

import pytest

from policies.money import format_amount, format_offer
from policies.offers import Offer


def test_a_monthly_price_is_shown_without_a_count_and_a_quarterly_one_with_it() -> None:
    monthly = Offer("pro", "price_1", 2900, "usd", "month")
    assert "interval_count" not in monthly.public()
    assert Offer("pro", "price_1", 2900, "usd", "month", 3).public() == {**monthly.public(), "interval_count": 3}
    assert format_offer(Offer("pro", "price_1", 2900, "usd", "month", 3)) == "29.00 USD every 3 months"


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (2900, "usd", "29.00 USD"),
        (5, "EUR", "0.05 EUR"),
        (500, "jpy", "500 JPY"),
        (1500, "kwd", "1.500 KWD"),
        (-250, "usd", "-2.50 USD"),
        (0, "usd", "0.00 USD"),
        (100, "isk", "1.00 ISK"),
    ],
)
def test_an_amount_is_read_in_its_currencys_own_digits(amount: int, currency: str, text: str) -> None:
    assert format_amount(amount, currency) == text


def test_before_stripe_was_asked_an_offer_is_its_price_id() -> None:
    assert format_offer(Offer("pro", "price_1")) == "price_1"
