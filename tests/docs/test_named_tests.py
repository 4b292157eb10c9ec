"""A page that says "shown by" names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.manual import ROOT, SIMULATOR

CAMPAIGN = ROOT / "docs" / "campaign.md"
FOLDERS = {SIMULATOR: ROOT / "tests" / "admin" / "simulator", CAMPAIGN: ROOT / "tests" / "admin" / "stripe"}
NAMED = [
    (page, *match)
    for page in FOLDERS
    for match in re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
]


def where(page: Path, file: str) -> Path:
    return ROOT / file if "/" in file else FOLDERS[page] / file


@pytest.mark.parametrize("page", FOLDERS, ids=lambda page: page.name)
def test_a_page_names_tests(page: Path) -> None:
    assert len([one for one in NAMED if one[0] == page]) >= 14


@pytest.mark.parametrize(("page", "file", "name"), NAMED, ids=[f"{file}::{name}" for _, file, name in NAMED])
def test_what_is_said_to_be_shown_is_shown_by_a_test_that_is_there(page: Path, file: str, name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", where(page, file).read_text(encoding="utf-8"), re.MULTILINE)
