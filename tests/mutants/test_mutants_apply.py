"""Every planted fault still fits the product: `make mutants` would otherwise stop in the middle of its list."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.faults import MUTANTS, Mutant
from tests.mutants.run import ROOT, planted


def test_no_two_faults_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) > 25


def test_the_list_of_faults_in_the_docs_is_the_list() -> None:
    page = (ROOT / "docs" / "campaign.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{mutant.name}` | {mutant.belief} |" for mutant in MUTANTS]
    assert f"The {len(MUTANTS)} faults" in page


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fault_fits_the_source_and_leaves_python(mutant: Mutant) -> None:
    sources: dict[str, str] = {}
    for edit in mutant.edits:
        source = sources.get(edit.path) or (ROOT / edit.path).read_text(encoding="utf-8")
        sources[edit.path] = planted(source, edit)
    for source in sources.values():
        ast.parse(source)
