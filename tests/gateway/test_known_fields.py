"""Heads that are known by the one before: they are what the parser makes of them, and so is what is remembered of them.

Two readers of the same bytes, one of which remembers nothing. `KNOWN_FIELDS_STREAMS=100000` makes a campaign of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import string
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.credentials.authenticator import Authenticator
from gateway.fields import Fields
from gateway.known_fields import KnownFields
from gateway.listener import gateway_protocol
from gateway.upstream.headers import HeaderRules, outbound_request_headers
from gateway.upstream.request_head import request_head
from gateway.upstream.sent_fields import SentFields
from gateway.walk import header_of, own_request_id
from policies import schema

if TYPE_CHECKING:
    from gateway.listener_cycle import GatewayCycle

STREAMS: Final = int(os.environ.get("KNOWN_FIELDS_STREAMS", "800"))
OF: Final = (object(),)
AUTH: Final = schema.Auth(
    issuers=(schema.Issuer(issuer="https://a/", audience="b", algorithms=("HS256",), secret="s" * 32),),  # type: ignore[arg-type]
    api_keys=schema.ApiKeySettings(enabled=True, header="X_Key"),
)
NAMES: Final = (
    *("X-Trace", "traceparent", "Date", "Idempotency-Key", "User-Agent", "Accept", "Cookie", "Authorization", "X-Key"),
    *("X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "X_Trace"),
    *("Content-Length", "Transfer-Encoding", "Connection", "Proxy-Connection", "Keep-Alive", "Upgrade", "Expect", "TE"),
    *("Host", "X-Gateway-Tier", "X.Gateway.Tier", "X-HTTP-Method-Override", "Proxy", "X-Set", "Content_Length", "Trailer"),
)  # fmt: skip
VALUES: Final = (
    *("1", "2", "a b", "a  b", "", " ", "\t", "a\t", "\ta", "\x7f", "\xe9", "a\r", "a\n", "a\rb", "a\nB: c", "a\r\n b", "a\x00"),
    *("Bearer abc", "bearer  abc ", "Basic eA==", "chunked", "close", "keep-alive", "x-trace", "X-Trace, content-length"),
    *("100-continue", "upgrade", "h2c", "api.test", "other.test", "a/b", "0", "5", "05", "+5", "5 ", "5, 5", "0x5", "00005"),
    *("1.2.3.4", "https", "id-1", "id 2", "i" * 65, "gw_abc", "v" * 300),
)  # fmt: skip
_FREE: Final = 16
"""The first of the names, which no parser acts upon."""
_ENDS: Final = ("\r\n",) * 9 + ("\n", "\r", "\r\n\r\n", "\r\n ")
ACTED_UPON: Final = {
    "Host": ("api.test", "other.test", "a/b"),
    "Connection": ("keep-alive", "close", "x-trace", "X-Trace, content-length", "upgrade"),
    "Proxy-Connection": ("keep-alive", "close"),
    "Expect": ("x", "100-continue"),
    "Upgrade": ("x", "h2c", "websocket"),
    "Transfer-Encoding": ("chunked", "x"),
    "Content-Length": ("0", "5", "05", "+5", "5 ", "5, 5", "0x5", "70000"),
}
PLAIN: Final = string.ascii_letters + string.digits + "-_:;,=/ "


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    abort = close


class Reading(gateway_protocol(render_refusal=lambda reason, detail: f"{reason}: {detail}".encode())):  # type: ignore[misc]
    """Hands every request to its reader."""

    reader: Reader

    def run(self, cycle: GatewayCycle, _app: Any) -> Any:
        self.reader.started.append(cycle)

    def _take_known(self, known: KnownFields, data: bytes) -> bool:
        taken = self.reader.remembers and super()._take_known(known, data)
        self.reader.known += taken
        return taken


class Reader:
    """What one caller's connection is read as."""

    def __init__(self, config: uvicorn.Config, *, remembers: bool) -> None:
        self.remembers = remembers
        self.started: list[GatewayCycle] = []
        self.seen: list[Any] = []
        self.fields: list[Fields] = []
        self.known = 0
        self.transport = Transport()
        protocol = Reading(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.reader = self
        protocol.connection_made(self.transport)
        self.protocol = protocol

    def feed(self, data: bytes) -> None:
        if self.transport.closed:
            return
        self.protocol.data_received(data)
        while self.started and not self.started[0].more_body:
            cycle = self.started.pop(0)
            self.seen.append(
                (
                    cycle.method,
                    cycle.target,
                    cycle.version,
                    cycle.fields.headers,
                    b"".join(cycle._body),
                    cycle.keep_alive,
                )
            )
            self.seen.append(cycle._expects_continue)
            self.fields.append(cycle.fields)
            cycle._expects_continue = False  # as for whoever takes the body
            head = cycle.whole_head(204, [])
            assert head is not None
            cycle.send_whole(head, b"")

    def end(self) -> Any:
        self.protocol.connection_lost(None)
        unfinished = [(one.method, one.target, one.fields.headers, b"".join(one._body)) for one in self.started]
        return self.seen, unfinished, self.transport.written, self.transport.closed


def drawn(dice: random.Random) -> list[bytes]:
    """Requests of one caller: each like the one before, mostly, and most of them what a client would send."""
    oddly = dice.choice((0.0, 0.05, 0.2))
    names = ["Host", *dice.choices(NAMES[:_FREE], k=dice.randrange(5))]
    if dice.random() < 0.4:
        names.insert(0, dice.choice([*ACTED_UPON]))
    if dice.random() < 0.6:
        names.append("Content-Length")
    lines = [(name, _likely(dice, name)) for name in names]
    pieces: list[bytes] = []
    for _ in range(dice.randrange(2, 9)):
        at = dice.randrange(len(lines))
        name, value = lines[at]
        if dice.random() >= oddly * 2:
            lines[at] = name, _likely(dice, name)
        elif dice.random() < 0.6:
            at, name = dice.choice(
                [(at, name) for at, (name, _) in enumerate(lines) if name in ACTED_UPON] or [(at, name)]
            )
            lines[at] = name, dice.choice(ACTED_UPON.get(name, VALUES))
        else:
            chance = dice.randrange(5)
            if chance == 0:
                lines.insert(at, (name := dice.choice(NAMES), _likely(dice, name)))
            elif chance == 1:
                lines[at] = dice.choice(NAMES), value
            elif chance == 2:
                lines[at] = dice.choice((str.upper, str.lower, str.swapcase))(name), value
            elif chance == 3 and len(lines) > 1:
                lines.pop(at)
            else:
                lines[at] = name, dice.choice(VALUES)
        pieces = _sent(dice, pieces, lines, oddly)
    return [piece for piece in pieces if piece]


def _sent(dice: random.Random, pieces: list[bytes], lines: list[tuple[str, str]], oddly: float) -> list[bytes]:
    def either(usual: str, *odd: str) -> str:
        return dice.choice(odd) if dice.random() < oddly else usual

    length = next((int(value) for name, value in lines if name.lower() == "content-length" and value.isdecimal()), 0)
    if dice.random() < oddly / 2:
        length = max(0, length + dice.choice((-1, 1, 40)))
    head = "".join(
        f"{name}{either(': ', ':', ':  ', ' : ', ':' + chr(9))}{value}{either(chr(13) + chr(10), *_ENDS)}"
        for name, value in lines
    )
    method = either(
        dice.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")), "OPTIONS", "get", "PROPFIND", "TRACE"
    )
    target = either("/a?b=c", "//a", "*", "/a b", "/" + "a" * 9000)
    body = (b"GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n" * 9)[: min(length, 300)]
    whole = f"{method} {target} HTTP/1.{either('1', '0')}\r\n{head}\r\n".encode("latin-1") + body
    if pieces and dice.random() < oddly:
        return [*pieces[:-1], pieces[-1] + whole]
    if dice.random() < oddly:
        return [*pieces, whole, dice.choice(pieces or [whole])]
    if length and dice.random() < oddly:  # a body whose end looks like the beginning of what comes with it
        feint = f"GET {target} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 40\r\nX-Trace: ".encode("latin-1")
        before = b"POST /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n" % len(feint)
        return [*pieces, before, feint + whole, feint + whole, b"x" * 40]
    cut = dice.randrange(len(whole)) if dice.random() < oddly else 0
    return [*pieces, whole[:cut], whole[cut:]]


def _likely(dice: random.Random, name: str) -> str:
    if name == "Content-Length":
        return str(dice.randrange(80))
    if name in ACTED_UPON:
        return ACTED_UPON[name][0]
    return dice.choice(VALUES[:4]) if dice.random() < 0.5 else "".join(dice.choices(PLAIN, k=8)).strip() or "-"


GET: Final = b"GET /a HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n"
OTHER: Final = b"GET /b HTTP/1.1\r\nHost: a\r\nX-A: 2\r\nX-B: 1\r\n\r\n"
POST: Final = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
LONGER: Final = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello!"
WAITING: Final = b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
HALF: Final = b"GET /a HTTP/1.1\r\nHost: a\r\nX-A: "
HOSTLESS: Final = b"GET /b HTTP/1.1\r\nX-B: b\r\n\r\n"
CHUNKED: Final = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CONVERSATIONS: Final = {
    "alike": (4, [GET, GET, GET.replace(b"/a", b"/b"), GET.replace(b"1\r\n\r", b"2\r\n\r"), GET]),
    "bodies of any length": (4, [POST, POST, LONGER, POST.replace(b"5", b"0").replace(b"hello", b""), POST]),
    "a body apart": (1, [POST, POST[:-5], b"hello", POST[:-1], b"o", POST]),
    "a body and the next request": (0, [POST, POST + GET, LONGER[:-1], b"!" + GET]),
    "more than the body": (0, [POST, POST + b"!", GET]),
    "two at once, and the first again": (1, [GET + OTHER, GET, GET]),
    "two bodies at once, and the first again": (1, [POST + LONGER, POST, POST]),
    "the end of a head that is one": (0, [HALF, HOSTLESS, HOSTLESS]),
    "within a head": (0, [GET, HALF, GET, GET]),
    "within a blank line": (0, [GET, b"\r", GET]),
    "behind a blank line": (0, [GET, b"\r\n", GET]),
    "who waits to be asked": (0, [WAITING, WAITING]),
    "in chunks": (0, [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"] * 2),
    "no chunk at all": (0, [CHUNKED + b"0\r\n\r\n", CHUNKED + b"0\r\n\r\n", CHUNKED + b"1\r\na\r\n0\r\n\r\n"]),
    "the last of its connection": (1, [GET, GET, GET.replace(b"X-A: 1", b"Connection: close"), GET]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation_is_read_alike_with_and_without_memory(config: uvicorn.Config, name: str) -> None:
    known, pieces = CONVERSATIONS[name]
    readers = [Reader(config, remembers=remembers) for remembers in (True, False)]
    for piece in pieces:
        for reader in readers:
            reader.feed(piece)
    assert readers[0].end() == readers[1].end()
    assert readers[0].known == known


@pytest.fixture(scope="module")
def config() -> uvicorn.Config:
    made = uvicorn.Config(_nothing, http="httptools", lifespan="off", log_config=None, proxy_headers=False)
    made.load()
    return made


async def test_a_head_known_by_the_one_before_is_what_the_parser_makes_of_it(config: uvicorn.Config) -> None:
    known = varied = 0
    authenticator = Authenticator(AUTH, now=lambda: 0.0)
    for number in range(STREAMS):
        pieces = drawn(random.Random(number))
        readers = [Reader(config, remembers=remembers) for remembers in (True, False)]
        dice = random.Random(number)
        rules, trusted = _rules(dice), dice.random() < 0.5
        for piece in pieces:
            for reader in readers:
                reader.feed(piece)
            for fields in readers[0].fields:
                varied += fields.sent is not None
                _remembered_is_true(fields, authenticator, rules, trusted=trusted)
            readers[0].fields.clear()
        assert readers[0].end() == readers[1].end(), (number, pieces)
        known += readers[0].known
    assert known >= STREAMS
    assert varied >= STREAMS


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None: ...


def _rules(dice: random.Random) -> HeaderRules:
    return HeaderRules.of(
        schema.Upstream(
            targets=("http://127.0.0.1:9",),
            host=dice.choice(("target", "caller")),
            headers=dice.choice(({}, {"X-Set": "1"}, {"X-Trace": "ours"})),  # type: ignore[arg-type]
        )
    )


def _remembered_is_true(fields: Fields, authenticator: Authenticator, rules: HeaderRules, *, trusted: bool) -> None:
    """Use what is remembered as the short way does, and compare it with what is found out anew."""
    headers = fields.headers
    if fields.host is None:
        fields.host, fields.request_id = header_of(headers, b"host"), own_request_id(headers)
    assert (fields.host, fields.request_id) == (header_of(headers, b"host"), own_request_id(headers))
    if fields.sought is None:
        fields.sought = authenticator.seek(headers)
    assert fields.sought == authenticator.seek(headers)
    outbound = outbound_request_headers(
        headers,
        rules=rules,
        peer="10.0.0.1",
        trusted=trusted,
        scheme="http",
        request_id="id",
        identity=[(b"x-gateway-tier", b"pro")],
    )
    anew = request_head("POST", b"/a", outbound)
    if anew.length is None:
        assert fields.sent is None
    elif fields.sent is None:
        fields.sent = SentFields(headers, outbound, OF)
    else:
        remembered = fields.sent.head("POST", b"/a", "id", anew.length)
        assert remembered._replace(headers=outbound) == anew
        assert fields.length == anew.length


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (b"Connection: keep-alive", b"Connection: close"),
        (b"Connection: keep-alive", b"Connection: x-a"),
        (b"Proxy-Connection: keep-alive", b"Proxy-Connection: close"),
        (b"Host: a", b"Host: b"),
        (b"Expect: x", b"Expect: 100-continue"),
        (b"Upgrade: x", b"Upgrade: websocket"),
        (b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 5", b"Content-Length: 05"),
        (b"Content-Length: 5", b"Content-Length: +5"),
        (b"Content-Length: 5", b"Content-Length: 500000"),
        (b"X-A: 1", b"x-b: 1"),
        (b"X-A: 1", b"X_A: 1"),
        (b"X-A: 1", b"X-A:1"),
        (b"X-A: 1", b"X-A: 1 "),
        (b"X-A: 1", b"X-A: "),
        (b"X-A: 1", b"X-A: \xe9"),
        (b"X-A: 1", b" X-A: 1"),
        (b"X-A: 1", b"X-A: 1\nX-B: 2"),
        (b"X-A: 1", b"X-A: 1\rX-B: 2"),
        (b"X-A: 1", b"X-A: 1\x00"),
        (b"X-A: 1", b"X-A: 1\r\nX-B: 2"),
    ],
)
def test_what_only_the_parser_can_say_is_left_to_it(line: bytes, other: bytes) -> None:
    name, _, value = line.partition(b": ")
    fields = Fields([(b"x-first", b"1"), (name.lower(), value), (b"x-last", b"1")])
    known = KnownFields(b"\r\nX-First: 1\r\n%b\r\nX-Last: 1\r\n\r\n" % line, fields)
    assert known.read(b"\r\nX-First: 2\r\n%b\r\nX-Last: 1\r\n\r\n" % other, 0) is None
    again = known.read(b"\r\nX-First: 2\r\n%b\r\nX-Last: 1\r\n\r\n" % line, 0)
    assert again is not None
    assert again.headers == [(b"x-first", b"2"), *fields.headers[1:]]


def test_the_end_of_a_head_that_was_not_understood_line_by_line_is_nowhere() -> None:
    fields = Fields([(b"host", b"a"), (b"content-length", b"5")])
    fields.length = 5
    block = b"\r\nHost: a\nContent-Length: 5\r\n\r\n"
    assert KnownFields(block, fields).read(block + b"hello"[: fields.length], 0) is None
    fields.length = 0
    assert KnownFields(block, fields).read(block + b"hello"[: fields.length], 0) is fields
