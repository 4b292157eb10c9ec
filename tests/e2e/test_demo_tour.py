"""`gateway demo`, as a newcomer meets it: what it prints is done as printed, in order; Ctrl-C leaves nothing behind."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.httpbin import REPOSITORY, httpbin_environment
from tests.support.recorder import running_recorder
from tests.support.stack import Process, eventually, free_port, plain_environment, run_verb

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "@@@ "


@contextmanager
def _running_demo(directory: Path, *arguments: str, **environment: str) -> Iterator[tuple[Process, dict[str, int]]]:
    """The demo on the repository's own gateway.yaml, with its ports moved, once it has printed its tour."""
    ports = {"LISTEN": free_port(), "OPERATOR_LISTEN": free_port(), "STRIPE_API_BASE": free_port()}
    moved = {
        "LISTEN": f"127.0.0.1:{ports['LISTEN']}",
        "OPERATOR_LISTEN": f"127.0.0.1:{ports['OPERATOR_LISTEN']}",
        "PUBLIC_URL": f"http://localhost:{ports['LISTEN']}",
        "STRIPE_API_BASE": f"http://127.0.0.1:{ports['STRIPE_API_BASE']}",
    }
    config = str(REPOSITORY / "gateway.yaml")
    demo = Process("demo", "--config", config, *arguments, cwd=directory, env=plain_environment(**moved, **environment))
    try:
        eventually(lambda: "Ctrl-C stops everything." in demo.said or not demo.is_running, within=60)
        assert demo.is_running, demo.said
        yield demo, ports
    finally:
        if demo.is_running:
            demo.stop()


def _commands(said: str) -> list[str]:
    """The lines of the tour that a newcomer is to type."""
    tour = said[said.index("In another terminal") : said.index("Ctrl-C stops everything.")]
    return [line.strip() for line in tour.splitlines() if re.match(r"  (curl|[A-Z]+=)", line)]


def _done(commands: list[str]) -> list[tuple[str, str]]:
    """Each command, typed into one shell, and its output."""
    script = "".join(f"echo '{MARK}{number}'\n{command}\necho\n" for number, command in enumerate(commands))
    shell = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=90, check=False, env=plain_environment()
    )
    outputs = re.split(rf"^{MARK}\d+\n", shell.stdout, flags=re.MULTILINE)[1:]
    return list(zip(commands, outputs, strict=True))


def test_the_tour_of_the_demo_works_as_printed(tmp_path: Path) -> None:
    if not (shutil.which("bash") and shutil.which("curl")):
        pytest.skip("the tour is typed into bash, with curl")
    httpbin = httpbin_environment()
    with _running_demo(tmp_path, HTTPBIN_VENV=str(httpbin)) as (demo, ports):
        done = _done(_commands(demo.said))
        shown = "\n".join(f"$ {command}\n{output}" for command, output in done)

        status_lines = [output.splitlines()[0] for command, output in done if command.startswith("curl -i")]
        statuses = [int(line.split()[1]) for line in status_lines]
        assert statuses == [200, 401, 402, 200, 200, 503, 402], shown
        reasons = re.findall(r"^x-gateway-reason: (\S+)", shown, flags=re.MULTILINE | re.IGNORECASE)
        assert reasons == ["token_missing", "tier_required", "entitlement_unavailable", "subscription_expired"], shown

        [page] = [output for command, output in done if command.startswith("curl -sL")]
        assert "You now have pro" in page
        paid = [output for command, output in done if command.startswith("curl -i")][3]
        assert '"X-Gateway-Tier": "pro"' in paid
        assert '"X-Gateway-Customer": "alice"' in paid

        # What it names besides the tour.
        environment = plain_environment(
            STRIPE_API_BASE=f"http://127.0.0.1:{ports['STRIPE_API_BASE']}", LISTEN="127.0.0.1:1"
        )
        listed = run_verb("customers", "--config", str(REPOSITORY / "gateway.yaml"), cwd=tmp_path, env=environment)
        assert listed.stdout.startswith("alice\t"), listed.stderr
        told = re.search(r"operator's token is in (\S+)", demo.said)
        assert told is not None, "away from a terminal the token goes into a file"
        kept = Path(told[1])
        assert kept.stat().st_mode & 0o777 == 0o600
        password = kept.read_text(encoding="utf-8").strip()
        kept.unlink()
        docs = subprocess.run(
            ["curl", "-s", "-u", f"anyone:{password}", f"http://127.0.0.1:{ports['OPERATOR_LISTEN']}/docs"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert "operator" in docs.stdout

        children = _descendants(demo.pid)
        assert children, "httpbin is a process of its own"
        demo.send(signal.SIGINT)
        assert demo.wait() == 0
        assert [child for child in children if _is_alive(child)] == []
        assert "Traceback" not in demo.said
    assert not (REPOSITORY / "gateway.operator-token").exists()


def test_a_demo_finds_another_port_for_httpbin_where_9000_is_taken(tmp_path: Path) -> None:
    httpbin = httpbin_environment()
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            busy.bind(("127.0.0.1", 9000))
            busy.listen()
        except OSError:
            pass  # somebody else's server is there, which serves as well
        with _running_demo(tmp_path, HTTPBIN_VENV=str(httpbin)) as (demo, ports):
            answer = subprocess.run(
                ["curl", "-s", "-i", f"http://127.0.0.1:{ports['LISTEN']}/status/203"],
                capture_output=True, text=True, timeout=30, check=True,
            )  # fmt: skip
            assert answer.stdout.splitlines()[0].split()[1] == "203"
            assert demo.is_running


def test_a_demo_in_front_of_an_api_of_ones_own_starts_nothing_else(tmp_path: Path) -> None:
    with (
        running_recorder() as recorder,
        _running_demo(tmp_path, "--upstream", recorder.url, HTTPBIN_VENV="/nonexistent") as (demo, ports),
    ):
        with socket.create_connection(("127.0.0.1", ports["LISTEN"]), timeout=10) as connection:
            connection.sendall(b"GET /status/200 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"recorded" in b"".join(iter(lambda: connection.recv(65536), b""))
        assert _descendants(demo.pid) == []


def _descendants(pid: int) -> list[int]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("there is no /proc to see children in")
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended since
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
