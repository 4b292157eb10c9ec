"""Many requests through a gateway process, most of them left at some random point, and what of them stays behind: nothing.

    python -m tests.leaks.run --requests 100000

It must end with the connections, files and memory that the gateway had once it was warm.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.rawclient import RawClient
from tests.support.stack import Gateway, running_gateway
from tests.support.upstreams import Visit, scripted_upstream

CALLERS: Final = 32
SPARE_FILES: Final = CALLERS + 5
"""Connections to the API that are kept for the next request: never more than were in use at once."""
SPARE_BYTES: Final = 24 * 1024 * 1024
"""More than the allocator's own ups and downs; a leak of one kilobyte in a hundred thousand requests is four times as much."""
WARMING: Final = 0.2
"""This part of the requests comes before anything is counted: pools and buffers fill, code and metrics are there."""

_BODY: Final = b"x" * 200_000
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LARGE: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_BODY)


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds: open files, sockets among them, and memory."""

    files: int
    resident_bytes: int

    @classmethod
    def by(cls, gateway: Gateway) -> Held:
        process = Path(f"/proc/{gateway.running.pid}")
        resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
        assert resident is not None
        return cls(len(list((process / "fd").iterdir())), int(resident[1]) * 1024)


async def _api(visit: Visit) -> None:
    """Answers at once, at length, in pieces, or not until the gateway gives up."""
    head = await visit.head()
    if not head.startswith((b"GET ", b"POST ")):
        return  # whoever it was for had left before anything was sent
    path = head.split(b" ", 2)[1]
    if path == b"/public/never":
        while await visit.read():
            pass
        visit.writer.close()
        return
    await visit.request()
    if path == b"/public/large":
        await visit.say(_LARGE)
        await visit.say(_BODY)
    elif path == b"/public/torn":
        await visit.say(_LARGE + _BODY[:1000])
        visit.writer.close()
    else:
        await visit.say(_OK)


async def _one(gateway: Gateway, dice: random.Random) -> None:
    """A request that is followed to its end, or left after some bytes of it, or of its answer."""
    path = dice.choice([b"ok", b"ok", b"large", b"never", b"torn"])
    body = b"b" * dice.choice([0, 0, 10, 70_000])
    head = b"%b /public/%b HTTP/1.1\r\nHost: a\r\n" % (b"POST" if body else b"GET", path)
    sent = head + (b"Content-Length: %d\r\n\r\n" % len(body) if body else b"\r\n") + body
    client = await RawClient.connect(gateway.address)
    try:
        if dice.random() < 0.3:
            await client.send(sent[: dice.randrange(len(sent))])
        else:
            await client.send(sent)
            if path in {b"ok", b"torn"} and dice.random() < 0.7:
                await client.answer()
            elif path != b"never":
                await client.reader.read(dice.choice([1, 100, 50_000]))
    except (ConnectionError, asyncio.IncompleteReadError):
        return
    finally:
        if dice.random() < 0.5:
            client.reset()
        else:
            await client.close()


async def _many(gateway: Gateway, count: int, dice: random.Random) -> None:
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await _one(gateway, dice)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def settled(gateway: Gateway, files: int | None) -> Held:
    """Once nothing is under way any more; with `files`, once there are no more than these, or in time."""
    deadline = time.monotonic() + 30
    while True:
        held = await asyncio.to_thread(Held.by, gateway)
        if files is None or held.files <= files or time.monotonic() > deadline:
            return held
        await asyncio.sleep(0.2)


async def leftovers(directory: Path, requests: int, seed: int) -> tuple[Held, Held, Held]:
    """What the gateway held before anything, once it was warm, and at the end."""
    dice = random.Random(seed)
    async with scripted_upstream(_api) as upstream:
        with running_gateway(directory, upstream=upstream.url) as gateway:
            idle = await settled(gateway, None)
            await _many(gateway, int(requests * WARMING), dice)
            warm = await settled(gateway, idle.files + SPARE_FILES)
            await _many(gateway, int(requests * (1 - WARMING)), dice)
            end = await settled(gateway, idle.files + SPARE_FILES)
            assert "Traceback" not in gateway.running.said, gateway.running.said[-4000:]
            # And it is as good as new.
            answers = [await asyncio.to_thread(gateway.status, "/public/ok") for _ in range(100)]
            assert answers == [200] * 100
    return idle, warm, end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        idle, warm, end = asyncio.run(leftovers(Path(directory), given.requests, given.seed))
    print(f"{given.requests} requests, seed {given.seed}, {time.monotonic() - began:.0f} s")
    for name, held in (("idle", idle), ("warm", warm), ("end", end)):
        print(f"{name}: {held.files} files, {held.resident_bytes / 1e6:.1f} MB resident")
    sys.exit(end.files > idle.files + SPARE_FILES or end.resident_bytes > warm.resident_bytes + SPARE_BYTES)


if __name__ == "__main__":
    main()
