"""What the command line does with arguments that nobody should send, and before there is anything to work on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATEWAY = [sys.executable, "-c", "from gateway.entry import main; main()"]


def run(directory: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": "", "STRIPE_SECRET_KEY": ""}
    command: list[str | bytes] = [*GATEWAY, *arguments]
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "verb", [[b"customers", b"\xff"], [b"sync", b"a\xff"], [b"simulator", b"--listen", b"a\xff:1"]]
)
def test_an_argument_that_is_no_utf_8_is_a_sentence(tmp_path: Path, verb: list[bytes]) -> None:
    ended = run(tmp_path, *verb)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "gateway: an argument is not valid UTF-8.\n"


@pytest.mark.parametrize(
    "verb",
    [
        ["customers"],
        ["grant", "alice", "pro", "--reason", "x"],
        ["block", "alice", "--reason", "x"],
        ["events"],
    ],
)
def test_a_verb_makes_no_ledger_of_its_own_and_says_where_it_looked(tmp_path: Path, verb: list[str]) -> None:
    ended = _beside(tmp_path, verb)
    assert ended.returncode == 3
    assert f"there is no ledger at {tmp_path}/gateway.db yet" in ended.stderr
    assert not (tmp_path / "gateway.db").exists()


def _beside(directory: Path, verb: list[str]) -> subprocess.CompletedProcess[str]:
    config = directory / "gateway.yaml"
    config.write_text((ROOT / "gateway.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    return run(elsewhere, *verb, "--config", str(config))


@pytest.mark.parametrize("verb", [["schema"], ["version"], ["--help"]])
def test_a_full_disk_under_the_output_is_a_sentence(tmp_path: Path, verb: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*GATEWAY, *verb],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 3
    assert ended.stderr == "gateway: what it says can't be written: No space left on device.\n"


def test_a_command_whose_output_is_closed_works_all_the_same(tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *GATEWAY, "schema"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(closed, cwd=tmp_path, env=environ, check=False, timeout=60).returncode == 0


def test_the_version_is_told_both_ways(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == run(tmp_path, "version").stdout != ""


def test_a_command_loads_nothing_of_what_only_some_need_and_garbage_is_collected_again() -> None:
    heavy = {"sqlalchemy", "alembic", "psycopg", "fastapi", "redis", "stripe", "uvicorn"}
    program = (
        f"import gc, sys, gateway.entry as entry\nsys.argv = ['gateway', '--version']\ntry: entry.main()\n"
        f"finally: print(sorted({heavy} & set(sys.modules)), gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[] True", done.stdout + done.stderr
