"""What a caller's bytes become upstream on a gateway as it is run: bodies, fields of one hop, patience and departures."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.rawbytes import SMUGGLED, parts_of, statuses_of, unchunked
from tests.support.rawclient import RawClient
from tests.support.stack import Gateway, plain_environment, running_gateway, token_for
from tests.support.watching import resident_bytes

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.support.recorder import Recorder


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("requests"), upstream=recorder.url) as gateway:
        gateway.grant("P")
        yield gateway


@pytest.fixture(autouse=True)
def nothing_recorded_yet(recorder: Recorder) -> None:
    recorder.taken()


@pytest.mark.parametrize(
    ("request_line", "fields", "body", "framing"),
    [
        ("GET", b"Content-Length: 4\r\n", b"body", (b"4", None)),
        ("DELETE", b"Content-Length: 4\r\n", b"body", (b"4", None)),
        ("POST", b"Content-Length: 0\r\n", b"", (b"0", None)),
        ("POST", b"", b"", (None, None)),
        ("GET", b"", b"", (None, None)),
        ("GET", b"Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n", (None, b"chunked")),
    ],
)
async def test_a_body_goes_up_as_it_was_framed_and_none_is_made_up(
    gateway: Gateway,
    recorder: Recorder,
    request_line: str,
    fields: bytes,
    body: bytes,
    framing: tuple[bytes | None, bytes | None],
) -> None:
    sent = b"%b /public/x HTTP/1.1\r\nHost: a\r\n%b\r\n%b" % (request_line.encode(), fields, body)
    assert await statuses_of(gateway, sent) == [200]
    [request] = recorder.taken()
    _, headers, received = parts_of(request)
    assert (headers.get(b"content-length"), headers.get(b"transfer-encoding")) == framing
    assert received == body


async def test_sixteen_megabytes_in_one_chunk_arrive_byte_for_byte(gateway: Gateway, recorder: Recorder) -> None:
    body = bytes(range(256)) * 65536
    async with await RawClient.connect(gateway.address) as client:
        head = b"POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + b'%x;a=b;c="d"\r\n%b\r\n0\r\nX-Late: 1\r\n\r\n' % (len(body), body))
        assert (await client.answer()).status == 200
    _, headers, received = parts_of(recorder.taken()[0])
    assert b"x-late" not in headers
    assert unchunked(received) == body


async def test_a_hundred_requests_in_one_go_are_answered_in_order_each_by_its_own_verdict(
    gateway: Gateway, recorder: Recorder
) -> None:
    kinds = [
        (b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /pro/x HTTP/1.1\r\nHost: a\r\n\r\n", 401),
        (b"GET /pro/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token_for("F").encode(), 402),
        (b"POST /pro/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: 2\r\n\r\nab" % token_for("P").encode(), 200),
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"POST /pro/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 401),
        (b"DELETE /only-get/x HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ]  # fmt: skip
    sent = [kinds[number * number % len(kinds)] for number in range(100)]
    async with await RawClient.connect(gateway.address) as client:
        await client.send(b"".join(request for request, _ in sent))
        assert [(await client.answer()).status for _ in sent] == [status for _, status in sent]
    assert len(recorder.taken()) == sum(status == 200 for _, status in sent)


async def test_what_follows_connection_close_is_not_answered(gateway: Gateway, recorder: Recorder) -> None:
    sent = b"GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert await statuses_of(gateway, sent + SMUGGLED) == [200]
    assert len(recorder.taken()) == 1


async def test_fields_that_come_several_times_arrive_in_order_and_byte_for_byte(
    gateway: Gateway, recorder: Recorder
) -> None:
    fields = [b"X-D: 1", b"Cookie: a=1", b"X-D: 2", b"X-Latin: caf\xe9", b"X-Empty:", b"Cookie: b=2", b"X-D: 1"]
    await statuses_of(gateway, b"\r\n".join([b"GET /public/x HTTP/1.1", b"Host: a", *fields, b"", b""]))
    sent = [line.replace(b": ", b":") for line in recorder.taken()[0].split(b"\r\n")]
    named = [line for line in sent if line.lower().startswith((b"x-d:", b"cookie:", b"x-latin:", b"x-empty:"))]
    assert [line.lower() for line in named] == [line.lower().replace(b": ", b":") for line in fields]


async def test_fields_of_this_hop_stop_here(gateway: Gateway, recorder: Recorder) -> None:
    fields = [
        *(b"Connection: X-Foo, close, X-Bar", b"Connection: x-baz", b"X-Foo: 1", b"X-Bar: 1", b"X-Baz: 1", b"X-Keep: 1"),
        *(b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic YTpi", b"TE: trailers"),
        *(b"Trailer: X", b"Upgrade: foo", b"Proxy-Authenticate: Basic"),
    ]  # fmt: skip
    await statuses_of(gateway, b"\r\n".join([b"GET /public/x HTTP/1.1", b"Host: a", *fields, b"", b""]))
    names = set(parts_of(recorder.taken()[0])[1])
    assert {name for name in names if not name.startswith((b"x-forwarded-", b"x-request-id"))} == {b"host", b"x-keep"}


async def test_a_plain_get_arrives_with_what_is_documented_and_nothing_else(
    gateway: Gateway, recorder: Recorder
) -> None:
    await statuses_of(gateway, b"GET /public/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    line, headers, body = parts_of(recorder.taken()[0])
    assert (line, body) == (b"GET /public/x HTTP/1.1", b"")
    assert re.fullmatch(rb"[\w-]+", headers.pop(b"x-request-id"))
    assert headers == {
        b"host": recorder.url.removeprefix("http://").encode(),
        b"x-forwarded-for": b"127.0.0.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"api.example.com",
    }


async def test_a_caller_who_waits_for_permission_is_told_to_go_on_only_where_his_body_is_wanted(
    gateway: Gateway, recorder: Recorder
) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    async with await RawClient.connect(gateway.address) as client:
        await client.send(head % b"/public/x")
        assert (await client.head())[0] == 100
        assert (await client.ask(b"body")).status == 200
    assert parts_of(recorder.taken()[0])[2] == b"body"
    async with await RawClient.connect(gateway.address) as client:
        assert (await client.ask(head % b"/pro/x")).status == 401
        assert await client.rest() == b""
    assert recorder.taken() == []
    async with await RawClient.connect(gateway.address) as client:  # RFC 9110, section 10.1.1: may be ignored
        answer = await client.ask(b"GET /public/x HTTP/1.1\r\nHost: a\r\nExpect: something-else\r\n\r\n")
        assert answer.status in {200, 417}


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_beyond_its_routes_limit_never_becomes_a_whole_request(
    gateway: Gateway, recorder: Recorder, chunked: bool
) -> None:
    came = threading.Event()
    received: list[bytes] = []

    def script(connection: socket.socket, begun: bytes) -> None:
        received.append(begun)
        while data := connection.recv(65536):
            received.append(data)
        came.set()

    recorder.scripts["/small/x"] = script
    body = b"x" * 70_000
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    async with await RawClient.connect(gateway.address) as client:
        piece = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        answer = await client.ask(b"POST /small/x HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing + piece)
    assert (answer.status, answer.one("x-gateway-reason")) == (413, "body_too_large")
    if chunked:  # its length was not known before it was too long
        assert await asyncio.to_thread(came.wait, 10)
        assert not b"".join(received).endswith(b"0\r\n\r\n")
    else:
        assert recorder.taken() == []


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_a_caller_who_dies_within_his_body_leaves_no_whole_request_behind(
    gateway: Gateway, recorder: Recorder, framing: bytes
) -> None:
    half = b"32\r\n" + b"h" * 50 + b"\r\n" if b"chunked" in framing else b"h" * 50
    got_half, ended = threading.Event(), threading.Event()
    received: list[bytes] = []

    def script(connection: socket.socket, begun: bytes) -> None:
        received.append(begun)
        while len(b"".join(received)) < len(half):
            received.append(connection.recv(65536))
        got_half.set()
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            received.append(data)
            if not data:
                ended.set()
                return

    recorder.scripts["/public/dies"] = script
    client = await RawClient.connect(gateway.address)
    await client.send(b"POST /public/dies HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing + half)
    assert await asyncio.to_thread(got_half.wait, 10)
    client.reset()
    assert await asyncio.to_thread(ended.wait, 10)
    assert b"".join(received) == half


async def test_an_api_that_does_not_read_holds_the_caller_back_and_costs_no_memory(
    gateway: Gateway, recorder: Recorder
) -> None:
    release = threading.Event()

    def script(connection: socket.socket, begun: bytes) -> None:
        release.wait(30)

    recorder.scripts["/public/deaf"] = script
    client = await RawClient.connect(gateway.address)
    pushed = 0

    async def push() -> None:
        nonlocal pushed
        await client.send(b"POST /public/deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await client.send(b"x" * 100_000)
            pushed += 100_000

    before = resident_bytes(gateway.running.pid)
    pushing = asyncio.create_task(push())
    seen = -1
    while pushed != seen:  # until it stands still
        seen = pushed
        await asyncio.sleep(0.5)
    assert pushed < 32_000_000
    assert resident_bytes(gateway.running.pid) - before < 16 * 1024 * 1024
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)
    client.reset()
    release.set()


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Caller {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 0; number < 3; number++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .POST(HttpRequest.BodyPublishers.ofString("body " + number)).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


def test_the_stock_java_client_which_offers_http_2_loses_no_body(
    gateway: Gateway, recorder: Recorder, tmp_path: Path
) -> None:
    if shutil.which("java") is None or shutil.which("javac") is None:  # the second compiles what the first runs
        pytest.skip("there is no Java to run")
    source = tmp_path / "Caller.java"
    source.write_text(JAVA)
    done = subprocess.run(
        ["java", str(source), f"{gateway.base}/public/java"],
        capture_output=True, text=True, timeout=60, check=False, env=plain_environment(),
    )  # fmt: skip
    assert done.stdout == "200 recorded\n" * 3, done.stderr
    assert [parts_of(request)[2] for request in recorder.taken()] == [b"body 0", b"body 1", b"body 2"]


def test_curls_offer_of_http_2_loses_no_body(gateway: Gateway, recorder: Recorder) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl to run")
    done = subprocess.run(
        ["curl", "-sS", "--http2", "--noproxy", "*", "-d", "a body", f"{gateway.base}/public/curl"],
        capture_output=True, text=True, timeout=30, check=False, env=plain_environment(),
    )  # fmt: skip
    assert done.stdout == "recorded", done.stderr
    [request] = recorder.taken()
    assert parts_of(request)[2] == b"a body"
