"""Durations, sizes and rates are read as they are written, or refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.units import DURATION_PATTERN, format_duration, parse_duration, parse_rate, parse_size


@given(milliseconds=st.integers(0, 10**11))
def test_a_printed_duration_reads_back_to_the_same(milliseconds: int) -> None:
    printed = format_duration(milliseconds / 1000)
    assert parse_duration(printed) == milliseconds / 1000
    assert re.search(DURATION_PATTERN, printed)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("1.5h", 5400), ("0s", 0), ("3d", 259_200), (" 30s ", 30)]
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "30", "s", "-1s", "+1s", "1e3s", "1 s", "1S", "1w", ".5s", "1.s", "٣s", "inf", "3661d", "9" * 16 + "ms"],
)
def test_a_duration_that_could_be_misread_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is (not a duration; write|longer than ten years)"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("512B", 512), ("64KiB", 65_536), ("10MiB", 10_485_760), ("1GB", 10**9)])
def test_a_size_is_a_whole_number_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10", "10mib", "1.5MiB", "-1B", "9" * 5000 + "B"])
def test_a_size_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a size; write"):
        parse_size(text)


def test_a_rate_is_a_count_and_its_seconds() -> None:
    assert parse_rate("600/min") == (600, 60)
    assert parse_rate("5/s") == (5, 1)
    for text in ("600", "600/", "600/fortnight", "1.5/s", "9" * 5000 + "/s"):
        with pytest.raises(ValueError, match=r"^is not a rate; write"):
            parse_rate(text)
