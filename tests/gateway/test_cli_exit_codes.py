"""How every verb ends: 0 done or answered, 1 the answer is no, 2 wrong usage, 3 it could not be done.

The table is in docs/operating.md. What takes a running gateway or Stripe is beside those, in tests of their own.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway.cli import app
from tests.support.ledgers import fresh_sqlite

CONFIG: Final = """
version: 1
server: {{signing_key: a-signing-key-of-the-tests-0123456789, operator: "127.0.0.1:{operator}", operator_token: {token}}}
database: {database}
upstreams: {{api: {{targets: ["http://127.0.0.1:9"]}}}}
auth:
  issuers: [{{issuer: "https://issuer.test/", audience: api, {key}}}]
tiers: {tiers}
routes:
  - {{path: /v1/**, tier: pro}}
"""
SECRET: Final = "algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef"
PUBLISHED: Final = 'algorithms: [RS256], jwks_url: "https://issuer.test/jwks"'
SOLD: Final = "[{name: free}, {name: pro, prices: [price_pro]}, {name: gone, prices: [price_gone]}]"
GIVEN: Final = "[{name: free}, {name: pro}]"

GOOD: Final[dict[str, tuple[str, ...]]] = {
    "check": (),
    "routes": (),
    "customers": (),
    "events": (),
    "version": (),
    "schema": (),
    "run": (),
    "reload": (),
    "demo": ("--upstream", "http://127.0.0.1:9"),
    "simulator": (),
    "token": ("--customer", "alice"),
    "explain": ("GET", "/v1/x"),
    "diff": (),  # its two files are all that it takes
    "openapi": (),  # its document is
    "rehearse": ("--lives", "1"),
    "grant": ("alice", "pro", "--reason", "x"),
    "revoke": ("alice", "--reason", "x"),
    "block": ("alice", "--reason", "x"),
    "unblock": ("alice",),
    "sync": ("alice",),
    "import": ("--match", "id"),
    "events replay": ("evt_1",),
    "events backfill": ("--since", "1d"),
    "db upgrade": (),
    "keys list": ("alice",),
    "keys create": ("alice",),
    "keys rotate": ("gw_000000000000",),
    "keys revoke": ("gw_000000000000",),
}


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> dict[str, Any]:
    command = typer.main.get_command(app) if command is None else command
    found: dict[str, Any] = {}
    if path and (not hasattr(command, "commands") or command.invoke_without_command):
        found[" ".join(path)] = command
    for name, inner in getattr(command, "commands", {}).items():
        found |= verbs(inner, (*path, name))
    return found


WITH_A_FILE: Final = sorted(
    name for name, verb in verbs().items() if name != "openapi" and any("--config" in one.opts for one in verb.params)
)


def gateway(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a ledger that knows alice, files that differ in one thing, and what is no file at all."""
    directory = tmp_path_factory.mktemp("exit-codes")
    database = fresh_sqlite(directory)
    values: dict[str, Any] = {"database": database, "operator": unused_port(), "token": "t" * 32}
    for name, key, tiers in (("good", SECRET, SOLD), ("published", PUBLISHED, GIVEN)):
        text = CONFIG.format(key=key, tiers=tiers, **values)
        (directory / f"{name}.yaml").write_text(text, encoding="utf-8")
    good = (directory / "good.yaml").read_text(encoding="utf-8")
    (directory / "broken.yaml").write_text(good.replace("tier: pro", "tire: pro"), encoding="utf-8")
    (directory / "stricter.yaml").write_text(good.replace("tier: pro", "tier: gone"), encoding="utf-8")
    nowhere = good.replace(database, f"sqlite:///{directory}/none.db").replace("t" * 32, '""')
    (directory / "no-ledger.yaml").write_text(nowhere, encoding="utf-8")
    (directory / "directory").mkdir()
    document = {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {"/v1/a": {"get": {}}}}
    (directory / "api.json").write_text(json.dumps(document), encoding="utf-8")
    document["paths"] = {"/v2/a": {"get": {}}}
    (directory / "other-api.json").write_text(json.dumps(document), encoding="utf-8")
    assert gateway("grant", "alice", "pro", "--reason", "x", "--config", directory / "good.yaml").exit_code == 0
    return directory


def test_this_table_has_every_verb() -> None:
    assert set(GOOD) == set(verbs())


@pytest.mark.parametrize("verb", GOOD)
def test_an_option_that_there_is_not_is_wrong_usage(verb: str) -> None:
    assert gateway(*verb.split(), *GOOD[verb], "--nonsense").exit_code == 2


@pytest.mark.parametrize("file", ["none.yaml", "directory", "broken.yaml"])
@pytest.mark.parametrize("verb", WITH_A_FILE)
def test_a_file_that_can_not_be_had_ends_every_verb_with_3_and_one_with_errors_is_an_answer_to_two(
    place: Path, verb: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM", "")  # which `demo` sets
    asked_about_it = verb in {"check", "reload"} and file == "broken.yaml"

    result = gateway(*verb.split(), *GOOD[verb], "--config", place / file)

    assert result.exit_code == (1 if asked_about_it else 3)
    assert result.stdout == "" or asked_about_it
    assert file in result.output


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, []),
        (2, ["nonsense"]),
        (0, ["--version"]),
        (0, ["check"]),
        (3, ["check", "--stripe"]),
        (0, ["routes"]),
        (0, ["customers"]),
        (0, ["customers", "alice"]),
        (0, ["customers", "ali"]),
        (1, ["customers", "zed"]),
        (2, ["customers", "--limit", "0"]),
        (0, ["events"]),
        (0, ["events", "--status", "dead"]),
        (2, ["events", "--status", "gone"]),
        (1, ["events", "replay", "evt_none"]),
        (2, ["events", "backfill", "--since", "soon"]),
        (3, ["events", "backfill", "--since", "1d"]),
        (0, ["explain", "GET", "/v1/x", "--tier", "free"]),
        (0, ["explain", "GET", "/v1/x", "--customer", "zed"]),
        (1, ["explain", "GET", "/v1/x", "--tier", "gold"]),
        (2, ["explain", "GET", "/v1/x", "--status", "gold"]),
        (2, ["explain", "GET", "/v1/x", "--at", "soon"]),
        (2, ["explain", "GET", "/v1/x", "--customer", ""]),
        (1, ["grant", "alice", "gold", "--reason", "x"]),
        (2, ["grant", "alice", "pro", "--reason", " "]),
        (2, ["grant", "alice", "pro", "--reason", "x", "--until", "soon"]),
        (2, ["grant", "alice", "pro", "--reason", "x", "--until", "2001-01-01"]),
        (2, ["grant", "", "pro", "--reason", "x"]),
        (2, ["grant", "alice", "pro"]),
        (1, ["revoke", "zed", "--reason", "x"]),
        (1, ["revoke", "alice", "--tier", "gold", "--reason", "x"]),
        (2, ["revoke", "", "--reason", "x"]),
        (2, ["block", "a\nb", "--reason", "x"]),
        (1, ["unblock", "alice"]),
        (2, ["unblock", ""]),
        (3, ["sync", "alice"]),
        (2, ["sync"]),
        (3, ["import", "--match", "id"]),
        (2, ["import", "--match", "name"]),
        (0, ["token", "--customer", "alice"]),
        (1, ["token", "--customer", "alice", "--issuer", "https://other.test/"]),
        (2, ["token", "--customer", "alice", "--lifetime", "soon"]),
        (2, ["token", "--customer", "alice", "--lifetime", "0s"]),
        (2, ["token", "--customer", ""]),
        (0, ["keys", "list", "zed"]),
        (3, ["keys", "create", "alice"]),  # they are off in this file
        (2, ["keys", "create", ""]),
        (1, ["keys", "revoke", "gw_000000000000"]),
        (1, ["keys", "revoke", "--customer", "zed"]),
        (2, ["keys", "revoke"]),
        (2, ["rehearse", "--lives", "0"]),
        (2, ["simulator", "--listen", "foo"]),
        (2, ["simulator", "--listen", "127.0.0.1:99999"]),
        (2, ["simulator", "--webhook", "foo"]),
        (2, ["simulator", "--public-url", "foo"]),
        (2, ["demo", "--upstream", "foo"]),
        (3, ["reload"]),  # nothing listens there
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_the_table_says(place: Path, code: int, words: list[str]) -> None:
    config = ["--config", str(place / "good.yaml")] if words and words[0] in {name.split()[0] for name in GOOD} else []

    result = gateway(*words, *config)

    assert result.exit_code == code, result.output
    assert code == 0 or result.stderr or not words
    if code and words:
        assert result.stdout == ""


def test_verbs_that_take_files_of_their_own(place: Path) -> None:
    good, stricter, api = place / "good.yaml", place / "stricter.yaml", place / "api.json"
    ends = [
        (gateway("diff", good, good).exit_code, 0),
        (gateway("diff", good, stricter).exit_code, 1),
        (gateway("diff", good).exit_code, 2),
        (gateway("diff", good, place / "broken.yaml").exit_code, 3),
        (gateway("openapi", api).exit_code, 0),
        (gateway("openapi", api, "--config", good).exit_code, 0),
        (gateway("openapi", place / "other-api.json", "--config", good).exit_code, 1),
        (gateway("openapi", "http://[x").exit_code, 2),
        (gateway("openapi", api, "--config", place / "broken.yaml").exit_code, 3),
        (gateway("openapi", place / "directory").exit_code, 3),
        (gateway("token", "--customer", "a", "--config", place / "published.yaml").exit_code, 3),
        (gateway("rehearse", "--config", place / "published.yaml").exit_code, 3),
    ]
    assert [end for end, _ in ends] == [expected for _, expected in ends]


@pytest.mark.parametrize(
    "verb", [name for name in GOOD if name.split()[0] in {"customers", "grant", "events", "keys", "reload", "sync"}]
)
def test_without_a_ledger_what_works_on_one_ends_with_3(place: Path, verb: str) -> None:
    result = gateway(*verb.split(), *GOOD[verb], "--config", place / "no-ledger.yaml")

    assert (result.exit_code, result.stdout) == (3, "")
    assert "there is no ledger at" in result.stderr
