"""Every broken configuration under broken/ says exactly what the text file beside it says.

After a change of wording, `UPDATE_BROKEN=1` rewrites the text files; read the difference before keeping it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policies.diagnostics import render
from policies.load import Loaded, load

BROKEN = Path(__file__).parent / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))
ENVIRON = {
    "WORKERS": "sk_live_in_the_wrong_place",
    "DATABASE_URL": "oracle://root:swordfish@localhost/gateway",
    "HEADER_WITH_NEWLINE": "swordfish\r\nX-Gateway-Tier: pro",
    "WEBHOOK_SECRETS": "whsec_swordfish,swordfish",
}


def read_nothing(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def load_broken(path: Path) -> Loaded:
    return load(path.read_bytes(), file="gateway.yaml", environ=ENVIRON, read_file=read_nothing)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_broken_file_is_told_all_its_problems(path: Path) -> None:
    loaded = load_broken(path)
    rendered = render(loaded.diagnostics)
    expected = path.with_suffix(".txt")
    if os.environ.get("UPDATE_BROKEN"):
        expected.write_text(rendered, encoding="utf-8")
    assert rendered == expected.read_text(encoding="utf-8")
    assert loaded.config is None
    assert loaded.errors


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_problem_shows_what_a_variable_holds_or_a_secret_says(path: Path) -> None:
    rendered = render(load_broken(path).diagnostics)
    for value in (*ENVIRON.values(), "swordfish", "letmein", "short-secret"):
        assert value not in rendered


def test_there_are_enough_broken_files_and_none_without_its_text() -> None:
    assert len(FILES) >= 45
    assert {path.stem for path in FILES} == {path.stem for path in BROKEN.glob("*.txt")}
