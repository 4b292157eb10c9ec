"""`gateway rehearse`: worlds one after another, each over a temporary ledger, until the lives are lived or the time is over.

Nothing leaves the process and nothing of the merchant's is touched: Stripe is the simulator, called without a socket, and
the ledger is a file in a temporary directory. The process does nothing else meanwhile: logs of faults that are made
on purpose are no news, and SQLite runs where it is awaited.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from admin.ledger.schema import Upgraded, upgrade
from admin.rehearsal.house import BrokenPromiseError
from admin.rehearsal.inline_sqlite import statements_run_inline
from admin.rehearsal.tally import Tally
from admin.rehearsal.worlds import LIVES_A_WORLD, run_world

if TYPE_CHECKING:
    from admin.rehearsal.terms import Terms


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What went wrong in the world of `seed` with so many lives."""

    seed: int
    lives: int
    story: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was rehearsed. `tally` counts the worlds that came to their end without a disagreement."""

    tally: Tally
    seeds: range
    disagreements: tuple[Disagreement, ...]
    seconds: float


def rehearse(
    terms: Terms,
    *,
    lives: int,
    seconds: float,
    seed: int,
    told: Callable[[int], None],
    steady: Callable[[], float] = time.monotonic,
) -> Report:
    """Live so many lives, the first world from `seed`; no new world is begun once `seconds` are over."""
    began, done, tally = steady(), 0, Tally()
    disagreements: list[Disagreement] = []
    world = seed
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as directory, _undisturbed():
        migrated = _migrated(Path(directory))
        while done < lives and (world == seed or steady() - began < seconds):
            share = min(LIVES_A_WORLD, lives - done)
            ledger = Path(directory) / f"world-{world}.db"
            shutil.copyfile(migrated, ledger)
            try:
                tally.add(asyncio.run(run_world(world, f"sqlite:///{ledger}", terms, lives=share)))
            except BrokenPromiseError as disagreement:
                disagreements.append(Disagreement(world, share, str(disagreement)))
            except Exception:  # noqa: BLE001 -- whatever the product raises here it would raise in earnest
                disagreements.append(Disagreement(world, share, traceback.format_exc()))
            for left in Path(directory).glob(f"{ledger.name}*"):
                left.unlink()
            world, done = world + 1, done + share
            told(done)
    return Report(tally, range(seed, world), tuple(disagreements), steady() - began)


def _migrated(directory: Path) -> Path:
    ledger = directory / "migrated.db"
    outcome = asyncio.run(upgrade(f"sqlite:///{ledger}"))
    if not isinstance(outcome, Upgraded):
        raise BrokenPromiseError(f"a temporary ledger can't be made in {directory}: {outcome.detail}")
    return ledger


@contextmanager
def _undisturbed() -> Iterator[None]:
    thresholds, disabled = gc.get_threshold(), logging.root.manager.disable
    logging.disable(logging.ERROR)
    gc.set_threshold(50_000, 20, 20)  # a world makes many objects and few cycles
    try:
        with statements_run_inline():
            yield
    finally:
        gc.set_threshold(*thresholds)
        logging.disable(disabled)
