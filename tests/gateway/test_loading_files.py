"""gateway.yaml from disk: everything that is wrong with it, or a configuration that can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.loading import LoadedFile, Unreadable, load_file
from policies.diagnostics import Severity

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """version: 1
upstreams: {api: {targets: [http://127.0.0.1:9000]}}
auth: {issuers: [{issuer: https://a.test/, audience: x, algorithms: [HS256], secret: "${SECRET}"}]}
tiers: [{name: free}, {name: pro, prices: [price_1]}]
routes:
  - {path: /open, access: public}
  - {path: /pro, tier: pro}
"""
ENVIRONMENT = {"SECRET": "a-secret-of-sufficient-length-0123456789"}


def load(directory: Path, text: str, environ: dict[str, str] | None = None) -> LoadedFile:
    path = directory / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load_file(path, ENVIRONMENT if environ is None else environ)
    assert isinstance(loaded, LoadedFile)
    return loaded


def test_a_good_file_is_ready_with_its_routes_compiled(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.ready is not None
    config, table = loaded.ready
    assert [route.label for route in table.routes] == ["/open", "/pro"]
    assert "a-secret" not in repr(config)


def test_problems_of_values_and_of_routes_come_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD + "  - {path: /pro, tier: pro}\n  - {path: nowhere, tire: pro}\ndefault: gold\n"
    loaded = load(tmp_path, text)
    assert loaded.ready is None
    assert [one.line for one in loaded.diagnostics] == sorted(one.line for one in loaded.diagnostics)
    assert {one.code for one in loaded.diagnostics if one.severity is Severity.ERROR}
    assert all(one.file.endswith("gateway.yaml") for one in loaded.diagnostics)


def test_two_routes_that_tie_are_an_error_at_their_line(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "  - {path: /pro, tier: pro}\n")
    assert loaded.ready is None
    (problem,) = [one for one in loaded.diagnostics if one.severity is Severity.ERROR]
    assert problem.line == 8


def test_a_variable_that_is_not_set_is_an_error(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, {})
    assert loaded.ready is None
    assert "SECRET" in " ".join(one.message for one in loaded.diagnostics)


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "gateway.yaml"
    if kind == "directory":
        path.mkdir()
    loaded = load_file(path, {})
    assert isinstance(loaded, Unreadable)
    assert str(path) in loaded.detail
    assert loaded.detail.endswith(".")
