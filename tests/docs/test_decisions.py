"""Records of decisions are found by their number, so that each has one of its own and the index has them all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.docs.manual import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DECISIONS = ROOT / "docs" / "decisions"
ENTRY = re.compile(r"^\| \[(\d{4})\]\((\S+)\) \| (.+) \|$", re.MULTILINE)


def records(folder: Path) -> list[tuple[str, str, str]]:
    """Number, file and title as the records themselves say them."""
    found = []
    for file in sorted(folder.glob("[0-9]*.md")):
        number, title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(" ", 1)
        found.append((number, file.name, title))
    return found


def test_no_two_records_share_a_number_and_each_says_its_own() -> None:
    numbers = [number for number, _, _ in records(DECISIONS)]

    assert numbers == sorted(set(numbers))
    assert numbers == [name[:4] for _, name, _ in records(DECISIONS)]


def test_the_index_has_every_record_in_order_and_no_other() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")

    listed = [(number, name) for number, name, _ in ENTRY.findall(index)]

    assert listed == [(number, name) for number, name, _ in records(DECISIONS)]


def test_two_records_of_one_number_would_be_found(tmp_path: Path) -> None:
    for name in ("0001-a.md", "0001-b.md"):
        (tmp_path / name).write_text("# 0001 A title\n")

    numbers = [number for number, _, _ in records(tmp_path)]

    assert numbers != sorted(set(numbers))
