"""What no tracked file may hold: places of the machine it was written on, hosts of package registries, secrets."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.manual import README, ROOT

# Written in halves, so that this file holds none of them.
FORBIDDEN = tuple(
    "".join(halves)
    for halves in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/tmp/com", "mon"),
        ("python", "hosted"),
        ("pypi", ".org"),
        ("index", "-url"),
        ("sk_", "live_5"),
        ("-----BEGIN RSA PRIV", "ATE KEY-----"),
    )
)


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def findings(text: str) -> list[str]:
    return [word for word in FORBIDDEN if word in text]


def test_no_tracked_file_speaks_of_a_machine_a_registry_or_a_secret() -> None:
    found = {
        str(file.relative_to(ROOT)): words
        for file in tracked()
        if (words := findings(file.read_bytes().decode("utf-8", "replace")))
    }

    assert found == {}


@pytest.mark.parametrize("word", FORBIDDEN)
def test_each_forbidden_word_would_be_found(word: str) -> None:
    assert findings(f"see {word}x") == [word]


def test_nothing_that_a_run_leaves_behind_is_tracked() -> None:
    leftovers = re.compile(r"(\.db(-wal|-shm)?|\.pyc|\.env|gateway\.operator-token)$")

    assert [file.name for file in tracked() if leftovers.search(file.name)] == []


def test_every_configuration_that_is_shipped_names_its_schema_for_editors() -> None:
    shipped = [file for file in tracked() if re.search(r"gateway\.ya?ml$", file.name)]
    named = {file: re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text("utf-8")) for file in shipped}

    assert ROOT / "gateway.yaml" in named
    for file, found in named.items():
        assert found is not None, file
        assert (file.parent / found[1]).resolve() == ROOT / "docs" / "gateway.schema.json", file


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 450
