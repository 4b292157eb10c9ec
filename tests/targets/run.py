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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policies.literal_slashes import LiteralTarget
from policies.paths import BadTarget
from policies.routes import CompiledRoute
from tests.support.normalisers import MODELS
from tests.support.respelling import TABLES, ask_too_little, asked, random_target, read
from tests.targets.servers import Readings, nginx_reads, starlette_reads

BATCH: Final = 1000
METHODS: Final = ("GET", "POST")
ENOUGH_FAULTS: Final = 20


@dataclass(slots=True)
class Tally:
    """What came of it; `faults` must stay empty.

    `let_through` are those that some table forwards, each once; `readings` counts those that differ from what was sent.
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
    seen: set[str] = set()
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        for start in range(seeds.start, seeds.stop, BATCH):
            batch = [random_target(random.Random(seed)) for seed in range(start, min(start + BATCH, seeds.stop))]
            tally.sent += len(batch)
            fresh = [raw for raw in dict.fromkeys(batch) if raw not in seen]
            seen.update(fresh)
            passed = {raw: judges for raw in fresh if (judges := list(_judges(raw)))}
            tally.let_through += len(passed)
            read = list(pool.map(lambda server, paths=tuple(passed): server(paths), servers))
            for (raw, judges), *readings in zip(passed.items(), *read, strict=True):
                _judge(raw, judges, {one for each in readings for one in each}, tally, models=models)
            if len(tally.faults) >= ENOUGH_FAULTS or enough():
                break
    return tally


def _judges(raw: str) -> Iterator[tuple[str, str, CompiledRoute]]:
    """Table, method and route of everybody who lets this path through."""
    # The only route that names methods is that of `Export`, and no disguise or reading makes these letters of others.
    methods = METHODS if "xpor" in raw.lower() else METHODS[:1]
    for name, table in TABLES.items():
        for method in methods:
            judge = asked(table, raw, method)[1]
            if judge is not None:
                yield name, method, judge


def _judge(
    raw: str, judges: list[tuple[str, str, CompiledRoute]], readings: set[str], tally: Tally, *, models: bool
) -> None:
    """Every reading of one path, with each table."""
    if models:
        readings.update(model(raw) for model in MODELS)
    readings.discard(raw)
    tally.readings += len(readings)
    different = _different(raw, readings)
    tally.faults += [
        f"{name}: {fault}"
        for name, method, judge in judges
        for fault in ask_too_little(TABLES[name], raw, different, method, judge)
    ]


def _different(raw: str, readings: set[str]) -> list[str]:
    """One reading of each that the gateway takes for the same path, and none that it takes for what was sent or refuses."""
    found: dict[object, str] = {_told_apart(raw): ""}
    for reading in sorted(readings):
        found.setdefault(_told_apart(reading), reading)
    return [reading for told, reading in found.items() if reading and told is not None]


def _told_apart(raw: str) -> object:
    """All that routes see of a path; None where no table reads it."""
    target = read(raw, literally=True)
    if isinstance(target, BadTarget):
        return None
    return raw if isinstance(target, LiteralTarget) else (target.segments, target.has_trailing_slash)


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
