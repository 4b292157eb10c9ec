"""Every check of a proxy that the manual lists has a test that is there, and no check is missing from the list."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

from tests.docs.manual import ROOT, section

CORRECTNESS: Final = ROOT / "docs" / "correctness.md"
CHECKS: Final = [
    f"{group}{number:02}"
    for group, count in (("A", 25), ("B", 16), ("C", 18), ("D", 7), ("E", 7))
    for number in range(1, count + 1)
]


@cache
def functions_of(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_check_is_listed_once_with_tests_that_exist() -> None:
    rows = re.findall(
        r"^\| ([A-E]\d\d) \| [^|]+ \| ([^|]+) \|$", section(CORRECTNESS, "Every check of a proxy"), re.MULTILINE
    )
    assert [check for check, _ in rows] == CHECKS
    for check, named in rows:
        tests = re.findall(r"`([\w/]+\.py)::(test_\w+)`", named)
        assert tests, check
        missing = [f"{file}::{name}" for file, name in tests if name not in functions_of(ROOT / "tests" / file)]
        assert not missing, (check, missing)
