"""`server.workers`: several processes are one gateway to callers, to the operator and to whoever ends them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.rawbytes import WEBSOCKET_AGREED, websocket_offer
from tests.support.rawsocket import ask, lines
from tests.support.recorder import Recorder
from tests.support.redis_server import running_redis_url
from tests.support.stack import (
    Gateway,
    bearer,
    eventually,
    plain_environment,
    prepared_gateway,
    run_verb,
    write_config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two workers."""
    with (
        running_redis_url() as redis,
        prepared_gateway(tmp_path_factory.mktemp("workers"), upstream=recorder.url, redis=redis) as gateway,
    ):
        file = gateway.directory / "gateway.yaml"
        file.write_text(file.read_text().replace("  drain: 10s", "  drain: 10s\n  workers: 2"))
        yield gateway.start()


@pytest.fixture(autouse=True)
def _both_serve(gateway: Gateway) -> None:
    if not gateway.running.is_running:
        gateway.start()
    eventually(lambda: gateway.readiness()["workers"] == {"serving": 2, "wanted": 2}, told=lambda: gateway.running.said)


def workers_of(pid: int) -> set[int]:
    """Children belong to the thread that made them."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for one in found for child in one.read_text().split()}


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def is_alive(pid: int) -> bool:
    return state_of(pid) not in {"Z", "gone"}


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """It accepts nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: state_of(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def answered(gateway: Gateway) -> float:
    """Requests to public routes, as /metrics has them."""
    lines = gateway.operator_get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("gateway_requests_total{") and 'route="/public/**"' in line
    )


def ask_anew(gateway: Gateway, times: int) -> list[int]:
    """Requests on a connection each, so that any worker may get them."""
    found = []
    for _ in range(times):
        with httpx.Client(verify=False, trust_env=False, timeout=30) as client:
            found.append(client.get(f"{gateway.base}/public/x").status_code)
    return found


def test_both_are_counted_and_a_killed_one_is_replaced_with_nothing_lost(gateway: Gateway) -> None:
    first, second = workers_of(gateway.running.pid)
    before = answered(gateway)
    # While one is stopped it can't accept, so that the other answers for certain.
    for stopped in (first, second):
        with halted(stopped):
            assert ask_anew(gateway, 5) == [200] * 5
    assert answered(gateway) == before + 10
    os.kill(first, signal.SIGKILL)
    assert ask_anew(gateway, 20) == [200] * 20
    eventually(lambda: len(workers_of(gateway.running.pid) - {first}) == 2, told=lambda: gateway.running.said)
    eventually(lambda: gateway.readiness()["status"] == "ok", told=lambda: gateway.running.said)
    assert second in workers_of(gateway.running.pid)
    assert answered(gateway) == before + 30
    assert f"worker {first} has ended (signal 9)" in gateway.running.said


def test_a_reload_reaches_all_and_whoever_starts_later(gateway: Gateway) -> None:
    file = gateway.directory / "gateway.yaml"
    original = file.read_text()
    file.write_text(
        original.replace("  - {path: /public/**", "  - {path: /new/**, access: public}\n  - {path: /public/**")
    )
    done = run_verb("reload", cwd=gateway.directory)
    assert (done.returncode, done.stderr) == (0, "")
    file.write_text("broken: [")  # whoever starts now must not read this
    workers = workers_of(gateway.running.pid)
    os.kill(min(workers), signal.SIGKILL)
    eventually(lambda: len(workers_of(gateway.running.pid) - {min(workers)}) == 2, told=lambda: gateway.running.said)
    eventually(lambda: gateway.readiness()["status"] == "ok", told=lambda: gateway.running.said)
    for stopped in workers_of(gateway.running.pid):
        with halted(stopped):
            assert httpx.get(f"{gateway.base}/new/x", verify=False, trust_env=False, timeout=30).status_code == 200
    refused = run_verb("reload", cwd=gateway.directory)
    assert refused.returncode == 1
    file.write_text(original)
    assert run_verb("reload", cwd=gateway.directory).returncode == 0
    for stopped in workers_of(gateway.running.pid):
        with halted(stopped):
            assert httpx.get(f"{gateway.base}/new/x", verify=False, trust_env=False, timeout=30).status_code == 404


