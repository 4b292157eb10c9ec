"""`make mutants`: plants one fault after another into a copy of the product and sees whether the proof notices.

    python -m tests.mutants.run [--only NAME …] [--lives 80] [--quick] [--processes 2]

For each it prints which scenario failed and in which world of the campaign product and oracle parted. A mutant that
neither notices is missed, and the run ends with 1. First the copy without any fault must pass both.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.faults import MUTANTS, Edit, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = ("policies", "gateway", "admin", "tests", "pyproject.toml")
LONGEST_SECONDS: Final = 900
SOUND: Final = Mutant("(none)", "the product as it is", ())


@dataclass(frozen=True, slots=True)
class Noticed:
    """By which scenario and in which world; None where one did not notice."""

    mutant: Mutant
    scenario: str | None
    world: str | None

    @property
    def is_caught(self) -> bool:
        return self.scenario is not None or self.world is not None


def planted(source: str, edit: Edit) -> str:
    """`source` with the fault in it."""
    if source.count(edit.old) != 1:
        raise ValueError(f"{edit.path} holds the text to replace {source.count(edit.old)} times: {edit.old!r}")
    return source.replace(edit.old, edit.new)


def tried(mutant: Mutant, lives: int, *, is_quick: bool = False) -> Noticed:
    """Plant, run the scenarios until one fails, run the campaign until one world disagrees; quick: until one notices."""
    with tempfile.TemporaryDirectory(prefix=f"mutant-{mutant.name.strip('()')}-") as directory:
        copy = Path(directory)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        for edit in mutant.edits:
            target = copy / edit.path
            target.write_text(planted(target.read_text(encoding="utf-8"), edit), encoding="utf-8")
        scenario = _failure(
            copy,
            ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/admin/stripe/test_scenarios.py"],
            r"^(?:FAILED|ERROR) \S+?::(\S+)",
        )
        if is_quick and scenario is not None:
            return Noticed(mutant, scenario, None)
        world = _failure(
            copy,
            ["-m", "tests.campaign.run", "--lives", str(lives), "--processes", "1", "--stop-at-first"],
            r"^(seed \d+): |^(?!0 lives)(\S.*)",
        )
        return Noticed(mutant, scenario, world)


def _failure(copy: Path, arguments: Sequence[str], told: str) -> str | None:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    if ended.returncode == 0:
        return None
    found = re.search(told, ended.stdout, re.MULTILINE)
    last = (ended.stderr.strip() or ended.stdout.strip() or "?").splitlines()[-1]
    return next(group for group in found.groups() if group) if found else f"it broke: {last}"


def main() -> int:
    options = _options()
    wanted = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    sound = tried(SOUND, options.lives)
    if sound.is_caught:
        print(f"Without any fault the proof fails already: {sound.scenario or sound.world}")
        return 1
    print(f"{'fault':34} {'as its author thought':42} noticed by")
    missed: list[str] = []
    with ThreadPoolExecutor(options.processes) as pool:
        for noticed in pool.map(lambda mutant: tried(mutant, options.lives, is_quick=options.quick), wanted):
            by = [short for short in (_short(noticed.scenario), _short(noticed.world)) if short]
            print(f"{noticed.mutant.name:34} {noticed.mutant.belief:42} {'; '.join(by) or 'NOBODY'}", flush=True)
            missed += [] if noticed.is_caught else [noticed.mutant.name]
    print(
        f"\n{len(wanted) - len(missed)} of {len(wanted)} caught." + (f" Missed: {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


def _short(told: str | None) -> str:
    return "" if told is None else told[:90]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--quick", action="store_true", help="ask the campaign only about what no scenario notices")
    parser.add_argument("--lives", type=int, default=80)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
