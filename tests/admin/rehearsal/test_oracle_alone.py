"""The oracle shares nothing with the product, not even by way of a module that is written tomorrow."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from admin.rehearsal import oracle


def test_the_oracle_imports_the_standard_library_alone() -> None:
    assert oracle.__file__ is not None
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported
    assert imported <= sys.stdlib_module_names
