"""P1's property for a great many random targets: nobody behind the gateway reads more into a path than was asked for.

    python -m tests.targets.run --count 1000000 --minutes 120

Every target that is let through is read by each model of `tests.support.normalisers`, and, where they are installed, by
nginx and Starlette themselves; every reading is judged with every table. What fails is printed with its target.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.normalisers import MODELS
from tests.support.respelling import TABLES, ask_too_little, asked, random_target
from tests.targets.servers import Readings, nginx_reads, starlette_reads

BATCH: Final = 1000
METHODS: Final = ("GET", "POST")


@dataclass(slots=True)
class Tally:
    """What came of it; `faults` must stay empty.

    `let_through` are those that some table forwards; `readings` counts those that differ from what was sent.
    """

    sent: int = 0
    let_through: int = 0
    readings: int = 0
    faults: list[str] = field(default_factory=list)


def nginx_is_here() -> bool:
    return shutil.which("nginx") is not None or shutil.which("nginx", path="/usr/sbin") is not None


def search(
    seeds: range,
    servers: Sequence[Readings],
    *,
    models: bool = True,
    enough: Callable[[], bool] = lambda: False,
) -> Tally:
    """One target for each seed."""
    tally = Tally()
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        for start in range(seeds.start, seeds.stop, BATCH):
            batch = [random_target(random.Random(seed)) for seed in range(start, min(start + BATCH, seeds.stop))]
            tally.sent += len(batch)
            passed = [raw for raw in dict.fromkeys(batch) if _is_let_through(raw)]
            tally.let_through += len(passed)
            read = list(pool.map(lambda server, paths=passed: server(paths), servers))
            for raw, *readings in zip(passed, *read, strict=True):
                _judge(raw, {one for each in readings for one in each}, tally, models=models)
            if tally.faults or enough():
                break
    return tally


def _is_let_through(raw: str) -> bool:
    return any(asked(table, raw, method)[1] is not None for table in TABLES.values() for method in METHODS)


def _judge(raw: str, readings: set[str], tally: Tally, *, models: bool) -> None:
    """Every reading of one path, with each table."""
    if models:
        readings.update(model(raw) for model in MODELS)
    readings.discard(raw)
    tally.readings += len(readings)
    tally.faults += [
        f"{name}: {fault}"
        for name, table in TABLES.items()
        for method in METHODS
        for fault in ask_too_little(table, raw, sorted(readings), method)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    until = time.monotonic() + given.minutes * 60
    with ExitStack() as stack:
        servers = [stack.enter_context(starlette_reads())]
        if nginx_is_here():
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            servers.append(stack.enter_context(nginx_reads(Path(directory))))
        else:
            print("there is no nginx here: its model stands in for it")
        seeds = range(given.first_seed, given.first_seed + given.count)
        tally = search(seeds, servers, enough=lambda: time.monotonic() > until)
    print(f"{tally.sent} targets, {tally.let_through} let through, {tally.readings} other readings of them")
    for fault in tally.faults:
        print(fault)
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
