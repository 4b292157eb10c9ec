"""gateway.yaml from disk: everything that is wrong with it, or a configuration that can be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.loading import LoadedFile, Unreadable, load_file
from policies.diagnostics import Severity
from policies.load import DEMO_TOKEN_SECRET

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


def test_a_file_without_an_end_is_read_no_further_than_one_may_be_long() -> None:
    loaded = load_file(Path("/dev/zero"), ENVIRONMENT)
    assert isinstance(loaded, LoadedFile)
    assert [one.code for one in loaded.diagnostics] == ["too-large"]


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
    assert "--config" not in loaded.detail, "whoever names a file needs no word on how to name one"


def test_a_relative_ledger_is_beside_the_file_wherever_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for written, meant in (
        ("sqlite:///gateway.db", f"sqlite:///{tmp_path}/gateway.db"),
        ("sqlite:////var/lib/gateway.db", "sqlite:////var/lib/gateway.db"),
        ("postgresql://db/gateway", "postgresql://db/gateway"),
    ):
        loaded = load(tmp_path, f"{GOOD}database: {written}\n")
        assert loaded.ready is not None
        assert loaded.ready[0].database.get_secret_value() == meant


def test_of_two_routes_that_tie_each_names_the_line_of_the_other(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{GOOD}  - {{path: /open, access: authenticated}}\n")
    (tie,) = [one for one in loaded.diagnostics if one.code == "ambiguous-route"]
    assert tie.message.endswith(f"(the other is at line {6 if tie.line == 8 else 8})")


def test_a_file_that_never_ends_or_is_no_file_is_an_error_and_no_wait(tmp_path: Path) -> None:
    large, pipe = tmp_path / "large", tmp_path / "pipe"
    large.write_text("x" * 100_000, encoding="utf-8")
    os.mkfifo(pipe)
    for path in ("/dev/zero", str(pipe), str(large), str(tmp_path), str(tmp_path / "missing")):
        broken = load(tmp_path, GOOD.replace("${SECRET}", f"${{file:{path}}}"))
        assert broken.ready is None, path
        assert [one.code for one in broken.diagnostics] == ["unreadable-file"], path


@pytest.mark.parametrize(
    "more",
    [
        "server: {public_url: https://api.example.com, listen: 127.0.0.1:8080}\n",
        "server: {listen: 0.0.0.0:8080}\n",
        "server: {listen: 127.0.0.1:8080}\nbilling: {stripe: {secret_key: sk_live_abc, webhook_secrets: whsec_1}}\n",
    ],
)
def test_the_demos_secret_serves_nobody_but_its_owner(tmp_path: Path, more: str) -> None:
    """A gateway behind a proxy of its machine listens on loopback and is on the net all the same."""
    loaded = load(tmp_path, GOOD + more, {"SECRET": DEMO_TOKEN_SECRET})
    assert loaded.ready is None
    assert "demo-secret" in {one.code for one in loaded.diagnostics}


def test_a_gateway_moved_to_another_port_is_warned_of_links_that_lead_to_the_old_one(tmp_path: Path) -> None:
    moved = load(tmp_path, f"{GOOD}server: {{listen: '127.0.0.1:8090'}}\n")
    assert [one.code for one in moved.diagnostics] == ["public-url-port"]
    told = load(tmp_path, f"{GOOD}server: {{listen: '127.0.0.1:8090', public_url: 'http://localhost:8090'}}\n")
    assert told.diagnostics == ()
