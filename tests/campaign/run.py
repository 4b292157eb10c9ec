"""`make campaign`: many worlds on several processes, within a bound of time. Ends with 1 where product and oracle differ.

    python -m tests.campaign.run [--lives 20000] [--minutes 60] [--first-seed 0] [--database sqlite|postgres] [--processes 2]

A world can be run alone by its seed, with `--first-seed SEED --lives 10`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from admin.rehearsal.inline_sqlite import statements_run_inline
from admin.rehearsal.tally import Tally
from admin.rehearsal.worlds import LIVES_A_WORLD, run_world
from tests.campaign.caches import caches_of
from tests.campaign.terms import terms_of_world
from tests.support.ledgers import fresh_postgres, fresh_sqlite
from tests.support.redis_server import RedisServer

MEMORY = Path("/dev/shm")


def one_world(
    seed: int, database: str = "sqlite", lives: int = LIVES_A_WORLD, redis: RedisServer | None = None
) -> Tally:
    """A world over a fresh ledger. What it logs of faults that were made on purpose is no news."""
    logging.disable(logging.ERROR)
    through = None if redis is None else partial(caches_of, server=redis)
    gc.set_threshold(50_000, 20, 20)
    try:
        if database == "postgres":
            with fresh_postgres() as url:
                return asyncio.run(run_world(seed, url, terms_of_world(seed), lives=lives, caches_of=through))
        with (
            tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory,
            statements_run_inline(),
        ):
            return asyncio.run(
                run_world(seed, fresh_sqlite(Path(directory)), terms_of_world(seed), lives=lives, caches_of=through)
            )
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    options = _options()
    seeds = range(options.first_seed, options.first_seed + -(-options.lives // LIVES_A_WORLD))
    until = time.monotonic() + options.minutes * 60
    tally, wrong = Tally(), 0
    with ProcessPoolExecutor(options.processes) as pool:
        # Handed out as they are worked off, so that the end of the time is the end of the work.
        waiting = iter(seeds)
        running = {pool.submit(one_world, seed, options.database) for _, seed in zip(range(options.processes * 2), waiting, strict=False)}  # fmt: skip
        while running:
            done = next(as_completed(running))
            running.remove(done)
            try:
                tally.add(done.result())
            except AssertionError as disagreement:  # the product and the oracle differ
                wrong += 1
                print(disagreement, end="\n\n", flush=True)
            print(f"\r{tally.lives} lives, {wrong} worlds in which product and oracle differ", end="", file=sys.stderr)
            if wrong and options.stop_at_first:
                pool.shutdown(cancel_futures=True)
                break
            if time.monotonic() < until and (seed := next(waiting, None)) is not None:
                running.add(pool.submit(one_world, seed, options.database))
    print(f"\n{tally}")
    if tally.lives < options.lives and not wrong:
        print(f"The time was over after {tally.lives} of {options.lives} lives.")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--lives", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--stop-at-first", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
