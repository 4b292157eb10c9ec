"""`make mutants`: plants one fault after another into a copy of the product and sees whether random lives notice.

    python -m tests.mutants.run [--only NAME …] [--lives 600] [--scenarios] [--processes 2]

For each it prints in which world, after which step of whose life product and oracle parted. A mutant that no life within
`--lives` notices is missed, and the run ends with 1; with `--scenarios` it is also said which row of the scenario table
fails. First the copy without any fault must pass.
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
from functools import partial
from pathlib import Path
from typing import Final

from tests.mutants.faults import MUTANTS, Edit, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = ("policies", "gateway", "admin", "tests", "pyproject.toml")
LONGEST_SECONDS: Final = 1800
_WIDEST: Final = 160
SOUND: Final = Mutant("(none)", "the product as it is", ())


@dataclass(frozen=True, slots=True)
class Noticed:
    """In which life and by which scenario; None where one did not notice or was not asked."""

    mutant: Mutant
    life: str | None
    scenario: str | None


def planted(source: str, edit: Edit) -> str:
    """`source` with the fault in it."""
    if source.count(edit.old) != 1:
        raise ValueError(f"{edit.path} holds the text to replace {source.count(edit.old)} times: {edit.old!r}")
    return source.replace(edit.old, edit.new)


def tried(mutant: Mutant, lives: int, *, with_scenarios: bool = False) -> Noticed:
    """Plant, run the campaign until one world disagrees, and the scenarios until one fails."""
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
        life = _failure(
            copy,
            ["-m", "tests.campaign.run", "--lives", str(lives), "--processes", "1", "--stop-at-first"],
            r"^(seed \d+, .*)",
        )
        if not with_scenarios:
            return Noticed(mutant, life, None)
        scenario = _failure(
            copy,
            ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/admin/stripe/test_scenarios.py"],
            r"^(?:FAILED|ERROR) \S+?::(\S+)",
        )
        return Noticed(mutant, life, scenario)


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
    sound = tried(SOUND, options.lives, with_scenarios=options.scenarios)
    if sound.life or sound.scenario:
        print(f"Without any fault the proof fails already: {sound.life or sound.scenario}")
        return 1
    print(f"{'fault':34} {'as its author thought':42} noticed")
    missed: list[str] = []
    attempt = partial(tried, lives=options.lives, with_scenarios=options.scenarios)
    with ThreadPoolExecutor(options.processes) as pool:
        for noticed in pool.map(attempt, wanted):
            by = "NOT BY ANY LIFE" if noticed.life is None else noticed.life[:_WIDEST]
            if options.scenarios:
                by += f"; by scenario {noticed.scenario}" if noticed.scenario else "; by no scenario"
            print(f"{noticed.mutant.name:34} {noticed.mutant.belief:42} {by}", flush=True)
            missed += [] if noticed.life else [noticed.mutant.name]
    caught = len(wanted) - len(missed)
    print(f"\n{caught} of {len(wanted)} caught by lives." + (f" Missed: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--scenarios", action="store_true", help="ask the scenario table, too")
    parser.add_argument("--lives", type=int, default=600)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
