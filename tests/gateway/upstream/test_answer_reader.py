"""The reader of answers, bytes in and meaning out: however the bytes are cut, they mean the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.answer import AnswerReader
from gateway.upstream.opening import OpeningReader

ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nA: b\r\n\r\nhello world", b"hello world"),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Late: 1\r\n\r\n",
        b"hello world",
    ),
    "informational first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
    ),
    "304 with length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 11\r\n\r\n", b""),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@settings(deadline=None)
@given(answer=st.sampled_from(sorted(ANSWERS)), places=st.lists(st.integers(0, 1000), max_size=12))
def test_an_answer_means_the_same_however_its_bytes_are_cut(answer: str, places: list[int]) -> None:
    data, expected = ANSWERS[answer]
    reader = AnswerReader(to_head=False)
    body = b""
    for piece in cut(data, places):
        assert not reader.complete
        reader.feed(piece)
        body += reader.take_body()
    assert (reader.complete, reader.problem, reader.reusable, body) == (True, None, True, expected)
    assert reader.head is not None
    assert not any(name in {b"Link", b"X-Late"} for name, _ in reader.head.headers)


@settings(deadline=None)
@given(
    answer=st.sampled_from(sorted(ANSWERS)),
    places=st.lists(st.integers(0, 1000), max_size=12),
    behind=st.sampled_from(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b"x", b"\0", b"HTTP/1.1 100 C\r\n\r\n"]
    ),
)
def test_bytes_behind_an_answer_add_nothing_to_it_and_make_the_connection_unusable(
    answer: str, places: list[int], behind: bytes
) -> None:
    data, expected = ANSWERS[answer]
    reader = AnswerReader(to_head=False)
    body = b""
    for piece in cut(data + behind, places):
        reader.feed(piece)
        body += reader.take_body()
    assert (reader.complete, reader.problem, reader.reusable, body) == (True, None, False, expected)


@settings(deadline=None)
@given(answer=st.sampled_from(sorted(ANSWERS)), length=st.integers(0, 1000))
def test_an_answer_cut_short_is_never_complete(answer: str, length: int) -> None:
    data, _ = ANSWERS[answer]
    reader = AnswerReader(to_head=False)
    reader.feed(data[: length % len(data)])
    reader.finish()
    assert not reader.complete
    assert reader.problem is not None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_read_without_a_defect(data: bytes) -> None:
    for start in (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        reader = AnswerReader(to_head=False)
        reader.feed(start + data)
        reader.finish()
        assert reader.complete is (reader.problem is None)
        assert not reader.reusable or reader.complete


def test_a_body_that_lasts_until_the_close_ends_with_it() -> None:
    reader = AnswerReader(to_head=False)
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall")
    assert not reader.complete
    reader.finish()
    assert (reader.complete, reader.reusable, reader.take_body()) == (True, False, b"all")


TO_HEAD: list[bytes] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nA:\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
]


@settings(deadline=None)
@given(
    data=st.sampled_from(TO_HEAD),
    places=st.lists(st.integers(0, 1000), max_size=12),
    behind=st.sampled_from(
        [b"", b"x", b"\n", b"\r\n", b"hello", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"]
    ),
)
def test_the_answer_to_a_head_ends_with_its_head_to_the_byte(data: bytes, places: list[int], behind: bytes) -> None:
    reader = AnswerReader(to_head=True)
    fed = 0
    for piece in cut(data + behind, places):
        reader.feed(piece)
        fed += len(piece)
        assert reader.complete is (fed >= len(data))
    assert (reader.complete, reader.problem, reader.take_body()) == (True, None, b"")
    assert reader.reusable is (behind == b"")
    assert reader.bodiless


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_at_all_in_answer_to_a_head_are_read_without_a_defect(data: bytes) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
        reader = AnswerReader(to_head=True)
        reader.feed(start + data)
        reader.finish()
        assert reader.complete is (reader.problem is None)
        assert not reader.reusable
        assert reader.take_body() == b""


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", None, True),
        ("1.1", "keep-alive", True),
        ("1.1", "X-Hop", True),
        ("1.1", "X-Hop ,  CLOSE", False),
        ("1.1", "closed", True),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
    ],
)
@pytest.mark.parametrize("to_head", [False, True])
def test_both_sides_must_have_agreed_to_go_on(version: str, connection: str | None, kept: bool, to_head: bool) -> None:
    field = "" if connection is None else f"Connection: {connection}\r\n"
    reader = AnswerReader(to_head=to_head)
    reader.feed(f"HTTP/{version} 200 OK\r\n{field}Content-Length: 0\r\n\r\n".encode())
    assert (reader.complete, reader.reusable) == (True, kept)


@pytest.mark.parametrize("connection", [b"close", b"Close, x"])
def test_a_connection_that_the_upstream_closes_is_not_used_again(connection: bytes) -> None:
    reader = AnswerReader(to_head=False)
    reader.feed(b"HTTP/1.1 200 OK\r\nConnection: %b\r\nContent-Length: 0\r\n\r\n" % connection)
    assert (reader.complete, reader.reusable) == (True, False)


def test_nothing_that_is_swallowed_is_unbounded() -> None:
    for endless in (b"HTTP/1.1 100 C\r\n\r\n", b"X: 1\r\n"):
        reader = AnswerReader(to_head=False)
        reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" if endless == b"X: 1\r\n" else b"")
        for _ in range(100):
            reader.feed(endless * 1000)
        assert reader.problem is not None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_reader_begins_anew_only_where_its_connection_goes_on(head: bytes) -> None:
    reader = AnswerReader(to_head=False)
    reader.feed(head)
    keeps = b"close" not in head
    assert reader.renew() is keeps
    if keeps:
        assert (reader.head, reader.take_body(), reader.complete, reader.untouched) == (None, b"", False, True)


def test_the_reader_of_an_opening_reads_no_other_answer() -> None:
    reader = OpeningReader(b"an accept")
    reader.feed(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert (reader.reusable, reader.renew()) == (True, False)
