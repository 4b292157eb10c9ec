"""What the listener takes for a request, what it refuses, and how long it waits (A10, A12, B07, B08, E01, E02)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.listener_head import ListenerLimits
from gateway.upstream.outcome import TARGET_KEY
from tests.support.gateways import listening
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from gateway.upstream.outcome import Receive, Scope, Send
    from tests.support.rawclient import RawAnswer


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class Recorder:
    """Answers 200 to everything after reading the body, unless told to answer at once, and keeps what it saw."""

    def __init__(self, *, reads_body: bool = True, answer_headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.broken_bodies = 0
        self.reads_body = reads_body
        self.answer_headers = answer_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = b""
        more = self.reads_body
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.broken_bodies += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        headers = [*self.answer_headers, (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


REFUSED: dict[str, tuple[bytes, str]] = {
    # The request line.
    "HTTP/0.9": (b"GET /\r\n\r\n", "bad_request"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "bad_request"),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "bad_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_request"),
    "RTSP": (b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", "bad_request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "bad_request"),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "RTSP, and a field that is a line of HTTP": (
        b"GET / RTSP/1.0\r\nHost: a\r\nX: GET / HTTP/1.1\r\n\r\n",
        "bad_request",
    ),
    "two spaces, and a field with one": (b"GET  / HTTP/1.1\r\nHost: a\r\nX: GET / HTTP/1.1\r\n\r\n", "bad_request"),
    "RTSP that offers another protocol": (
        b"GET / RTSP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
        "bad_request",
    ),
    "lower-case method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "unknown method": (b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", "bad_request"),
    "absolute-form": (b"GET http://evil/pro HTTP/1.1\r\nHost: a\r\n\r\n", "bad_path"),
    "authority-form": (b"CONNECT h:1 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_path"),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_path"),
    "GET asterisk": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_path"),
    "relative": (b"GET pro HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "non-ASCII target": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request"),
    # Host.
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", "bad_request"),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "bad_request"),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad_request"),
    "two dots at the end of the Host": (b"GET / HTTP/1.1\r\nHost: a..\r\n\r\n", "bad_request"),
    "an empty label in the Host": (b"GET / HTTP/1.1\r\nHost: a..b:80\r\n\r\n", "bad_request"),
    "a dot in front of the Host": (b"GET / HTTP/1.1\r\nHost: .a\r\n\r\n", "bad_request"),
    "a path in the Host": (b"GET / HTTP/1.1\r\nHost: gw/free/x?\r\n\r\n", "bad_request"),
    "a space in the Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_request"),
    "userinfo in the Host": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "bad_request"),
    "a bad Host in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a,b\r\n\r\n", "bad_request"),
    # Headers.
    "space before the colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", "bad_request"),
    "folded header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "bad_request"),
    "NUL in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n", "bad_request"),
    "CR in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", "bad_request"),
    # Framing.
    "two lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "bad_request"),
    "same length twice": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "bad_request",
    ),
    "signed length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "bad_request"),
    "list of lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", "bad_request"),
    "length and chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    "chunked and length": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    **{
        f"Transfer-Encoding {value!r}": (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %b\r\n\r\n0\r\n\r\n" % value,
            "bad_request",
        )
        for value in (
            b"gzip",
            b"gzip, chunked",
            b",chunked",
            b"chunked,",
            b"xchunked",
            b"chunked;a=b",
            b"",
            b"identity",
        )
    },
    "Transfer-Encoding twice": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    "chunked in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    "bad framing behind an upgrade": (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        "bad_request",
    ),
    # Size.
    "long target": (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "uri_too_long"),
    "endless target": (b"GET /" + b"a" * 300_000, "uri_too_long"),
    "65 KiB of headers": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %b\r\n" % (b"a" * 1024) * 65 + b"\r\n",
        "headers_too_large",
    ),
    "one endless header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000, "headers_too_large"),
    "one endless header name": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 300_000, "headers_too_large"),
    "101 headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 100 + b"\r\n", "headers_too_large"),
    "5000 headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 5000 + b"\r\n", "headers_too_large"),
    "endless blank lines": (b"\r\n" * 100_000, "headers_too_large"),
}

STATUS = {"bad_request": 400, "bad_path": 400, "uri_too_long": 414, "headers_too_large": 431, "request_timeout": 408}


def assert_refused(answer: RawAnswer, reason: str) -> None:
    assert (answer.status, answer.one("x-gateway-reason")) == (STATUS[reason], reason)
    assert answer.one("content-type") == "application/problem+json"
    assert answer.one("cache-control") == "no-store"
    assert answer.one("vary") == "Authorization, Accept"
    assert answer.one("connection") == "close"
    problem = json.loads(answer.body)
    assert (problem["status"], problem["reason"]) == (STATUS[reason], reason)
    assert problem["request_id"] == answer.one("x-request-id")


@pytest.mark.parametrize(("sent", "reason"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_a_request_is_refused_in_the_gateways_shape_and_ends_the_connection(
    sent: bytes, reason: str
) -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        client.writer.write(sent)
        assert_refused(await client.answer(), reason)
        assert await client.rest() == b""
    assert app.scopes == []


@pytest.mark.parametrize(("sent", "reason"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_a_request_is_refused_byte_by_byte_too(sent: bytes, reason: str) -> None:
    if len(sent) > 500:
        sent = sent[:200_000]
        pieces = [sent[at : at + 997] for at in range(0, len(sent), 997)]
    else:
        pieces = [sent[at : at + 1] for at in range(len(sent))]
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        for piece in pieces:
            client.writer.write(piece)
            await asyncio.sleep(0)
        assert_refused(await client.answer(), reason)
    assert app.scopes == []


async def test_a_refusal_waits_for_the_answers_that_are_owed_before_it() -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        good = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send(good % 1 + good % 2 + b"GET / HTTP/1.1\r\n\r\n" + good % 3)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert_refused(await client.answer(), "bad_request")
        assert await client.rest() == b""
    assert [scope["path"] for scope in app.scopes] == ["/1", "/2"]


@pytest.mark.parametrize("before", [b"", b"\r\n", b"X: GET  /\r\n"])
@pytest.mark.parametrize("line", [b"GET  / HTTP/1.1", b"GET / RTSP/1.0", b"GET /  HTTP/1.1"])
async def test_the_line_of_an_earlier_request_or_its_body_vouches_for_no_other(line: bytes, before: bytes) -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        body = b"\r\nGET / HTTP/1.1\r\n" + before
        posted = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await client.send(good + posted + good.replace(b"GET / HTTP/1.1", line))
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert_refused(await client.answer(), "bad_request")
    assert [scope["method"] for scope in app.scopes] == ["GET", "POST"]


@pytest.mark.parametrize(
    "body", [b"", b"x", b"xGET / HTTP/1.1\r\n", b"GET / 200\r\nGET  /\r\n", b"a GET /x HTTP/1.1\r\nGET"]
)
async def test_a_plain_line_is_taken_wherever_it_begins(body: bytes) -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        posted = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await client.send(posted + good + b"\r\n" + good + posted + good)
        assert [(await client.answer()).status for _ in range(5)] == [200] * 5
    assert [scope["method"] for scope in app.scopes] == ["POST", "GET", "GET", "POST", "GET"]


async def test_a_body_that_goes_wrong_is_never_taken_for_whole() -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await asyncio.sleep(0.05)
        await client.send(b"zz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert_refused(await client.answer(), "bad_request")
    assert (app.bodies, app.broken_bodies, len(app.scopes)) == ([], 1, 1)


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["alone", "behind another"])
async def test_a_body_that_goes_wrong_in_the_read_of_its_head_is_refused(before: bytes) -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        await client.send(before + b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")
        if before:
            assert (await client.answer()).status == 200
        assert_refused(await client.answer(), "bad_request")
    assert [body for body in app.bodies if body] == []


@pytest.mark.parametrize(
    "trailers",
    [b"X: %b\r\n" % (b"a" * 300_000), b"X: 1\r\n" * 50_000],
    ids=["one", "many"],
)
async def test_endless_trailers_are_refused(trailers: bytes) -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + trailers)
        assert_refused(await client.answer(), "headers_too_large")
    assert app.bodies == []


async def test_trailers_never_become_headers() -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        answer = await client.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nAuthorization: evil\r\nHost: b\r\n\r\n"
        )
        assert answer.status == 200
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
    assert app.scopes[0]["headers"] == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    assert app.bodies == [b"hi", b""]


@pytest.mark.parametrize("target", [b"/a?", b"/a#b?c=d", b"/a?b#c", b"/%2e%2E//x%00?%zz", b"//evil/x", b'/\\"<>^`{|}'])
async def test_the_app_sees_the_target_byte_for_byte(target: bytes) -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        assert (await client.ask(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)).status == 200
    scope = app.scopes[0]
    assert scope[TARGET_KEY] == target
    path, _, query = target.partition(b"?")
    assert (scope["raw_path"], scope["query_string"]) == (path, query)


async def test_an_http_1_0_request_needs_no_host_and_is_not_kept() -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).one("connection") == "close"
        assert await client.rest() == b""


async def test_bytes_behind_connection_close_are_not_a_request() -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""
    assert [scope["path"] for scope in app.scopes] == ["/1"]


async def test_connection_close_in_trailers_ends_the_connection_with_the_answer() -> None:
    """The parser swallows what comes behind it without a word, so that whoever went on there would wait for ever."""
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        head = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await client.ask(head + b"0\r\nConnection: close\r\n\r\n")
        assert (answer.status, answer.one("connection")) == (200, "close")
        assert await client.rest() == b""
    assert len(app.scopes) == 1


@pytest.mark.parametrize("start", [b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", b"POST / HTTP/1.0\r\n"])
async def test_an_upgrade_offered_on_a_connection_that_closes_is_answered_all_the_same(start: bytes) -> None:
    app = Recorder()
    head = start + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\n"
    async with listening(app) as address, await RawClient.connect(address) as client:
        await client.send(head + b"body" + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.one("connection")) == (200, "close")
        assert await client.rest() == b""
    assert (len(app.scopes), app.bodies) == (1, [b"body"])


async def test_a_body_nobody_read_is_read_away_and_the_next_request_is_answered() -> None:
    app = Recorder(reads_body=False)
    async with listening(app) as address, await RawClient.connect(address) as client:
        body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n" * 2000
        await client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert (await client.answer()).status == 200
        await client.send(body)
        assert (await client.ask(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
    assert [scope["path"] for scope in app.scopes] == ["/1", "/2"]


async def test_a_body_nobody_read_is_not_read_away_for_ever() -> None:
    app = Recorder(reads_body=False)
    limits = ListenerLimits(drain_bytes=100_000, drain_seconds=0.3)
    async with listening(app, limits=limits) as address, await RawClient.connect(address) as client:
        await client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.one("connection")) == (200, "close")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await client.send(b"x" * 100_000_000)


@pytest.mark.parametrize(
    ("framing", "kept"),
    [
        (b"Content-Length: 100000", True),
        (b"Content-Length: 100001", False),
        (b"Transfer-Encoding: chunked", False),
    ],
)
async def test_an_answer_to_a_body_that_will_not_be_read_to_its_end_says_that_the_connection_closes(
    framing: bytes, *, kept: bool
) -> None:
    # Unsaid, a caller who has sent all of it takes the connection for kept, and loses the next request on it.
    app = Recorder(reads_body=False)
    limits = ListenerLimits(drain_bytes=100_000)
    async with listening(app, limits=limits) as address, await RawClient.connect(address) as client:
        await client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
        answer = await client.answer()
        assert (answer.status, answer.one("connection")) == (200, None if kept else "close")
        if kept:
            await client.send(b"x" * 100_000)
            assert (await client.ask(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        else:
            assert await client.rest() == b""


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
async def test_an_answer_is_not_lost_to_a_caller_who_goes_on_sending(more: bytes) -> None:
    async with listening(Recorder(reads_body=False)) as address, await RawClient.connect(address) as client:
        head = b"POST /1 HTTP/1.1\r\nHost: a\r\n%bContent-Length: 100000000\r\n\r\n" % more
        sending = asyncio.create_task(client.send(head + b"x" * 50_000_000))
        assert (await client.answer()).status == 200
        assert await client.reader.read() == b""  # and the end of it, without a reset
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        client.reset()


@pytest.mark.parametrize(
    "start",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n"],
    ids=["more requests", "a body"],
)
async def test_a_caller_who_sends_what_nobody_takes_is_held_back(start: bytes) -> None:
    pushed = 0

    async def idle(scope: Scope, receive: Receive, send: Send) -> None:
        await ended.wait()

    async def push() -> None:
        nonlocal pushed
        while True:
            await client.send(start * 1000 if start.startswith(b"GET") else b"x" * 50_000)
            pushed += 50_000

    ended = asyncio.Event()
    async with listening(idle) as address, await RawClient.connect(address) as client:
        await client.send(start)
        pushing = asyncio.create_task(push())
        seen = -1
        while pushed != seen:  # until it stands still
            seen = pushed
            await asyncio.sleep(0.3)
        assert pushed < 32_000_000
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        client.reset()
        ended.set()


async def test_a_body_nobody_read_and_that_does_not_come_ends_the_connection_in_time() -> None:
    app = Recorder(reads_body=False)
    async with (
        listening(app, limits=ListenerLimits(drain_seconds=0.1)) as address,
        await RawClient.connect(address) as client,
    ):
        await client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_a_refused_caller_is_not_told_to_continue_and_his_connection_ends() -> None:
    app = Recorder(reads_body=False)
    async with listening(app) as address, await RawClient.connect(address) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.one("connection")) == (200, "close")
        assert await client.rest() == b""


@pytest.mark.parametrize("sent", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_head_that_does_not_come_to_its_end_is_a_408(sent: bytes) -> None:
    app = Recorder()
    async with (
        listening(app, limits=ListenerLimits(head_seconds=0.2)) as address,
        await RawClient.connect(address) as client,
    ):
        await client.send(sent)
        assert_refused(await client.answer(), "request_timeout")
        assert await client.rest() == b""
    assert app.scopes == []


async def test_a_head_that_drips_is_a_408_however_busy_it_looks() -> None:
    app = Recorder()
    async with (
        listening(app, limits=ListenerLimits(head_seconds=0.3)) as address,
        await RawClient.connect(address) as client,
    ):

        async def drip() -> None:
            await client.send(b"GET / HTTP/1.1\r\nX: ")
            while True:
                await client.send(b"a")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert_refused(await client.answer(), "request_timeout")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_half_sent_head_behind_an_answered_request_is_a_408_too() -> None:
    app = Recorder()
    async with (
        listening(app, limits=ListenerLimits(head_seconds=0.2)) as address,
        await RawClient.connect(address) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT")
        assert (await client.answer()).status == 200
        assert_refused(await client.answer(), "request_timeout")


async def test_a_caller_who_says_nothing_is_let_go() -> None:
    async with (
        listening(Recorder(), limits=ListenerLimits(head_seconds=0.2)) as address,
        await RawClient.connect(address) as client,
    ):
        assert await client.rest() == b""


async def test_a_kept_connection_that_falls_idle_is_let_go_blank_lines_or_not() -> None:
    async with listening(Recorder(), keep_alive_seconds=1) as address, await RawClient.connect(address) as client:
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        await client.send(b"\r\n\r\n")
        assert await client.rest() == b""


async def test_a_body_that_stops_coming_is_a_408() -> None:
    app = Recorder()
    async with (
        listening(app, limits=ListenerLimits(body_silence_seconds=0.2)) as address,
        await RawClient.connect(address) as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        assert_refused(await client.answer(), "request_timeout")
    assert (app.bodies, app.broken_bodies) == ([], 1)


async def test_a_caller_who_does_not_read_is_let_go() -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not left.is_set():
            await asyncio.wait_for(send(chunk), 10)

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        flooding = asyncio.create_task(flood(scope, receive, send))
        assert (await receive())["type"] == "http.disconnect"
        left.set()
        await flooding

    chunk = {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}
    left = asyncio.Event()
    async with listening(watch, limits=ListenerLimits(body_silence_seconds=0.2)) as address:
        client = await RawClient.connect(address, receive_buffer=4096)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(left.wait(), 10)
        client.reset()


async def test_a_caller_who_pipelines_without_end_is_held_back_and_his_leaving_is_seen() -> None:
    started = asyncio.Event()
    left = asyncio.Event()
    count = 0

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        count += 1
        await receive()
        started.set()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async with listening(wait) as address:
        client = await RawClient.connect(address)
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send(request * 1000)
        await asyncio.wait_for(started.wait(), 20)
        await asyncio.sleep(0.05)
        client.reset()
        await asyncio.wait_for(left.wait(), 20)
    assert count == 1


async def test_thousands_of_pipelined_requests_are_all_answered() -> None:
    app = Recorder()
    async with listening(app) as address, await RawClient.connect(address) as client:
        count = 5000
        sending = asyncio.create_task(client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count))
        for _ in range(count):
            assert (await client.answer()).status == 200
        await sending
    assert len(app.scopes) == count


async def test_more_connections_than_allowed_are_told_that_it_is_overloaded() -> None:
    async with listening(Recorder(), concurrency=1) as address, await RawClient.connect(address) as first:
        assert (await first.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        async with await RawClient.connect(address) as second:
            answer = await second.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.one("x-gateway-reason"), answer.one("retry-after")) == (503, "overloaded", "1")


@pytest.mark.parametrize("value", [b"a\r\nX: 1", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_that_would_split_the_answer_never_goes_out(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = Recorder(answer_headers=((b"x-from-input", value),))
    async with listening(app) as address, await RawClient.connect(address) as client:
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.rest() == b""
    assert (answer.status, answer.one("x-from-input")) == (500, None)
    assert "line break" in caplog.text


async def test_an_app_that_fails_within_its_answer_ends_the_connection_as_broken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("a defect")

    async with listening(fail) as address, await RawClient.connect(address) as client:
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.body, answer.whole) == (200, b"half", False)
    assert "a defect" in caplog.text


@pytest.mark.parametrize("body", [b"", b"four", b"too long"])
async def test_an_answer_that_is_not_as_long_as_announced_is_broken(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def miscount(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": body})

    async with listening(miscount) as address, await RawClient.connect(address) as client:
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).whole is False
    assert "Content-Length" in caplog.text
