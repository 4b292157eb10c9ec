"""Amounts as people read them. Stripe counts in the currency's minor unit (https://docs.stripe.com/currencies)."""

from __future__ import annotations

from typing import Final

from policies.offers import Offer

# Not UGX and ISK: they have no minor unit, but Stripe counts them in hundredths all the same.
_ZERO_DECIMAL: Final = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())
_THREE_DECIMAL: Final = frozenset("bhd jod kwd omr tnd".split())


def format_amount(amount: int, currency: str) -> str:
    """`29.00 USD` for 2900 usd, `500 JPY` for 500 jpy."""
    code = currency.lower()
    if code in _ZERO_DECIMAL:
        return f"{amount} {code.upper()}"
    digits = 3 if code in _THREE_DECIMAL else 2
    whole, rest = divmod(abs(amount), 10**digits)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:0{digits}d} {code.upper()}"


def format_offer(offer: Offer) -> str:
    """`29.00 USD per month`; the price's id where Stripe has not been asked yet."""
    if offer.amount is None or offer.currency is None:
        return offer.price
    text = format_amount(offer.amount, offer.currency)
    if offer.interval is None:
        return text
    return (
        f"{text} per {offer.interval}"
        if offer.interval_count == 1
        else f"{text} every {offer.interval_count} {offer.interval}s"
    )