def test_a_worker_that_is_told_to_end_under_load_takes_no_request_with_it(gateway: Gateway) -> None:
    over = threading.Event()
    leaving = min(workers_of(gateway.running.pid))

    def ask_on() -> set[int]:
        seen = set()
        while not over.is_set():
            seen.add(ask(gateway.address, lines("GET /public/x HTTP/1.1", "Host: a", "Connection: close")).status)
        return seen

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask_on) for _ in range(4)]
        try:
            os.kill(leaving, signal.SIGTERM)
            eventually(lambda: len(workers_of(gateway.running.pid) - {leaving}) == 2, told=lambda: gateway.running.said)
            eventually(lambda: gateway.readiness()["status"] == "ok", told=lambda: gateway.running.said)
        finally:
            over.set()
        assert [one.result(20) for one in asking] == [{200}] * 4
    assert f"worker {leaving} has ended (exit status 0)" in gateway.running.said


def test_a_grant_is_in_force_in_both(gateway: Gateway) -> None:
    gateway.grant_only("ada")
    for stopped in workers_of(gateway.running.pid):
        with halted(stopped):
            eventually(
                lambda: (
                    httpx.get(f"{gateway.base}/pro/x", headers=bearer("ada"), verify=False, trust_env=False).status_code
                    == 200
                )
            )


def test_a_worker_that_can_not_start_ends_the_start_with_3_and_its_sentence(gateway: Gateway, tmp_path: Path) -> None:
    values = write_config(
        tmp_path, redis=re.findall(r"redis: (\S+)", (gateway.directory / "gateway.yaml").read_text())[0]
    )
    file = tmp_path / "gateway.yaml"
    file.write_text(file.read_text().replace("  drain: 10s", "  drain: 10s\n  workers: 2"))
    # Read by every interpreter at its start: one that becomes a worker ends, as where memory is short.
    fault = "import sys\nif 'gateway.worker' in sys.orig_argv:\n    sys.exit(9)\n"
    (tmp_path / "sitecustomize.py").write_text(fault)
    ended = run_verb("run", cwd=tmp_path, env=plain_environment(PYTHONPATH=str(tmp_path)))
    assert ended.returncode == 3
    assert "ended before it served" in ended.stderr
    assert "The API is at" not in ended.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", values["listen"]))  # nobody holds it any more


def test_open_websockets_are_counted_over_all_workers_and_go_with_theirs(gateway: Gateway, recorder: Recorder) -> None:
    def open_now() -> float:
        lines = gateway.operator_get("/metrics").text.splitlines()
        [value] = [float(line.split()[1]) for line in lines if line.startswith("gateway_websockets_open ")]
        return value

    def agree(connection: socket.socket, _: bytes) -> None:
        connection.sendall(WEBSOCKET_AGREED)
        while connection.recv(65536):
            pass

    recorder.scripts["/public/ws"] = agree
    first, second = workers_of(gateway.running.pid)
    with ExitStack() as opened:
        for stopped in (first, second):  # so that each has one
            with halted(stopped):
                client = opened.enter_context(socket.create_connection(gateway.address, timeout=10))
                client.sendall(websocket_offer("/public/ws"))
                assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
        eventually(lambda: open_now() == 2)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: open_now() == 1)
    eventually(lambda: open_now() == 0)


def test_a_stop_ends_all_with_0_and_every_line_of_the_log_is_whole(gateway: Gateway) -> None:
    workers = workers_of(gateway.running.pid)
    assert ask_anew(gateway, 5) == [200] * 5
    assert gateway.running.stop() == 0
    assert not [one for one in workers if is_alive(one)]
    ids = [json.loads(line)["request_id"] for line in gateway.running.logged.splitlines()]
    assert len(ids) >= 5
    assert len(set(ids)) == len(ids)
    assert "Traceback" not in gateway.running.said


def test_a_second_signal_stops_all_at_once(gateway: Gateway, recorder: Recorder) -> None:
    workers = workers_of(gateway.running.pid)
    release = recorder.holds["/public/held"] = threading.Event()
    try:
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(gateway.ask, "/public/held")
            assert recorder.arrived.acquire(timeout=10)
            gateway.running.send(signal.SIGTERM)
            eventually(lambda: gateway.readiness()["status"] == "stopping")
            assert gateway.running.is_running  # what is under way has its drain
            gateway.running.send(signal.SIGINT)
            assert gateway.running.wait(9) == 0  # the drain of 10 s would be longer
            assert answer.exception(10) is not None or answer.result().status_code == 500
    finally:
        release.set()
    assert not [one for one in workers if is_alive(one)]
    assert "Traceback" not in gateway.running.said


def test_no_worker_outlives_a_killed_supervisor(gateway: Gateway) -> None:
    workers = workers_of(gateway.running.pid)
    gateway.running.kill()
    eventually(lambda: not [one for one in workers if is_alive(one)])
    with pytest.raises(httpx.ConnectError):
        ask_anew(gateway, 1)
