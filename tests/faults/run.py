"""A gateway process between an API that breaks every rule and callers who leave when they like, for minutes.

    python -m tests.faults.run --minutes 30

Each answer must be that of its own request, nothing torn may look whole, no POST may reach the API twice, and at the
end every place of the pool must be free.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.faults.callers import Seen, attack
from tests.faults.upstream import Api, misbehaving_api
from tests.leaks.run import SPARE_FILES, Held, settled
from tests.support.rawclient import RawClient
from tests.support.stack import Gateway, prepared_gateway

PLACES: Final = 16
CALLERS: Final = 24
"""More than there are places, so that some wait for one."""
VISITS_PER_MINUTE: Final = 100_000


def what_is_wrong(api: Api, seen: Seen) -> list[str]:
    """All that must not have happened."""
    twice = [f"{number} reached the API {api.came[number]} times" for number in seen.posts if api.came[number] > 1]
    often = [f"{number} reached the API {count} times" for number, count in api.came.items() if count > 2]
    return [*seen.wrong, *api.wrong, *twice, *often]


async def all_places_are_free(gateway: Gateway, api: Api) -> bool:
    """Whether as many requests as there are places are with the API at once."""

    async def hold(number: int) -> int:
        async with await RawClient.connect(gateway.address) as client:
            request = b"GET /public/x HTTP/1.1\r\nHost: a\r\nX-Number: hold-%d\r\n\r\n" % number
            return (await client.ask(request)).status

    holding = [asyncio.create_task(hold(number)) for number in range(PLACES)]
    try:
        async with asyncio.timeout(8):
            for _ in range(PLACES):
                await api.holding.acquire()
    except TimeoutError:
        print("not all of them reached the API at once")
    came = len(api.held)
    for one in api.held:
        one.set_result(None)
    statuses = await asyncio.gather(*holding)
    return came == PLACES and statuses == [200] * PLACES


async def campaign(directory: Path, *, seed: int, seconds: float) -> tuple[Api, Seen, bool]:
    """The whole of it."""
    async with misbehaving_api() as api:
        with prepared_gateway(directory, upstream=f"http://127.0.0.1:{api.port}") as gateway:
            file = gateway.directory / "gateway.yaml"
            # Nothing is ejected, or most answers would be 502 for that; places are few, so that a lost one is missed.
            bounds = f"idle: 30s}}, max_connections: {PLACES}, queue: 256"
            file.write_text(file.read_text().replace("idle: 30s}", bounds))
            await asyncio.to_thread(gateway.start)
            before = Held.by(gateway)
            visits = int(seconds / 60 * VISITS_PER_MINUTE) + 1
            seen = await attack(
                gateway.address, b"/brisk/x", seed=seed, callers=CALLERS, visits=visits, seconds=seconds
            )
            free = await all_places_are_free(gateway, api)
            after = await settled(gateway, before.files + SPARE_FILES)
            print(
                f"{before.files} files, {before.resident_bytes / 1e6:.1f} MB before; {after.files}, {after.resident_bytes / 1e6:.1f} after"
            )
            assert "Traceback" not in gateway.running.said, gateway.running.said[-4000:]
    return api, seen, free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        api, seen, free = asyncio.run(campaign(Path(directory), seed=given.seed, seconds=given.minutes * 60))
    wrong = what_is_wrong(api, seen) + ([] if free else ["a place of the pool was lost"])
    print(f"{sum(api.came.values())} requests reached the API, seed {given.seed}")
    for name, counted in (("callers saw", seen.outcomes), ("the API did", api.faults)):
        print(name, ", ".join(f"{count} {what.strip('_')}" for what, count in counted.most_common()))
    for one in wrong[:20]:
        print(one)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
