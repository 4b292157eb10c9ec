"""A link says what we signed, for its purpose, until its end, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.signed import Claim, LinkExpired, LinkInvalid, Purpose, sign, verify

KEY = b"k" * 32
CLAIM = Claim(Purpose.PAY, "alice", "pro", 2_000)
LINK = sign(KEY, CLAIM)


def test_a_link_reads_back_until_its_end() -> None:
    assert LINK.startswith("eyJ")
    assert verify(KEY, Purpose.PAY, LINK, 1_999) == CLAIM
    assert verify(KEY, Purpose.PAY, LINK, 2_000) == LinkExpired()


def test_a_link_of_one_purpose_never_serves_another() -> None:
    assert verify(KEY, Purpose.RETURN, LINK, 0) == LinkInvalid()


def test_another_key_refuses_it() -> None:
    assert verify(b"x" * 32, Purpose.PAY, LINK, 0) == LinkInvalid()


@pytest.mark.parametrize(
    "link", ["", ".", "a.b", LINK + "x", LINK[:-1], LINK + "=", "é" + LINK, "." + LINK, LINK * 100]
)
def test_anything_else_is_invalid(link: str) -> None:
    assert verify(KEY, Purpose.PAY, link, 0) == LinkInvalid()


@given(st.integers(0, len(LINK) - 1), st.characters(codec="utf-8"))
def test_no_single_changed_character_passes(position: int, character: str) -> None:
    changed = LINK[:position] + character + LINK[position + 1 :]
    if changed != LINK:
        assert verify(KEY, Purpose.PAY, changed, 0) == LinkInvalid()


@given(st.text(max_size=255), st.text(max_size=50), st.integers(1, 2**40))
def test_any_customer_survives(customer: str, tier: str, expires_at: int) -> None:
    claim = Claim(Purpose.RETURN, customer, tier, expires_at)
    assert verify(KEY, Purpose.RETURN, sign(KEY, claim), 0) == claim
