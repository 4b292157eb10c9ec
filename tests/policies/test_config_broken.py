"""Every broken configuration under broken/ says exactly what the text file beside it says.

After a change of wording, `UPDATE_BROKEN=1` rewrites the text files; read the difference before keeping it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.loading import LoadedFile, load_file
from policies.diagnostics import Severity, render

BROKEN = Path(__file__).parent / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))
ENVIRON = {
    "WORKERS": "sk_live_in_the_wrong_place",
    "DATABASE_URL": "oracle://root:swordfish@localhost/gateway",
    "HEADER_WITH_NEWLINE": "swordfish\r\nX-Gateway-Tier: pro",
    "WEBHOOK_SECRETS": "whsec_swordfish,swordfish",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A file and what became of it."""

    path: Path
    loaded: LoadedFile


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """One of the files, read and compiled as `gateway check` does it, beside no other file."""
    path: Path = request.param
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("broken"))
        Path("gateway.yaml").write_bytes(path.read_bytes())
        loaded = load_file(Path("gateway.yaml"), ENVIRON, run_tests=True)
    assert isinstance(loaded, LoadedFile)
    return Broken(path, loaded)


def test_a_broken_file_is_told_all_its_problems(broken: Broken) -> None:
    rendered = render(broken.loaded.diagnostics)
    expected = broken.path.with_suffix(".txt")
    if os.environ.get("UPDATE_BROKEN"):
        expected.write_text(rendered, encoding="utf-8")
    assert rendered == expected.read_text(encoding="utf-8")
    assert broken.loaded.ready is None
    assert any(one.severity is Severity.ERROR for one in broken.loaded.diagnostics)


def test_no_problem_shows_what_a_variable_holds_or_a_secret_says(broken: Broken) -> None:
    rendered = render(broken.loaded.diagnostics)
    for value in (*ENVIRON.values(), "swordfish", "letmein", "short-secret"):
        assert value not in rendered


UNREADABLE = {
    *("byte_order_mark", "control_character", "empty_file", "failed_tests", "indentation", "not_a_mapping", "not_utf8"),
    *("several_documents", "syntax_colon", "syntax_flow_path", "syntax_flow_substitution", "tabs", "too_deep"),
    *("unclosed_bracket", "unclosed_quote"),
}
"""Of which nothing else can be known, or whose tests are run when nothing else is wrong."""


def test_an_error_elsewhere_hides_none_of_these(broken: Broken, tmp_path: Path) -> None:
    text = broken.path.read_bytes()
    if b"\ncache:" in text or broken.path.stem in UNREADABLE:
        pytest.skip("its own text says why")
    path = tmp_path / "gateway.yaml"
    path.write_bytes(text.rstrip() + b"\ncache: {max_ttl: 3600}\n")
    loaded = load_file(path, ENVIRON, run_tests=True)
    assert isinstance(loaded, LoadedFile)
    told = [(one.line, one.code, one.message) for one in loaded.diagnostics]
    assert [one for one in told if "'max_ttl'" in one[2]]
    assert [(one.line, one.code, one.message) for one in broken.loaded.diagnostics] == [
        one for one in told if "'max_ttl'" not in one[2]
    ]


def test_there_are_enough_broken_files_and_none_without_its_text() -> None:
    assert len(FILES) >= 60
    assert {path.stem for path in FILES} == {path.stem for path in BROKEN.glob("*.txt")}
