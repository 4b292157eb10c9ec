"""What can't start says what, where and what to do, with exit code 3, and never a traceback."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from gateway.serving import CannotListen, bind
from tests.support.ledgers import migrated_sqlite
from tests.support.postgres import shared_postgres
from tests.support.stack import Process, free_port, plain_environment, run_verb, running_simulator, write_config

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def _fails(cwd: Path, *arguments: str, code: int = 3, **environment: str) -> str:
    """What it says on standard error."""
    done = run_verb(*arguments, cwd=cwd, env=plain_environment(**environment))
    everything = done.stdout + done.stderr
    assert done.returncode == code, f"{done.returncode}: {everything}"
    assert "Traceback" not in everything
    assert done.stderr.strip(), "it said nothing"
    return done.stderr


def _replaced(cwd: Path, old: str, new: str) -> None:
    text = (cwd / "gateway.yaml").read_text()
    assert old in text
    (cwd / "gateway.yaml").write_text(text.replace(old, new))


@pytest.mark.parametrize("verb", [["run"], ["customers"]])
def test_without_a_file_every_verb_names_the_one_it_looked_for(tmp_path: Path, verb: list[str]) -> None:
    said = _fails(tmp_path, *verb)
    assert "gateway.yaml" in said
    assert "--config" in said


def test_a_config_error_is_told_with_its_place_and_all_at_once(tmp_path: Path) -> None:
    write_config(tmp_path)
    _replaced(tmp_path, "default: deny", "default: dney\nunknwon: 1")
    _replaced(tmp_path, "/pro/**, tier: pro", "/pro/**, tire: pro")
    said = _fails(tmp_path, "run")
    assert "gateway.yaml:" in said
    assert "'tire'" in said
    assert "did you mean 'tier'" in said
    assert "unknwon" in said
    assert "dney" in said


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a: ["])
def test_a_file_that_is_no_configuration_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gateway.yaml").write_bytes(content)
    assert "gateway.yaml" in _fails(tmp_path, "run")


def test_a_directory_in_the_files_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").mkdir()
    assert "directory" in _fails(tmp_path, "run").lower()


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ('"${file:missing.pem}"', "missing.pem"),
        ("not a key", "public_key"),
        ('"-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----\\n"', "public_key"),
    ],
)
def test_a_key_that_can_not_be_read_is_a_sentence_with_its_place(tmp_path: Path, key: str, named: str) -> None:
    values = write_config(tmp_path)
    _replaced(tmp_path, "[HS256]", "[RS256]")
    _replaced(tmp_path, f"secret: {values['token_secret']}", f"public_key: {key}")
    said = _fails(tmp_path, "run")
    assert "gateway.yaml:" in said
    assert named in said


def test_each_start_warns_of_an_upstream_whose_certificate_is_not_verified(tmp_path: Path) -> None:
    values = write_config(tmp_path, upstream="https://127.0.0.1:9")
    _replaced(tmp_path, "timeouts: {connect", "tls: {verify: false}, timeouts: {connect")
    with socket.socket() as busy:  # so that each start ends by itself
        busy.bind(("127.0.0.1", values["listen"]))
        busy.listen()
        for _ in range(2):
            assert "warning[tls-not-verified]" in _fails(tmp_path, "run")


def test_a_busy_port_is_named_with_its_setting_and_the_next_start_has_it(tmp_path: Path) -> None:
    values = write_config(tmp_path)
    for setting in ("listen", "operator"):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", values[setting]))
            busy.listen()
            said = _fails(tmp_path, "run")
        assert f"127.0.0.1:{values[setting]}" in said
        assert f"server.{setting}" in said
    process = Process("run", cwd=tmp_path)
    process.until_answers(f"http://127.0.0.1:{values['operator']}/readyz")
    assert process.stop() == 0


def test_a_busy_port_of_the_simulator_is_named(tmp_path: Path) -> None:
    write_config(tmp_path)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", free_port()))
        busy.listen()
        port = busy.getsockname()[1]
        said = _fails(tmp_path, "simulator", "--listen", f"127.0.0.1:{port}")
    assert str(port) in said
    assert "--listen" in said


@pytest.mark.parametrize(
    "address",
    ["nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:" + "9" * 5000, ":", "host.invalid:1"],
)
def test_an_address_that_is_none_is_a_sentence(address: str) -> None:
    bound = bind(address, "--listen")
    assert isinstance(bound, CannotListen)
    assert address in bound.detail
    assert "--listen" in bound.detail


def test_an_unreachable_postgresql_is_named_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, database=f"postgresql://someone:hunter2@127.0.0.1:{port}/books")
    for verb in (["run"], ["db", "upgrade"]):
        said = _fails(tmp_path, *verb)
        assert f"127.0.0.1:{port}" in said
        assert "hunter2" not in said


@pytest.mark.postgres
def test_a_postgresql_without_our_tables_says_which_command_makes_them(tmp_path: Path) -> None:
    with shared_postgres().fresh_database() as url:
        write_config(tmp_path, database=url)
        assert "gateway db upgrade" in _fails(tmp_path, "run")
        for _ in range(2):
            done = run_verb("db", "upgrade", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert run_verb("customers", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("database", "named"),
    [
        ("sqlite:///missing/gateway.db", "missing"),
        ("sqlite:///.", "directory"),
        ("sqlite:///gateway.yaml", "gateway.yaml"),
        ("mysql://localhost/x", "gateway.yaml:8:11"),
    ],
)
def test_a_ledger_that_can_not_be_one_is_a_sentence(tmp_path: Path, database: str, named: str) -> None:
    write_config(tmp_path, database=database)
    before = (tmp_path / "gateway.yaml").read_bytes()
    assert named in _fails(tmp_path, "run")
    assert (tmp_path / "gateway.yaml").read_bytes() == before


def test_without_the_simulator_that_the_key_is_for_the_start_says_how_to_get_one(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, secret_key="sk_test_simulator", stripe=f"http://127.0.0.1:{port}")
    said = _fails(tmp_path, "run")
    assert str(port) in said
    assert "gateway simulator" in said


def test_a_key_that_stripe_does_not_take_is_a_sentence_without_the_key(tmp_path: Path) -> None:
    write_config(tmp_path)
    with running_simulator(tmp_path, webhook="http://127.0.0.1:9/") as stripe:
        write_config(tmp_path, secret_key="sk_test_of_somebody_else", stripe=stripe.base)
        said = _fails(tmp_path, "run")
    assert "STRIPE_SECRET_KEY" in said
    assert "sk_test_of_somebody_else" not in said


def test_a_real_stripe_key_is_kept_out_of_the_demo(tmp_path: Path) -> None:
    write_config(tmp_path)
    said = _fails(tmp_path, "demo", STRIPE_SECRET_KEY="sk_live_of_mine")
    assert "STRIPE_SECRET_KEY" in said
    assert "sk_live_of_mine" not in said


def test_a_demo_without_httpbin_says_how_to_get_one(tmp_path: Path) -> None:
    write_config(tmp_path, secret_key="sk_test_simulator", stripe=f"http://127.0.0.1:{free_port()}")
    said = _fails(tmp_path, "demo")
    assert "--upstream" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["grant", "x", "gold", "--reason", "y"],
        ["events", "replay", "evt_none"],
    ],
)
def test_a_command_on_what_is_not_there_is_a_sentence_and_exit_code_1(tmp_path: Path, arguments: list[str]) -> None:
    write_config(tmp_path)
    migrated_sqlite(tmp_path / "gateway.db")
    _fails(tmp_path, *arguments, code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["grant", "x"],
        ["events", "--status", "x"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    write_config(tmp_path)
    _fails(tmp_path, *arguments, code=2)


def _checked(cwd: Path, *arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    done = run_verb("check", *arguments, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_check_says_that_a_good_file_is_good(tmp_path: Path) -> None:
    write_config(tmp_path)
    assert "is good: 8 routes" in _checked(tmp_path, code=0).stderr
    assert _checked(tmp_path, "--format", "json", code=0).stdout == "[]\n"
    assert _checked(tmp_path, "--format", "github", code=0).stdout == ""


def test_check_tells_programs_where_each_problem_is(tmp_path: Path) -> None:
    write_config(tmp_path)
    _replaced(tmp_path, "/pro/**, tier: pro", "/pro/**, tire: pro")
    found: list[dict[str, Any]] = json.loads(_checked(tmp_path, "--format", "json", code=1).stdout)
    line = (tmp_path / "gateway.yaml").read_text().splitlines()[found[0]["line"] - 1]
    assert line[found[0]["column"] - 1 :].startswith("tire")
    annotation = _checked(tmp_path, "--format", "github", code=1).stdout
    assert annotation.startswith("::error file=gateway.yaml,line=")
    text = _checked(tmp_path, code=1).stdout
    assert f"gateway.yaml:{found[0]['line']}:{found[0]['column']}: error[unknown-key]" in text


def test_check_prints_the_configuration_in_force_without_its_secrets(tmp_path: Path) -> None:
    values = write_config(
        tmp_path, secret_key="sk_test_of_the_print", database="postgresql://someone:hunter2@127.0.0.1/x"
    )
    shown = _checked(tmp_path, "--print", code=0).stdout
    assert "max_stale" in shown  # a default that the file does not hold
    for secret in (values["token_secret"], values["operator_token"], "sk_test_of_the_print", "hunter2"):
        assert secret not in shown
