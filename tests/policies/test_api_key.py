"""The form of an API key: what is one, what is not, and what of it may be seen."""

from __future__ import annotations

import random
import re
import secrets
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.api_key import (
    KEY_LENGTH,
    KEY_PATTERN,
    digest_of,
    is_key_id,
    is_same_digest,
    key_id_of,
    make_key,
    masked,
    scopes_problem,
    shown,
)

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_new_key_is_one_word_that_a_scanner_finds_and_that_gives_its_id_back() -> None:
    key = make_key(secrets.randbelow)
    assert len(key.text) == KEY_LENGTH == 54
    assert re.findall(KEY_PATTERN, f"api_key='{key.text}', other=1") == [key.text]
    assert key_id_of(key.text.encode()) == key.id
    assert shown(key.id) == key.text[:15]
    assert is_key_id(key.id)


def test_the_form_is_pinned_so_that_keys_of_today_are_keys_tomorrow() -> None:
    text = "gw_000000000000_000000000000000000000000000000002mR47L"
    assert make_key(lambda _below: 0).text == text
    assert key_id_of(text.encode()) == "0" * 12
    expected = 0
    for digit in text[-6:]:
        expected = expected * 62 + ALPHABET.index(digit)
    assert expected == crc32(text[:-6].encode())
    assert digest_of(b"k", b"x") == "c38edc8815c8489f64738978f44008f8596345545f0baa68ef6fcf5c53e57189"


def test_keys_are_made_of_all_the_randomness_they_are_given() -> None:
    asked: list[int] = []

    def randbelow(below: int) -> int:
        asked.append(below)
        return random.randrange(below)

    first, second = make_key(randbelow), make_key(randbelow)
    assert asked == [62] * 88
    assert first.text != second.text


@given(st.randoms(use_true_random=False), st.data())
def test_any_single_slip_is_noticed(rng: random.Random, data: st.DataObject) -> None:
    text = make_key(rng.randrange).text
    at = data.draw(st.integers(0, KEY_LENGTH - 1))
    other = data.draw(st.sampled_from(ALPHABET + "_-. \n\x00").filter(lambda one: one != text[at]))
    assert key_id_of((text[:at] + other + text[at + 1 :]).encode()) is None
    assert key_id_of((text[:at] + text[at + 1 :]).encode()) is None
    assert key_id_of((text[:at] + other + text[at:]).encode()) is None


@given(st.binary(max_size=80))
def test_garbage_is_no_key_and_no_error(garbage: bytes) -> None:
    assert key_id_of(garbage) is None
    assert key_id_of(b"gw_" + garbage) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text + " ",
        lambda text: " " + text,
        lambda text: text.upper(),
        lambda text: text.replace("gw_", "GW_"),
        lambda text: text[:-1],
        lambda text: text + text,
        lambda text: text[:53] + "é",
    ],
)
def test_nothing_near_a_key_is_one(change: object) -> None:
    assert callable(change)
    assert key_id_of(change(make_key(random.Random(7).randrange).text).encode()) is None


def test_the_repr_of_a_key_holds_nothing_secret() -> None:
    key = make_key(secrets.randbelow)
    assert key.text not in repr(key)
    assert key.text[16:] not in repr(key)


def test_a_digest_depends_on_every_byte_and_on_the_hash_key() -> None:
    text = make_key(secrets.randbelow).text.encode()
    digest = digest_of(b"one", text)
    assert is_same_digest(digest, digest_of(b"one", text))
    assert not is_same_digest(digest, digest_of(b"two", text))
    assert not is_same_digest(digest, digest_of(b"one", text[:-1] + b"!"))
    assert text.decode()[16:] not in digest


@pytest.mark.parametrize("text", ["", "x" * 11, "x" * 13, "x" * 11 + "\n", "x" * 11 + "٣", "x" * 11 + "_"])
def test_what_is_no_id_is_told_from_one(text: str) -> None:
    assert not is_key_id(text)


def test_scopes_are_words_of_oauth_and_never_an_empty_list() -> None:
    assert scopes_problem(("reports:read", "x/y.z")) is None
    for wrong in ((), ("a", "a"), ("a b",), ("",), ('"',), ("\\",), ("é",), ("a\n",), ("x" * 101,)):
        assert scopes_problem(wrong), wrong
    assert scopes_problem(tuple(f"s{number}" for number in range(51)))


def test_a_key_in_a_text_is_masked_down_to_its_id() -> None:
    one, two = make_key(secrets.randbelow), make_key(secrets.randbelow)
    text = masked(f"/v1/{one.text}/x?k={two.text}")
    assert text == f"/v1/{shown(one.id)}_…/x?k={shown(two.id)}_…"
    assert masked(f"/cut/{one.text[:30]}") == f"/cut/{shown(one.id)}_…"
    for plain in ("/v1/gw_/x", "/gw_short_x", "/", ""):
        assert masked(plain) == plain
