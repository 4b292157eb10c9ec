"""`gateway keys`: what it prints where, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from policies.api_key import key_id_of
from tests.support.ledgers import fresh_sqlite

if TYPE_CHECKING:
    from pathlib import Path


CONFIG = """
version: 1
database: {ledger}
upstreams: {{api: {{targets: ["http://127.0.0.1:9"]}}}}
auth: {{api_keys: {{enabled: {enabled}}}}}
routes: [{{path: /a, access: authenticated}}]
default: {default}
"""


def run(directory: Path, *arguments: str, enabled: bool = True) -> Result:
    ledger = directory / "ledger.db"
    url = f"sqlite:///{ledger}" if ledger.exists() else fresh_sqlite(directory)
    file = directory / "gateway.yaml"
    text = CONFIG.format(ledger=url, enabled=str(enabled).lower(), default="deny")
    file.write_text(text if enabled else text.replace("access: authenticated", "access: public"))
    return CliRunner().invoke(app, ["keys", *arguments, "--config", str(file)])


def test_a_new_key_is_all_that_stdout_holds(tmp_path: Path) -> None:
    made = run(tmp_path, "create", "dora", "--name", "ci", "--expires", "30d", "--scope", "a", "--scope", "b:c")
    assert made.exit_code == 0
    key = made.stdout.removesuffix("\n")
    assert key_id_of(key.encode()) is not None
    assert key not in made.stderr
    assert f"{key[:15]} of dora, until 20" in made.stderr
    (row,) = run(tmp_path, "list", "dora").stdout.splitlines()
    cells = row.split("\t")
    assert (cells[0], cells[1], cells[2], cells[5], cells[6]) == (key[:15], "ci", "active", "-", "a b:c")
    assert key not in row


def test_a_rotated_key_and_its_successor_are_both_listed(tmp_path: Path) -> None:
    old = run(tmp_path, "create", "dora").stdout.strip()
    new = run(tmp_path, "rotate", old[:15], "--overlap", "2h").stdout.strip()
    listed = {row.split("\t")[0]: row.split("\t")[2] for row in run(tmp_path, "list", "dora").stdout.splitlines()}
    assert listed == {old[:15]: "rotated", new[:15]: "active"}
    assert "replaced by" in run(tmp_path, "rotate", old[:15]).stderr


def test_a_whole_key_that_got_out_may_be_revoked_as_it_is(tmp_path: Path) -> None:
    key = run(tmp_path, "create", "dora").stdout.strip()
    ended = run(tmp_path, "revoke", key)
    assert (ended.exit_code, ended.stdout) == (0, f"{key[:15]} of dora is revoked.\n")
    assert run(tmp_path, "revoke", key).exit_code == 1


def test_all_of_a_customers_keys_are_revoked_together(tmp_path: Path) -> None:
    for _ in range(2):
        run(tmp_path, "create", "dora")
    assert run(tmp_path, "revoke", "--customer", "dora").stdout == "2 keys of dora revoked.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("revoke",), 2, "--customer"),
        (("revoke", "gw_000000000000", "--customer", "dora"), 2, "--customer"),
        (("revoke", "gw_000000000000"), 1, "no key gw_000000000000"),
        (("revoke", "x"), 1, "no id of a key"),
        (("revoke", "--customer", "dora"), 1, "no key that is in force"),
        (("rotate", "gw_000000000000"), 1, "no key gw_000000000000"),
        (("create", "dora", "--expires", "soon"), 2, "neither a duration"),
        (("create", "dora", "--scope", "a b"), 2, "scopes"),
        (("create", "x" * 256), 2, "longer than 255"),
        (("create", ""), 2, "empty"),
    ],
)
def test_what_is_wrong_is_a_sentence_on_stderr(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run(tmp_path, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_customer_without_keys_is_an_empty_list_and_a_sentence(tmp_path: Path) -> None:
    listed = run(tmp_path, "list", "zed")
    assert (listed.exit_code, listed.stdout, listed.stderr) == (0, "", "zed has no API key.\n")


def test_where_keys_are_off_none_is_made_and_those_there_are_can_be_ended(tmp_path: Path) -> None:
    key = run(tmp_path, "create", "dora").stdout.strip()
    refused = run(tmp_path, "create", "dora", enabled=False)
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "auth.api_keys.enabled" in refused.stderr
    assert run(tmp_path, "rotate", key[:15], enabled=False).exit_code == 3
    assert run(tmp_path, "list", "dora", enabled=False).stdout.startswith(key[:15])
    assert run(tmp_path, "revoke", key[:15], enabled=False).exit_code == 0
