"""What an API's bytes become for the caller of a gateway as it is run: whole answers, broken ones that look it, or a 502."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from tests.support.rawclient import RawClient
from tests.support.stack import Gateway, running_gateway

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.support.recorder import Recorder, Script

GET = b"GET %b HTTP/1.%d\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("answers"), upstream=recorder.url) as gateway:
        yield gateway


def says(answer: bytes) -> Script:
    """Say it and hang up."""

    def script(connection: socket.socket, begun: bytes) -> None:
        connection.sendall(answer)

    return script


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: 1\x002\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 \xff\xff OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
async def test_an_answer_that_can_not_be_read_one_way_is_a_502(
    gateway: Gateway, recorder: Recorder, answer: bytes
) -> None:
    recorder.scripts["/public/bad"] = says(answer)
    async with await RawClient.connect(gateway.address) as client:
        refused = await client.ask(GET % (b"/public/bad", 1))
        assert (refused.status, refused.one("x-gateway-reason")) == (502, "upstream_protocol_error")
        assert (await client.ask(GET % (b"/public/x", 1))).body == b"recorded"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
async def test_an_answer_that_breaks_off_never_looks_whole(gateway: Gateway, recorder: Recorder, answer: bytes) -> None:
    recorder.scripts["/public/half"] = says(answer)
    async with await RawClient.connect(gateway.address) as client:
        got = await client.ask(GET % (b"/public/half", 1))
    assert (got.status, got.body, got.whole) == (200, b"half", False)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"], ids=["head", "body"])
async def test_an_api_that_falls_silent_is_a_504_or_breaks_off(
    gateway: Gateway, recorder: Recorder, begun: bytes
) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begun)
        connection.recv(1)  # until the gateway gives up

    recorder.scripts["/brisk/silent"] = script
    async with await RawClient.connect(gateway.address) as client:
        got = await client.ask(GET % (b"/brisk/silent", 1))
    assert (got.status, got.whole) == ((200, False) if begun else (504, True))


async def test_an_answer_before_the_end_of_the_body_reaches_the_caller(gateway: Gateway, recorder: Recorder) -> None:
    recorder.scripts["/public/early"] = says(b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nbig")
    async with await RawClient.connect(gateway.address) as client:
        head = b"POST /public/early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin"
        got = await client.ask(head)
    assert (got.status, got.body, got.one("x-gateway-reason")) == (413, b"big", None)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.0 200 OK\r\n\r\nok",
    ],
)
@pytest.mark.parametrize("minor", [0, 1])
async def test_each_framing_reaches_callers_of_either_version(
    gateway: Gateway, recorder: Recorder, answer: bytes, minor: int
) -> None:
    recorder.scripts["/public/framed"] = says(answer)
    async with await RawClient.connect(gateway.address) as client:
        got = await client.ask(GET % (b"/public/framed", minor))
    assert (got.status, got.body, got.whole) == (200, b"ok", True)
    assert not got.all("x-late")
    if minor == 0:
        assert got.all("transfer-encoding") == []
        assert got.one("connection") == "close"


async def test_redirects_and_repeated_fields_pass_as_they_are(gateway: Gateway, recorder: Recorder) -> None:
    fields = [("Location", f"{recorder.url}/public/x"), ("Set-Cookie", "a=1"), ("Vary", "A"), ("Set-Cookie", "b=2")]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    recorder.scripts["/public/moved"] = says(f"HTTP/1.1 307 X\r\n{lines}Content-Length: 0\r\n\r\n".encode())
    recorder.taken()
    async with await RawClient.connect(gateway.address) as client:
        got = await client.ask(GET % (b"/public/moved", 1))
    assert got.status == 307
    assert [(name, value) for name, value in got.headers if name in {"Location", "Set-Cookie", "Vary"}] == fields
    assert len(recorder.taken()) == 1


async def test_an_encoded_body_arrives_byte_for_byte_with_its_length_and_etag(
    gateway: Gateway, recorder: Recorder
) -> None:
    body = gzip.compress(b"the same thing again and again " * 1000)
    fields = [("Content-Encoding", "gzip"), ("ETag", 'W/"a-1"'), ("Content-Length", str(len(body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    recorder.scripts["/public/encoded"] = says(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body)
    async with await RawClient.connect(gateway.address) as client:
        got = await client.ask(GET % (b"/public/encoded", 1))  # which never said that it takes gzip
    assert got.body == body
    assert got.headers == fields


@pytest.mark.parametrize(("method", "status", "times"), [("GET", 200, 2), ("POST", 502, 1)])
async def test_what_meets_a_connection_that_the_api_closes_is_sent_again_only_where_that_does_no_harm(
    gateway: Gateway, recorder: Recorder, method: str, status: int, times: int
) -> None:
    came = 0

    def script(connection: socket.socket, _: bytes) -> None:
        nonlocal came
        came += 1
        if came > 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain")

    recorder.scripts["/public/closing"] = script
    async with await RawClient.connect(gateway.address) as client:
        assert (await client.ask(GET % (b"/public/x", 1))).status == 200  # leaves a connection that is kept
        recorder.taken()
        body = b"Content-Length: 2\r\n\r\nab" if method == "POST" else b"\r\n"
        got = await client.ask(b"%b /public/closing HTTP/1.1\r\nHost: a\r\n%b" % (method.encode(), body))
    assert got.status == status
    assert len(recorder.taken()) == came == times


@pytest.mark.parametrize(
    "fields",
    [[("X-Long", "x" * 60 * 1024)], [(f"X-{number}", "1") for number in range(200)], [("Location", "/" + "x" * 8192)]],
    ids=["a field of 60 KiB", "200 fields", "a Location of 8 KiB"],
)
async def test_large_heads_of_answers_pass(gateway: Gateway, recorder: Recorder, fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    recorder.scripts["/public/large-head"] = says(f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok".encode())
    client = await RawClient.connect(gateway.address, receive_buffer=256 * 1024)
    async with client:
        got = await client.ask(GET % (b"/public/large-head", 1))
    assert (got.status, got.body, got.headers[: len(fields)]) == (200, b"ok", fields)
