"""How deeply nested a token's JSON may be is a bound of ours, the same on every Python."""

from __future__ import annotations

import pytest

from gateway.credentials.outcomes import Flaw
from gateway.credentials.strict_json import parse_object


def nested(levels: int) -> bytes:
    """An object of so many levels, itself the first."""
    return b'{"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(("levels", "passes"), [(2, True), (100, True), (101, False), (5_000, False), (100_000, False)])
def test_a_hundred_levels_and_no_more(levels: int, *, passes: bool) -> None:
    found = parse_object(nested(levels))
    assert (found != Flaw("is nested too deeply")) is passes


def test_many_brackets_side_by_side_or_in_strings_are_no_depth() -> None:
    assert parse_object(b'{"x": [' + b"[]," * 500 + b"[]]}") == {"x": [[]] * 501}
    assert parse_object(b'{"x": "' + b"[{" * 500 + b'"}') == {"x": "[{" * 500}
    assert parse_object(b'{"x": "\\"' + b"[" * 500 + b'"}') == {"x": '"' + "[" * 500}


def test_an_unfinished_string_hides_no_depth() -> None:
    assert isinstance(parse_object(b'{"x": "' + b"[" * 500), Flaw)
