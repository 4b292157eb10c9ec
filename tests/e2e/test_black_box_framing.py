"""No framing has two readings: what a caller's bytes become upstream is one request, framed once, or nothing.

The tables of `tests/support/framings.py` hold the spellings by which requests were smuggled past others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.framings import DOUBTFUL_CHUNKS, FRAMINGS, LENGTHS
from tests.support.rawbytes import SMUGGLED, parts_of, statuses_of, unchunked
from tests.support.stack import Gateway, running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.recorder import Recorder


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("requests"), upstream=recorder.url) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def nothing_recorded_yet(recorder: Recorder) -> None:
    recorder.taken()


def _assert_no_two_readings(recorder: Recorder, statuses: list[int], sent_body: bytes) -> None:
    """Refused and nothing forwarded; or one request with one framing, whose body is what was sent; no third way."""
    taken = recorder.taken()
    if not taken:
        assert statuses
        assert all(400 <= status < 500 for status in statuses), statuses
        return
    assert len(taken) == 1, taken
    line, headers, body = parts_of(taken[0])
    assert line == b"POST /public/x HTTP/1.1"
    folded = [name.replace(b"_", b"-") for name in headers]
    assert (b"content-length" in headers) != (b"transfer-encoding" in headers), headers
    assert not any(b"transfer" in name for name in folded if name not in {b"transfer-encoding", b"x-transfer-encoding"})
    assert (unchunked(body) if b"transfer-encoding" in headers else body) == sent_body


@pytest.mark.parametrize(("name", "value"), FRAMINGS.values(), ids=FRAMINGS)
async def test_a_length_beside_any_spelling_of_chunked_has_one_reading_or_is_refused(
    gateway: Gateway, recorder: Recorder, name: bytes, value: bytes
) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    for fields in (
        b"Content-Length: %d\r\n%b: %b\r\n" % (len(body), name, value),
        b"%b: %b\r\nContent-Length: %d\r\n" % (name, value, len(body)),
    ):
        sent = b"POST /public/x HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body
        _assert_no_two_readings(recorder, await statuses_of(gateway, sent), body)
    assert gateway.ask("/public/victim").text == "recorded"


@pytest.mark.parametrize(("name", "value"), FRAMINGS.values(), ids=FRAMINGS)
async def test_chunked_in_any_spelling_is_understood_or_refused(
    gateway: Gateway, recorder: Recorder, name: bytes, value: bytes
) -> None:
    head = b"POST /public/x HTTP/1.1\r\nHost: a\r\n%b: %b\r\n\r\n" % (name, value)
    statuses = await statuses_of(gateway, head + b"5\r\nhello\r\n0\r\n\r\n")
    for request in recorder.taken():
        line, headers, body = parts_of(request)
        assert line == b"POST /public/x HTTP/1.1"
        if b"transfer-encoding" in headers:
            assert (headers[b"transfer-encoding"], unchunked(body)) == (b"chunked", b"hello")
        else:  # nothing there announced a body, and what follows is no request
            assert body == b""
            assert statuses[1:] == [400]


@pytest.mark.parametrize("spelling", LENGTHS)
async def test_a_length_in_any_spelling_is_understood_or_refused(
    gateway: Gateway, recorder: Recorder, spelling: bytes
) -> None:
    count = spelling.count(b"%")
    length = spelling % ((len(SMUGGLED),) * count) if count else spelling
    sent = b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % length + SMUGGLED
    _assert_no_two_readings(recorder, await statuses_of(gateway, sent), SMUGGLED)


@pytest.mark.parametrize("body", DOUBTFUL_CHUNKS)
async def test_chunks_that_could_be_read_otherwise_never_look_whole_upstream(
    gateway: Gateway, recorder: Recorder, body: bytes
) -> None:
    sent = b"POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED
    statuses = await statuses_of(gateway, sent)
    assert statuses[:1] != [200], statuses
    for request in recorder.taken():
        assert not request.startswith(b"GET")
        assert not request.endswith(b"0\r\n\r\n")


async def test_what_follows_a_refused_request_is_never_read(gateway: Gateway, recorder: Recorder) -> None:
    for sent in (b"POST /pro/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED), b"GET /x\r\n\r\n"):
        assert all(status >= 400 for status in await statuses_of(gateway, sent + SMUGGLED))
        assert recorder.taken() == []
