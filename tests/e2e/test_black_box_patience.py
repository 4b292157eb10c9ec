"""A gateway as it is run while hundreds of callers are slow on purpose: they are let go, and everybody else is served.

The slow ones come first and are waited for last, so that their ten seconds pass while the rest is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.rawclient import RawClient
from tests.support.stack import Gateway, running_gateway, token_for
from tests.support.watching import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.recorder import Recorder

MIB = 1024 * 1024
SILENT, HALF, DRIPPING = 100, 350, 50
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("patience"), upstream=recorder.url) as gateway:
        gateway.grant("P")
        yield gateway


@pytest.fixture(scope="module", autouse=True)
def slow(gateway: Gateway) -> Iterator[list[socket.socket]]:
    """Callers who connect and say nothing, send half a head, or one byte of it at a time."""
    callers = [socket.create_connection(gateway.address) for _ in range(SILENT + HALF + DRIPPING)]
    for one in callers[SILENT:]:
        one.sendall(b"GET /public/x HTTP/1.1\r\nX-Slow: ")
    over = threading.Event()

    def drip() -> None:
        while not over.wait(1):
            for one in callers[SILENT + HALF :]:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    yield callers
    over.set()
    dripping.join()
    for one in callers:
        one.close()


async def test_each_event_comes_before_the_next_is_sent_and_pings_keep_a_stream_open(
    gateway: Gateway, recorder: Recorder
) -> None:
    seen = threading.Semaphore(0)
    pieces = [b"data: %d\n\n" % number for number in range(4)] + [b"x"] * 3 + [b": ping\n\n"] * 5

    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(EVENTS)
        for piece in pieces:
            if piece.startswith(b":"):
                time.sleep(0.2)  # five of them are twice the silence that this route bears
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            assert seen.acquire(timeout=10)
        connection.sendall(b"0\r\n\r\n")

    recorder.scripts["/brisk/events"] = script
    async with await RawClient.connect(gateway.address) as client:
        await client.send(b"GET /brisk/events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.head())[0] == 200
        for piece in pieces:
            assert await client.reader.readexactly(len(piece) + 5) == b"%x\r\n%b\r\n" % (len(piece), piece)
            seen.release()
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"


async def test_a_caller_who_reads_nothing_of_200_mib_holds_the_api_back_and_costs_no_memory(
    gateway: Gateway, recorder: Recorder
) -> None:
    pushed = 0
    left = threading.Event()

    def script(connection: socket.socket, _: bytes) -> None:
        nonlocal pushed
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MIB))
        try:
            while pushed < 200 * MIB:
                pushed += connection.send(b"x" * 65536)
        except ConnectionError:
            left.set()

    recorder.scripts["/public/endless"] = script
    before = resident_bytes(gateway.running.pid)
    client = await RawClient.connect(gateway.address)
    await client.send(b"GET /public/endless HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.head())[0] == 200
    seen = -1
    while pushed != seen:  # until it stands still
        seen = pushed
        await asyncio.sleep(0.5)
    assert pushed < 32 * MIB
    assert resident_bytes(gateway.running.pid) - before < 16 * MIB
    client.reset()
    assert await asyncio.to_thread(left.wait, 10)


@pytest.mark.parametrize(
    ("name", "size", "status"),
    [
        ("a field of 64 KiB", 64 * 1024, 431),
        ("a field of 1 MiB", MIB, 431),
        ("a field of 100 MiB", 100 * MIB, 431),
        ("5000 fields", 0, 431),
        ("a target of 64 KiB", 64 * 1024, 414),
        ("a target of 1 MiB", MIB, 414),
    ],
)
async def test_a_head_beyond_its_bounds_is_refused_early_and_costs_no_memory(
    gateway: Gateway, recorder: Recorder, name: str, size: int, status: int
) -> None:
    recorder.taken()
    before = resident_bytes(gateway.running.pid)
    async with await RawClient.connect(gateway.address) as client:
        if status == 414:
            begin = b"GET /public/x?"
        elif size:
            begin = b"GET /public/x HTTP/1.1\r\nHost: a\r\nX-Long: "
        else:
            begin = b"GET /public/x HTTP/1.1\r\nHost: a\r\n" + b"X-Many: 1\r\n" * 5000 + b"\r\n"
        client.writer.write(begin)
        sent = 0

        async def go_on() -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionError):
                while sent < size:
                    await client.send(b"x" * 65536)
                    sent += 65536

        sending = asyncio.create_task(go_on())
        answer = await client.answer()
        assert (answer.status, answer.one("connection")) == (status, "close")
        assert sent < 16 * MIB  # it was not asked to go on for all of it
        sending.cancel()
        await asyncio.wait({sending})
    assert resident_bytes(gateway.running.pid) - before < 16 * MIB
    assert recorder.taken() == []


def test_the_slow_are_let_go_and_everybody_else_was_served(gateway: Gateway, slow: list[socket.socket]) -> None:
    answers: dict[socket.socket, bytes] = dict.fromkeys(slow, b"")
    under_way = set(slow)
    deadline = time.monotonic() + 30
    poll = select.poll()
    by_number = {one.fileno(): one for one in slow}
    for one in slow:
        poll.register(one, select.POLLIN)
    while under_way and time.monotonic() < deadline:
        # With all of them still there, somebody with a token is served as if they weren't.
        answer = gateway.http.get(f"{gateway.base}/pro/x", headers={"Authorization": f"Bearer {token_for('P')}"})
        assert answer.text == "recorded"
        for number, _ in poll.poll(100):
            one = by_number[number]
            try:
                data = one.recv(65536)
            except ConnectionResetError:
                data = b""
            answers[one] += data
            if not data:
                poll.unregister(number)
                under_way.discard(one)
    assert not under_way
    assert all(not answers[one] or answers[one].startswith(b"HTTP/1.1 408 ") for one in slow[:SILENT])
    assert all(answers[one].startswith(b"HTTP/1.1 408 ") for one in slow[SILENT : SILENT + HALF])
    # A RST may overtake the answer where bytes went on coming.
    assert all(answers[one].startswith((b"HTTP/1.1 408 ", b"")) for one in slow[SILENT + HALF :])
