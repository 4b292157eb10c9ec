"""Fuzzes the readers of answers and the listener for some time, from a seed; what fails is printed with its seed.

python -m tests.fuzz.run --seconds 300
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import time

from gateway.listener_head import ListenerLimits
from tests.fuzz.http2_target import one_http2_conversation
from tests.fuzz.targets import one_answer, one_request, tame_app
from tests.support.gateways import listening

LIMITS = ListenerLimits(head_seconds=0.1, body_silence_seconds=0.1, drain_seconds=0.1)
AT_ONCE = 50


class _Defects(logging.Handler):
    """Whatever is logged as an error, which nothing that a caller sends may cause."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


async def fuzz_listener(seeds: range, until: float) -> int:
    """How many were sent; raises with the first that was not answered as it must be."""
    defects = _Defects()
    logging.getLogger("uvicorn.error").addHandler(defects)
    sent = 0
    try:
        async with listening(tame_app, limits=LIMITS, keep_alive_seconds=0) as address:
            for start in range(seeds.start, seeds.stop, AT_ONCE):
                batch = range(start, min(start + AT_ONCE, seeds.stop))
                done = await asyncio.gather(*(one_request(address, random.Random(seed)) for seed in batch))
                assert not defects.told, (batch, done, defects.told[0])
                sent += len(done)
                if time.monotonic() > until:
                    break
    finally:
        logging.getLogger("uvicorn.error").removeHandler(defects)
    return sent


def fuzz_answers(seeds: range, until: float) -> int:
    """How many were read."""
    for count, seed in enumerate(seeds, 1):
        one_answer(random.Random(seed))
        if count % 100 == 0 and time.monotonic() > until:
            return count
    return len(seeds)


async def fuzz_http2(seeds: range, until: float) -> int:
    """How many conversations were held."""
    for count, seed in enumerate(seeds, 1):
        await one_http2_conversation(random.Random(seed))
        if count % 20 == 0 and time.monotonic() > until:
            return count
    return len(seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + 1_000_000_000)
    third = given.seconds / 3
    print(f"{fuzz_answers(seeds, time.monotonic() + third)} answers were read")
    print(f"{asyncio.run(fuzz_http2(seeds, time.monotonic() + third))} conversations were held in HTTP/2")
    print(f"{asyncio.run(fuzz_listener(seeds, time.monotonic() + third))} requests were sent to a listener")


if __name__ == "__main__":
    main()
