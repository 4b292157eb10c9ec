"""Where a token is looked for, and that two different ones are never chosen between (A01, A15)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.credentials.bearer import Headers, find_token, parse_sources, without_token
from gateway.credentials.outcomes import Source, Unauthenticated
from policies.reasons import Reason

HEADER = parse_sources(["header"])
ALL = parse_sources(["query:access_token", "cookie:session", "header"])


def found(sources: tuple[Source, ...], headers: Headers, query: bytes = b"") -> tuple[bytes, str]:
    outcome = find_token(sources, headers, query)
    assert not isinstance(outcome, Unauthenticated), outcome
    token, places = outcome
    return token, places[0].kind


def reason(sources: tuple[Source, ...], headers: Headers, query: bytes = b"") -> Reason:
    outcome = find_token(sources, headers, query)
    assert isinstance(outcome, Unauthenticated)
    return outcome.reason


@pytest.mark.parametrize("value", [b"Bearer a.b.c", b"bearer a.b.c", b"BEARER   a.b.c", b" Bearer a.b.c\t"])
def test_the_scheme_is_read_in_any_case_and_blanks_around_the_field_are_no_part_of_it(value: bytes) -> None:
    assert found(HEADER, [(b"authorization", value)]) == (b"a.b.c", "header")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer\ta.b.c")],
        [(b"authorization", b"Bearera.b.c")],
        [(b"authorization", b"a.b.c")],
        [(b"proxy-authorization", b"Bearer a.b.c")],
        [(b"cookie", b"session=a.b.c")],
    ],
)
def test_without_a_bearer_token_in_the_header_the_token_is_missing(headers: Headers) -> None:
    assert reason(HEADER, headers, b"access_token=a.b.c") is Reason.TOKEN_MISSING


def test_a_missing_token_has_no_error_code() -> None:
    outcome = find_token(HEADER, [], b"")
    assert isinstance(outcome, Unauthenticated)
    assert outcome.error is None


@pytest.mark.parametrize(
    "values", [(b"Bearer p", b"Bearer f"), (b"Bearer p", b"Bearer p"), (b"Basic x", b"Bearer p"), (b"Bearer p", b"")]
)
def test_two_authorization_fields_are_a_bad_request(values: tuple[bytes, bytes]) -> None:
    assert reason(HEADER, [(b"authorization", value) for value in values]) is Reason.BAD_REQUEST


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"authorization", b"Bearer p"), (b"cookie", b"session=f")], b""),
        ([(b"authorization", b"Bearer p")], b"access_token=f"),
        ([(b"cookie", b"session=p")], b"access_token=f"),
        ([(b"cookie", b"session=p; session=f")], b""),
        ([(b"cookie", b"session=p"), (b"cookie", b"a=b; session=f")], b""),
        ([], b"access_token=p&access_token=f"),
        ([], b"access_token=p&access%5Ftoken=f"),
        ([(b"authorization", b"Bearer p"), (b"cookie", b"session=p")], b"a=1&access_token=f"),
    ],
)
def test_two_different_credentials_are_a_bad_request(headers: Headers, query: bytes) -> None:
    outcome = find_token(ALL, headers, query)
    assert isinstance(outcome, Unauthenticated)
    assert (outcome.reason, outcome.error) == (Reason.BAD_REQUEST, "invalid_request")


@pytest.mark.parametrize(
    ("headers", "query", "place"),
    [
        ([(b"cookie", b"a=b; session=t; c=d")], b"", "cookie"),
        ([(b"cookie", b"a=b"), (b"cookie", b"session=t")], b"", "cookie"),
        ([(b"cookie", b"session=; session=t")], b"", "cookie"),
        ([(b"authorization", b"Basic YTpi"), (b"cookie", b"session=t")], b"", "cookie"),
        ([], b"a=1&access_token=t&b=2", "query"),
        ([], b"access_token=%74", "query"),
        ([(b"authorization", b"Bearer t"), (b"cookie", b"session=t")], b"access_token=t", "header"),
        ([(b"cookie", b"xsession=f; session2=g; session=t")], b"", "cookie"),
    ],
)
def test_one_token_is_found_wherever_it_may_be(headers: Headers, query: bytes, place: str) -> None:
    assert found(ALL, headers, query) == (b"t", place)


def test_every_place_that_holds_the_token_is_named_once_in_the_order_of_the_sources() -> None:
    headers = [(b"cookie", b"session=t; session=t"), (b"authorization", b"Bearer t")]
    outcome = find_token(ALL, headers, b"access_token=t")
    assert not isinstance(outcome, Unauthenticated)
    assert [place.kind for place in outcome[1]] == ["header", "query", "cookie"]


def test_places_that_are_not_named_are_not_looked_at() -> None:
    cookie_only = parse_sources(["cookie:session"])
    headers = [(b"authorization", b"Bearer x"), (b"cookie", b"session=t")]
    assert found(cookie_only, headers, b"access_token=y") == (b"t", "cookie")


@pytest.mark.parametrize("word", ["", "Header", "cookie", "cookie:", "query:", "body:token", "header:x"])
def test_a_word_that_is_no_place_is_an_error(word: str) -> None:
    with pytest.raises(ValueError, match="is not header, cookie:NAME or query:NAME"):
        parse_sources(["header", word])


@pytest.mark.parametrize(
    ("headers", "query", "kept_headers", "kept_query"),
    [
        ([(b"a", b"1"), (b"authorization", b"Bearer t"), (b"b", b"2")], b"", [(b"a", b"1"), (b"b", b"2")], b""),
        ([(b"authorization", b"Basic YTpi")], b"", [(b"authorization", b"Basic YTpi")], b""),
        ([(b"cookie", b"a=b; session=t; c=d")], b"", [(b"cookie", b"a=b; c=d")], b""),
        ([(b"cookie", b"session=t; c=d")], b"", [(b"cookie", b"c=d")], b""),
        ([(b"cookie", b"session=t")], b"", [], b""),
        ([(b"cookie", b"a = b;;c")], b"", [(b"cookie", b"a = b;;c")], b""),
        ([], b"a=%2f&access_token=t&&b=+", [], b"a=%2f&&b=+"),
        ([], b"access%5ftoken=t", [], b""),
        ([], b"a=1&&;x=%zz", [], b"a=1&&;x=%zz"),
    ],
)
def test_the_token_is_taken_out_and_the_rest_stays_byte_for_byte(
    headers: Headers, query: bytes, kept_headers: Headers, kept_query: bytes
) -> None:
    assert without_token(ALL, headers, query) == (kept_headers, kept_query)


def as_header(token: bytes) -> tuple[Headers, bytes]:
    return [(b"authorization", b"bEARER " + token)], b""


def as_cookie(token: bytes) -> tuple[Headers, bytes]:
    return [(b"cookie", b" session = " + token + b" ;x=y")], b""


def as_query(token: bytes) -> tuple[Headers, bytes]:
    return [], b"access_%74oken=" + token


@pytest.mark.parametrize("place", [as_header, as_cookie, as_query])
def test_whatever_is_found_is_also_taken_out(place: Callable[[bytes], tuple[Headers, bytes]]) -> None:
    headers, query = place(b"t.o.k")
    assert found(ALL, headers, query)[0] == b"t.o.k"
    assert isinstance(find_token(ALL, *without_token(ALL, headers, query)), Unauthenticated)
    assert b"t.o.k" not in repr(without_token(ALL, headers, query)).encode()
