"""Servers that nobody here wrote, as HTTP/2 upstreams: what goes through them arrives, and what they announce costs nobody an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.upstream.forward import Upstreams
from gateway.upstream.outcome import CallerLeft
from policies.schema import Upstream
from tests.support.calls import Call, asked, until
from tests.support.http2_servers import binary, http2_server
from tests.support.rawbytes import unchunked
from tests.support.upstreams import scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.http2_servers import Http2Server
    from tests.support.upstreams import Visit

MIB = 1024 * 1024
LARGE = bytes(range(256)) * 32 * 1024
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """What the gateway runs on; both loops are for what is scripted here."""
    return "asyncio", {"use_uvloop": True}


def to(server: Http2Server) -> Upstreams:
    return Upstreams({"api": Upstream.model_validate({"targets": (server.url,), "http2": True})})


async def api(visit: Visit) -> None:
    """Gives back what it was sent; a stream of events at `/events`, each once it is asked for by a byte of the test's."""
    head = await visit.head()
    path = head.split(b" ", 2)[1]
    if path == b"/events":
        await visit.say(EVENTS)
        for number in range(3):
            await visit.say(b"9\r\ndata: %d\n\n\r\n" % number)
            await asyncio.wait_for(asked_for.acquire(), 10)
        await visit.say(b"0\r\n\r\n")
    elif path == b"/endless":
        await visit.say(EVENTS)
        while await visit.read():
            pass
        left.set()
    else:
        request = await visit.request()
        body = request.partition(b"\r\n\r\n")[2]
        if b"transfer-encoding: chunked" in head.lower():
            if not body.endswith(b"0\r\n\r\n"):
                return  # the gateway will send it once more
            body = unchunked(body)
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


asked_for = asyncio.Semaphore(0)
left = asyncio.Event()


@pytest.mark.parametrize("name", ["nginx", "caddy", "envoy"])
async def test_what_goes_through_another_server_arrives_and_its_goodbyes_cost_nobody_an_answer(
    name: str, tmp_path: Path
) -> None:
    if binary(name) is None:
        pytest.skip(f"there is no {name}: on Debian `apt install nginx-light`, else `make bench` installs it")
    global asked_for, left  # of this event loop
    asked_for, left = asyncio.Semaphore(0), asyncio.Event()
    async with scripted_upstream(api) as behind, http2_server(name, tmp_path / name, behind.address[1]) as server:
        upstreams = to(server)
        assert await asked(upstreams) == (200, b"")
        length = (b"content-length", b"%d" % len(LARGE))
        pieces = [LARGE[at : at + 65536] for at in range(0, len(LARGE), 65536)]
        assert await Call(upstreams, method="POST", headers=[length], pieces=pieces).answer() == (200, LARGE)
        chunked = (b"transfer-encoding", b"chunked")
        assert await Call(upstreams, method="PUT", headers=[chunked], pieces=pieces).answer() == (200, LARGE)

        events = Call(upstreams, path=b"/events")
        for number in range(3):
            await until(lambda number=number: events.body.endswith(b"data: %d\n\n" % number))  # type: ignore[misc]
            asked_for.release()
        assert (await events.answer())[1] == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"

        leaver = Call(upstreams, path=b"/endless")
        await asyncio.wait_for(leaver.started.wait(), 10)
        leaver.leave()
        assert isinstance(await leaver.end(), CallerLeft)
        await asyncio.wait_for(left.wait(), 10)

        # More than a connection may carry, and while it is told to reload: who is not looked at is sent again.
        async def caller(number: int) -> None:
            for turn in range(40):
                body = b"%d %d " % (number, turn) * 500
                call = Call(upstreams, method="POST", headers=[chunked], pieces=[body[:100], body[100:]])
                assert await call.answer() == (200, body)
                if name == "nginx" and number == 0 and turn % 8 == 0:
                    server.reload()

        await asyncio.gather(*(caller(number) for number in range(16)))
        state = upstreams.state("api").targets[0]
        assert (state.pending, state.admitted) == (0, True)
        await upstreams.aclose()
