"""What reaches an upstream: the caller's request and nothing else (A16, A17, B04-B07, B10-B13, B16, C09, C10, C13)."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import identity_headers
from gateway.upstream.outcome import CallerLeft, Forwarded, UpstreamFailure
from policies.reasons import Reason
from policies.schema import Timeouts, Upstream
from tests.support.gateways import Forwarding, listening
from tests.support.rawclient import RawClient
from tests.support.upstreams import Visit, saying, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.upstream.outcome import Message, Receive, Scope, Send

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /x HTTP/1.1\r\nHost: gw\r\n\r\n"
GATEWAYS_OWN = {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}


async def visit_of(request: bytes, **settings: object) -> Visit:
    """What the upstream saw of this request, which was answered 200."""
    forwarding = {key: settings.pop(key) for key in ("identity", "trusted_proxies") if key in settings}
    async with scripted_upstream(saying(OK)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), **settings), **forwarding)  # type: ignore[arg-type]
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(request)
            assert (answer.status, answer.body) == (200, b"ok")
            return upstream.visits[0]


def from_caller(visit: Visit) -> list[tuple[str, str]]:
    return [(name, value) for name, value in visit.headers if name not in GATEWAYS_OWN]


async def test_a_plain_get_arrives_with_nothing_added_but_what_is_documented() -> None:
    visit = await visit_of(GET)
    assert visit.received.startswith(b"GET /x HTTP/1.1\r\n")
    assert from_caller(visit) == []
    assert {name for name, _ in visit.headers} == GATEWAYS_OWN


@pytest.mark.parametrize(
    "target",
    [b"/a?", b"/a?b=c&&d='\"", b"/%2F%2e/x;y=1//z", b"/a?x=%zz#frag", b"//evil/x", b"/a/../b", b"/%C3%A4?%00", b"/\\"],
)
async def test_the_target_arrives_byte_for_byte(target: bytes) -> None:
    visit = await visit_of(b"GET %b HTTP/1.1\r\nHost: gw\r\n\r\n" % target)
    assert visit.received.startswith(b"GET %b HTTP/1.1\r\n" % target)


async def test_headers_that_come_several_times_arrive_in_order_and_byte_for_byte() -> None:
    visit = await visit_of(
        b"GET /x HTTP/1.1\r\nHost: gw\r\nX-D: 1\r\nCookie: a=1\r\nX-D: 2\r\nCookie: b=2\r\nX-L: \xe4\xff\r\nX-Empty:\r\n\r\n"
    )
    assert from_caller(visit) == [
        ("x-d", "1"),
        ("cookie", "a=1"),
        ("x-d", "2"),
        ("cookie", "b=2"),
        ("x-l", "\xe4\xff"),
        ("x-empty", ""),
    ]


async def test_headers_for_one_hop_only_stop_here() -> None:
    visit = await visit_of(
        b"GET /x HTTP/1.1\r\nHost: gw\r\nConnection: X-Hop, keep-alive, x-request-id, Host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Trailer: X\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\nUpgrade: foo\r\nExpect: x\r\nX-Original-URL: /a\r\n"
        b"X-Rewrite-URL: /a\r\nX-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX_Method_Override: DELETE\r\nX-Keep: 1\r\n\r\n"
    )
    assert from_caller(visit) == [("x-keep", "1")]
    assert dict(visit.headers)["x-request-id"] == "r1"


ANOTHER_REQUEST = {
    "httpoxy (CVE-2016-5385)": "Proxy: http://evil",
    "Next.js without its middleware (CVE-2025-29927)": "X-Middleware-Subrequest: middleware",
    "IIS and Symfony (CVE-2018-14773)": "X-Original-URL: /free",
    "the same, older (CVE-2018-14773)": "X-Rewrite-URL: /free",
    "its alias to WSGI": "X_Original_URL: /free",
    "its alias to lighttpd's CGI": "X.Original.URL: /free",
    "ingress-nginx": "X-Original-URI: /free",
    "ingress-nginx's method": "X-Original-Method: GET",
    "Envoy": "X-Envoy-Original-Path: /free",
    "a path of its own": "X-HTTP-Path-Override: /free",
    "a URL of its own": "X-Override-URL: /free",
    "oauth2-proxy (CVE-2026-40575)": "X-Forwarded-Uri: /free",
    "Traefik (GHSA-6384-m2mw-rf54)": "X-Forwarded-Prefix: /free",
    "another method (Rack, Laravel)": "X-HTTP-Method-Override: DELETE",
    "another method, in other words": "X-Method-Override: DELETE",
    "another peer": "X-Real-IP: 127.0.0.1",
    "another peer, as Cloudflare tells it": "CF-Connecting-IP: 127.0.0.1",
    "another peer, as Akamai tells it": "True-Client-IP: 127.0.0.1",
    "another peer, of RFC 7239": "Forwarded: for=127.0.0.1",
    "our own name": "X-Gateway-Tier: enterprise",
    "our own name to WSGI (CVE-2025-64484, CVE-2026-52845)": "X_Gateway-Tier: enterprise",
    "our own name to lighttpd's CGI": "X.Gateway.Tier: enterprise",
    "our own name to lighttpd's CGI, in other signs": "X~Gateway+Tier: enterprise",
    "a length to lighttpd's CGI": "Content.Length: 9",
}


@pytest.mark.parametrize("field", ANOTHER_REQUEST.values(), ids=ANOTHER_REQUEST.keys())
async def test_no_field_tells_the_upstream_of_another_request_than_was_judged(field: str) -> None:
    visit = await visit_of(f"GET /x HTTP/1.1\r\nHost: gw\r\n{field}\r\nX-Keep.It: 1\r\n\r\n".encode())
    assert from_caller(visit) == [("x-keep.it", "1")]


@pytest.mark.parametrize("named", [b"Content-Length", b"Transfer-Encoding", b"Host"])
async def test_no_connection_field_takes_the_framing_away(named: bytes) -> None:
    chunked = named == b"Transfer-Encoding"
    framing = (
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n" if chunked else b"Content-Length: 4\r\n\r\nbody"
    )
    visit = await visit_of(b"POST /x HTTP/1.1\r\nHost: gw\r\nConnection: %b\r\n" % named + framing, host="caller")
    assert dict(visit.headers)["host"] == "gw"
    assert visit.body == (b"4\r\nbody\r\n0\r\n\r\n" if chunked else b"body")


FORGED = (
    b"X-Gateway-Customer: admin\r\nx_gateway_customer: admin\r\nX-GATEWAY_Tier: pro\r\nX-Gateway-Anything: x\r\n"
    b"Connection: X-Gateway-Customer, x-gateway-tier\r\n"
)


async def test_identity_is_what_the_gateway_says_and_never_what_the_caller_says() -> None:
    identity = identity_headers("c\u00fcst 1%", tier="pro", features=["a", "b,c"], status="active")
    visit = await visit_of(
        b"POST /x HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n"
        + FORGED
        + b"\r\n1\r\nx\r\n0\r\nX-Gateway-Customer: admin\r\nX-Gateway-Late: 1\r\n\r\n",
        identity=identity,
    )
    assert [header for header in visit.headers if "gateway" in header[0]] == [
        ("x-gateway-customer", "c%C3%BCst%201%25"),
        ("x-gateway-tier", "pro"),
        ("x-gateway-features", "a,b%2Cc"),
        ("x-gateway-status", "active"),
    ]
    assert visit.body == b"1\r\nx\r\n0\r\n\r\n"


async def test_where_the_gateway_says_nothing_a_forged_identity_is_absent() -> None:
    visit = await visit_of(b"GET /x HTTP/1.1\r\nHost: gw\r\n" + FORGED + b"\r\n")
    assert not [name for name, _ in visit.headers if "gateway" in name]


FORWARDED = (
    b"GET /x HTTP/1.1\r\nHost: gw\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: other\r\n"
    b"X-Forwarded-Prefix: /p\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nX_Forwarded_For: 8.8.8.8\r\n\r\n"
)


async def test_what_a_stranger_says_of_where_he_comes_from_is_dropped() -> None:
    visit = await visit_of(FORWARDED)
    assert sorted(visit.headers) == sorted(
        {
            "host": dict(visit.headers)["host"],
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "gw",
            "x-request-id": "r1",
        }.items()
    )


async def test_what_a_trusted_proxy_says_of_where_it_comes_from_is_kept_and_added_to() -> None:
    visit = await visit_of(FORWARDED, trusted_proxies=["127.0.0.0/8"])
    said = dict(visit.headers)
    assert said["x-forwarded-for"] == "9.9.9.9, 8.8.8.8, 127.0.0.1"
    assert (said["x-forwarded-proto"], said["x-forwarded-host"], said["x-forwarded-prefix"]) == ("https", "other", "/p")
    assert (said["forwarded"], said["x-real-ip"]) == ("for=9.9.9.9", "9.9.9.9")


@pytest.mark.parametrize(("host", "sent"), [("target", None), ("caller", "gw")])
async def test_the_host_is_the_targets_or_the_callers_as_configured(host: str, sent: str | None) -> None:
    visit = await visit_of(GET, host=host)
    said = dict(visit.headers)
    assert said["host"] == (sent or f"127.0.0.1:{visit.writer.get_extra_info('sockname')[1]}")
    assert said["x-forwarded-host"] == "gw"


async def test_configured_headers_replace_the_callers_and_the_token_stops_here_if_so_configured() -> None:
    request = b"GET /x HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer secret\r\nX-Key: caller\r\nX_Key: caller\r\n\r\n"
    visit = await visit_of(request, headers={"X-Key": "ours"}, forward_token=False)
    assert from_caller(visit) == [("x-key", "ours")]


BODIES: Mapping[str, tuple[bytes, bytes]] = {
    "GET with a length": (b"GET /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 4\r\n\r\nbody", b"body"),
    "POST of length 0": (b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n", b""),
    "POST without a length": (b"POST /x HTTP/1.1\r\nHost: gw\r\n\r\n", b""),
    "DELETE with a length": (b"DELETE /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 4\r\n\r\nbody", b"body"),
    "POST chunked": (
        b"POST /x HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"4\r\nbody\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("request_bytes", "body"), BODIES.values(), ids=BODIES)
async def test_a_body_arrives_with_the_framing_it_came_with(request_bytes: bytes, body: bytes) -> None:
    visit = await visit_of(request_bytes)
    said = dict(visit.headers)
    head = request_bytes.partition(b"\r\n\r\n")[0].lower()
    assert visit.body == body
    assert said.get("transfer-encoding") == ("chunked" if b"chunked" in head else None)
    assert ("content-length" in said) == (b"content-length" in head)


async def test_a_chunked_body_with_extensions_and_trailers_in_pieces_of_one_byte_arrives_whole() -> None:
    request = (
        b"POST /x HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;ext=1\r\nhello\r\n6;a;b=c\r\n world\r\n0;last\r\nX-Late: 1\r\nAuthorization: evil\r\n\r\n"
    )
    async with scripted_upstream(saying(OK)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            for at in range(len(request)):
                await client.send(request[at : at + 1])
                await asyncio.sleep(0)
            assert (await client.answer()).status == 200
        visit = upstream.visits[0]
    chunks = visit.body.split(b"\r\n")
    assert b"".join(chunks[1::2]) == b"hello world"
    assert not {"x-late", "authorization"} & set(dict(visit.headers))


async def test_a_large_body_arrives_whole_both_ways() -> None:
    sent = os.urandom(4 * 1024 * 1024)

    async def echo(visit: Visit) -> None:
        head = await visit.head()
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent) + visit.received[len(head) :])

    async with scripted_upstream(echo) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            upload = asyncio.create_task(
                client.send(b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent)
            )
            answer = await client.answer()
            await upload
            assert answer.body == sent
        outcome = await app.outcome()
    assert isinstance(outcome, Forwarded)
    assert (outcome.bytes_received, outcome.bytes_sent) == (len(sent), len(sent))


@pytest.mark.parametrize("offer", [b"h2c\r\nHTTP2-Settings: AAMAAABk", b"foo"], ids=["h2c", "foo"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "body behind the head"])
async def test_a_body_behind_an_upgrade_that_is_not_taken_arrives_and_so_does_the_next_request(
    offer: bytes, split: bool
) -> None:
    head = (
        b"POST /1 HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nContent-Length: 4\r\n\r\n"
        % offer
    )
    async with scripted_upstream(saying(OK)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            if split:
                await client.send(head)
                await upstream.visit()
                await client.send(b"body" + GET)
            else:
                await client.send(head + b"body" + GET)
            assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        first, second = upstream.visits
    assert first.body == b"body"
    assert not {"upgrade", "http2-settings"} & set(dict(first.headers))
    assert second.received.startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize("count", [2, 100])
async def test_pipelined_requests_are_answered_in_order(count: int) -> None:
    async def script(visit: Visit) -> None:
        path = (await visit.request()).split(b" ", 2)[1]
        await asyncio.sleep(0.01 if path.endswith(b"0") else 0)
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: gw\r\n\r\n" % n for n in range(count)))
            assert [(await client.answer()).body for _ in range(count)] == [b"/%d" % n for n in range(count)]


async def test_a_caller_is_told_to_continue_only_when_his_body_is_wanted() -> None:
    async with scripted_upstream(saying(OK)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            await client.send(b"POST /x HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert (await client.head())[0] == 100
            assert (await client.ask(b"body")).status == 200
        assert upstream.visits[0].body == b"body"
        assert "expect" not in dict(upstream.visits[0].headers)


async def test_an_answer_that_comes_before_the_body_has_ended_gets_through() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000000\r\n\r\nbegin")
            assert (answer.status, answer.body) == (413, b"big")
        assert (await upstream.visit()).body in {b"", b"begin"}


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
async def test_a_caller_who_dies_within_his_body_leaves_an_incomplete_message_upstream(framing: bytes) -> None:
    async def script(visit: Visit) -> None:
        while b"half" not in visit.received:
            await visit.read()
        got_half.set()

    got_half = asyncio.Event()
    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address:
            client = await RawClient.connect(address)
            await client.send(b"POST /x HTTP/1.1\r\nHost: gw\r\n" + framing)
            await asyncio.wait_for(got_half.wait(), 20)
            client.reset()
            visit = await upstream.visit()
            await asyncio.wait_for(visit.closed.wait(), 20)
            assert visit.body in {b"half", b"4\r\nhalf\r\n"}
            assert isinstance(await app.outcome(), CallerLeft)


@pytest.mark.parametrize("tells", [True, False], ids=["told by the listener", "seen by receive()"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n\r\nfirst"], ids=["before the head", "within the stream"])
async def test_a_caller_who_leaves_ends_the_upstream_connection_at_once(said: bytes, tells: bool) -> None:
    async with scripted_upstream(saying(said)) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)), tells_of_departures=tells)
        async with listening(app) as address:
            client = await RawClient.connect(address)
            await client.send(GET)
            visit = await upstream.visit()
            if said:
                await client.reader.readuntil(b"first")
            await client.close()
            await asyncio.wait_for(visit.closed.wait(), 20)
            outcome = await app.outcome()
    assert isinstance(outcome, CallerLeft)
    assert (outcome.answer_status, outcome.status) == (200 if said else None, 499)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_thousands_of_callers_who_left_cost_neither_an_answer_nor_a_file_descriptor() -> None:
    async def script(visit: Visit) -> None:
        if b"/slow" not in await visit.head():
            await visit.say(OK)

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address:

            async def leave(number: int) -> None:
                client = await RawClient.connect(address)
                await client.send(b"GET /slow HTTP/1.1\r\nHost: gw\r\n\r\n")
                for _ in range(number % 7):  # at every stage: connecting, sending, waiting
                    await asyncio.sleep(0)
                client.reset()

            await leave(6)
            before = open_files()
            for batch in range(30):
                await asyncio.gather(*(leave(batch + number) for number in range(100)))
            for _ in range(100):
                async with await RawClient.connect(address) as client:
                    assert (await client.ask(GET)).status == 200
            async with asyncio.timeout(10):
                while open_files() > before + 5:  # noqa: ASYNC110  # the kernel tells nobody
                    await asyncio.sleep(0.05)
            assert sum(isinstance(outcome, Forwarded) for outcome in app.outcomes) == 100


async def test_a_target_that_refuses_is_passed_over_for_the_next_one() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with scripted_upstream(saying(OK)) as upstream:
            app = Forwarding(Upstream(targets=(dead, upstream.url)))
            async with listening(app) as address, await RawClient.connect(address) as client:
                assert [(await client.ask(GET)).status for _ in range(4)] == [200] * 4


async def test_targets_share_the_requests() -> None:
    async with scripted_upstream(saying(OK)) as one, scripted_upstream(saying(OK)) as other:
        app = Forwarding(Upstream(targets=(one.url, other.url)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            for _ in range(6):
                assert (await client.ask(GET)).status == 200
        assert (len(one.visits), len(other.visits)) == (3, 3)


async def test_where_no_target_can_be_reached_the_answer_is_a_502_that_names_no_address() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        app = Forwarding(Upstream(targets=(f"http://127.0.0.1:{port}",)))
        async with listening(app) as address, await RawClient.connect(address) as client:
            answer = await client.ask(GET)
    assert (answer.status, answer.one("x-gateway-reason")) == (502, "upstream_unreachable")
    assert str(port).encode() not in answer.body
    outcome = await app.outcome()
    assert isinstance(outcome, UpstreamFailure)
    assert str(port) in outcome.cause


async def test_a_target_that_does_not_take_the_connection_in_time_is_a_504() -> None:
    with socket.socket() as full:  # whose queue of connections is full, so that the next one is left waiting
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            app = Forwarding(Upstream(targets=(url,), timeouts=Timeouts(connect=0.2)))
            async with listening(app) as address, await RawClient.connect(address) as client:
                answer = await client.ask(GET)
    assert (answer.status, answer.one("x-gateway-reason")) == (504, Reason.UPSTREAM_TIMEOUT)


async def test_a_caller_who_leaves_while_the_upstream_is_still_being_connected_is_not_waited_for() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            app = Forwarding(Upstream(targets=(url,), timeouts=Timeouts(connect=60)))
            async with listening(app) as address:
                client = await RawClient.connect(address)
                await client.send(GET)
                while not app.scopes:  # noqa: ASYNC110  # until the app has it
                    await asyncio.sleep(0.01)
                client.reset()
                assert isinstance(await app.outcome(), CallerLeft)


async def test_a_caller_who_reads_nothing_holds_the_upstream_back() -> None:
    pushed = 0

    async def script(visit: Visit) -> None:
        nonlocal pushed
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(2000):
            await visit.say(b"x" * 100_000)
            pushed += 100_000

    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))
        async with listening(app) as address:
            client = await RawClient.connect(address, receive_buffer=4096)
            await client.send(GET)
            await client.reader.readuntil(b"xxxx")
            seen = -1
            while pushed != seen:  # until it stands still
                seen = pushed
                await asyncio.sleep(0.3)
            assert pushed < 32_000_000
            client.reset()
            await asyncio.wait_for(upstream.visits[0].closed.wait(), 20)


async def test_an_upstream_that_reads_nothing_holds_the_caller_back_and_is_given_up_in_time() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await finished.wait()

    finished = asyncio.Event()
    async with scripted_upstream(script) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,), timeouts=Timeouts(idle=0.5)))
        async with listening(app) as address, await RawClient.connect(address) as client:

            async def upload() -> None:
                await client.send(b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 200000000\r\n\r\n")
                while True:
                    await client.send(b"x" * 100_000)

            uploading = asyncio.create_task(upload())
            answer = await client.answer()
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)
            assert (answer.status, answer.one("x-gateway-reason")) == (504, "upstream_timeout")
            client.reset()
        finished.set()
        outcome = await app.outcome()
    assert isinstance(outcome, UpstreamFailure)


async def test_a_request_that_the_server_gives_up_leaves_no_upstream_connection_behind() -> None:
    async with scripted_upstream(saying(b"HTTP/1.1 200 OK\r\n\r\nfirst")) as upstream:
        app = Forwarding(Upstream(targets=(upstream.url,)))

        async def abandoning(scope: Scope, receive: Receive, send: Send) -> None:
            task = asyncio.ensure_future(app(scope, receive, send))
            await upstream.visit()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        async with listening(abandoning) as address, await RawClient.connect(address) as client:
            assert (await client.ask(GET)).status in {200, 503}
            await asyncio.wait_for((await upstream.visit()).closed.wait(), 20)


async def test_what_receive_raises_is_not_taken_for_the_upstreams_failure() -> None:
    async def receive() -> Message:
        raise LookupError("a defect of the server")

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async with scripted_upstream(saying(b"")) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,))})
        scope: Scope = {"type": "http", "method": "POST", "raw_path": b"/x", "query_string": b"a=b"}
        with pytest.raises(LookupError, match="a defect of the server"):
            await upstreams.forward("api", scope=scope, headers=[(b"content-length", b"4")], receive=receive, send=send)
        visit = await upstream.visit()
        await asyncio.wait_for(visit.closed.wait(), 20)
        assert visit.received.startswith(b"POST /x?a=b HTTP/1.1\r\n") or visit.received == b""


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/x HTTP/1.1\r\nX: 1", []),
        (b"/x y", []),
        (b"/x", [(b"a", b"b\r\nc: d")]),
        (b"/x", [(b"a\nb", b"c")]),
        (b"/x", [(b"a", b"b\0")]),
    ],
)
async def test_nothing_that_would_split_a_request_is_ever_sent(
    target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    async def unused(*_: object) -> Message:
        raise AssertionError

    async with scripted_upstream(saying(OK)) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,))})
        scope: Scope = {"type": "http", "method": "GET", "raw_path": target, "query_string": b""}
        with pytest.raises(ValueError, match="line break, NUL or space"):
            await upstreams.forward("api", scope=scope, headers=headers, receive=unused, send=unused)  # type: ignore[arg-type]
        assert all(visit.received == b"" for visit in upstream.visits)


@pytest.mark.parametrize(
    ("messages", "framing", "body"),
    [
        ([(b"ab", True), (b"c", False)], [("transfer-encoding", "chunked")], b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ([(b"", True), (b"abc", False)], [("transfer-encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n"),
        ([(b"abc", False)], [("transfer-encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n"),
        ([(b"", False)], [], b""),
    ],
)
async def test_a_body_that_another_servers_http2_caller_did_not_announce_arrives(
    messages: list[tuple[bytes, bool]], framing: list[tuple[str, str]], body: bytes
) -> None:
    sent: list[Message] = []
    arrived: list[bytes] = []
    queue = list(messages)
    gone = asyncio.Event()

    async def receive() -> Message:
        if not queue:
            await gone.wait()
            return {"type": "http.disconnect"}
        piece, more = queue.pop(0)
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: Message) -> None:
        sent.append(message)

    async def script(visit: Visit) -> None:
        await visit.request()
        arrived.append(visit.body)
        await visit.say(OK)

    async with scripted_upstream(script) as upstream:
        upstreams = Upstreams({"api": Upstream(targets=(upstream.url,))})
        scope: Scope = {"type": "http", "http_version": "2", "method": "POST", "raw_path": b"/x", "query_string": b""}
        outcome = await upstreams.forward("api", scope=scope, headers=[], receive=receive, send=send)
        await upstreams.aclose()
        assert isinstance(outcome, Forwarded)
        assert arrived == [body]
        assert [header for header in upstream.visits[0].headers if header[0] != "host"] == framing
