"""However a caller's bytes are cut, delayed and pipelined, the app sees the same requests in the same order."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateways import listening
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from gateway.upstream.outcome import Receive, Scope, Send


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


def some_request(number: int, dice: random.Random) -> tuple[bytes, bytes]:
    """A request to `/number`, and its body."""
    body = dice.randbytes(dice.choice([0, 1, 10, 1000, 20_000, 100_000]))
    start = b"\r\n" * dice.randrange(2)
    headers = b"Host: a\r\n" + b"X-Filler: %b\r\n" % (b"f" * dice.choice([0, 10, 5000])) * dice.randrange(4)
    if dice.random() < 0.4:
        headers += b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    match dice.randrange(3):
        case 0:
            return start + b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, headers), b""
        case 1:
            head = b"POST /%d HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (number, headers, len(body))
            return start + head + body, body
        case _:
            chunks, at = b"", 0
            while at < len(body):
                size = dice.randrange(1, 30_000)
                piece = body[at : at + size]
                chunks += b"%x;ext=%d\r\n%b\r\n" % (len(piece), size, piece)
                at += size
            trailers = b"X-Late: 1\r\nHost: evil\r\n" * dice.randrange(2)
            head = b"POST /%d HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (number, headers)
            return start + head + chunks + b"0\r\n" + trailers + b"\r\n", body


@pytest.mark.parametrize("seed", range(15))
async def test_a_stream_of_requests_is_read_the_same_however_it_is_cut(seed: int) -> None:
    dice = random.Random(seed)
    requests = [some_request(number, dice) for number in range(30)]
    seen: list[tuple[str, bytes]] = []
    under_way = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1, "two requests of one connection at once"
        assert not any(name in {b"upgrade", b"x-late"} for name, _ in scope["headers"])
        body = b""
        # Some requests are answered without reading the body; a chunked one would end the connection, as test_listener has it.
        is_chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        reads = is_chunked or seed % 3 != 2 or dice.random() < 0.5
        more = reads
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
            if dice.random() < 0.1:
                await asyncio.sleep(0.001)
        seen.append((scope["path"], body if reads else b"unread"))
        path = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(path))]})
        under_way -= 1
        await send({"type": "http.response.body", "body": path})

    async with listening(app) as address, await RawClient.connect(address) as client:

        async def send_in_pieces() -> None:
            data = b"".join(request for request, _ in requests)
            at = 0
            while at < len(data):
                size = dice.choice([1, 7, 100, 5_000, 16_384, 16_385, 70_000, 300_000])
                await client.send(data[at : at + size])
                at += size
                if dice.random() < 0.3:
                    await asyncio.sleep(dice.choice([0, 0.001]))

        sending = asyncio.create_task(send_in_pieces())
        answers = [(await client.answer()).body for _ in requests]
        await sending
    assert answers == [b"/%d" % number for number in range(30)]
    assert [path for path, _ in seen] == [f"/{number}" for number in range(30)]
    for (_, body), (_, expected) in zip(seen, requests, strict=True):
        assert body in {expected, b"unread"}
