"""P10: the configuration in force is always one that loaded whole; a bad reload changes nothing and says why."""

from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

import pytest

from tests.support.rawbytes import WEBSOCKET_AGREED, websocket_offer
from tests.support.recorder import Recorder
from tests.support.stack import (
    AUDIENCE,
    TOKEN_SECRET,
    Gateway,
    Process,
    eventually,
    prepared_gateway,
    run_verb,
    token_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def gateway(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One whose file each test changes and sets back."""
    with prepared_gateway(tmp_path_factory.mktemp("reload"), upstream=recorder.url) as gateway:
        yield gateway.start()


@pytest.fixture
def edit(gateway: Gateway) -> Iterator[Callable[[str, str], None]]:
    """Replace something in the file; it is set back, and read again, at the end."""
    file = gateway.directory / "gateway.yaml"
    original = file.read_text()

    def replace(old: str, new: str) -> None:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    yield replace
    file.write_text(original)
    assert run_verb("reload", cwd=gateway.directory).returncode == 0
    assert "refused" not in gateway.readiness()["configuration"]


def metric(gateway: Gateway, name: str) -> float:
    (line,) = [line for line in gateway.operator_get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def generation(gateway: Gateway) -> int:
    return int(gateway.readiness()["configuration"]["generation"])


def test_the_verb_and_a_hangup_put_a_changed_file_in_force(gateway: Gateway, edit: Callable[[str, str], None]) -> None:
    before = generation(gateway)
    assert gateway.status("/new/x") == 404
    edit("  - {path: /public/**", "  - {path: /new/**, access: public}\n  - {path: /public/**")
    done = run_verb("reload", cwd=gateway.directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert generation(gateway) == before + 1
    assert gateway.status("/new/x") == 200
    edit("/new/**", "/newer/**")
    gateway.running.send(signal.SIGHUP)
    gateway.until("/newer/x", None, 200)
    assert gateway.status("/new/x") == 404
    assert metric(gateway, "gateway_config_last_reload_successful") == 1


def test_a_reload_warns_of_an_upstream_whose_certificate_is_not_verified(
    gateway: Gateway, edit: Callable[[str, str], None]
) -> None:
    assert "tls-not-verified" not in gateway.running.said
    edit("upstreams:\n", 'upstreams:\n  other: {targets: ["https://127.0.0.1:9"], tls: {verify: false}}\n')
    edit("access: public}", "access: public, upstream: api}")
    edit("access: authenticated}", "access: authenticated, upstream: api}")
    edit("methods: [GET], tier: pro}", "methods: [GET], tier: pro, upstream: api}")
    edit("/pro/**, tier: pro}", "/pro/**, tier: pro, upstream: api}")
    edit("features: [export]}", "features: [export], upstream: api}")
    edit("tier: enterprise}", "tier: enterprise, upstream: api}")
    edit("max_body: 64KiB}", "max_body: 64KiB, upstream: other}")
    edit("access: public, timeouts", "access: public, upstream: api, timeouts")
    done = run_verb("reload", cwd=gateway.directory)
    assert "warning[tls-not-verified]" in done.stdout + done.stderr
    assert done.returncode == 0
    assert "warning[tls-not-verified]" in gateway.running.said


def test_a_broken_file_changes_nothing_and_every_place_says_why(
    gateway: Gateway, edit: Callable[[str, str], None]
) -> None:
    before = generation(gateway)
    edit("/pro/**, tier: pro", "/pro/**, tire: pro")
    done = run_verb("reload", cwd=gateway.directory)
    assert done.returncode == 1
    assert "did you mean 'tier'" in done.stderr
    answer = gateway.operator_post("/api/reload", {})
    assert answer.status_code == 422
    assert "did you mean 'tier'" in answer.json()["problems"]
    assert generation(gateway) == before
    assert "did you mean 'tier'" in gateway.readiness()["configuration"]["refused"]
    assert "configuration" in gateway.readiness()["degraded"]
    assert metric(gateway, "gateway_config_last_reload_successful") == 0
    assert "did you mean 'tier'" in gateway.running.said
    assert gateway.status("/pro/x") == 401


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("sqlite:///gateway.db", "sqlite:///other.db", "database"),
        ("redis:", "cache: {max_ttl: 7m}\nredis:", "cache"),
    ],
)
def test_what_waits_for_a_restart_is_refused_whole_and_named(
    gateway: Gateway, edit: Callable[[str, str], None], old: str, new: str, named: str
) -> None:
    edit(old, new)
    edit("/free/**, access: authenticated", "/free/**, access: public")
    answer = gateway.operator_post("/api/reload", {})
    assert answer.status_code == 422
    assert f"error[needs-restart]: '{named}'" in answer.json()["problems"]
    assert gateway.status("/free/x") == 401


def test_a_tier_that_vanishes_takes_what_it_gave_along_and_one_that_comes_between_gives_nothing_more(
    gateway: Gateway, edit: Callable[[str, str], None]
) -> None:
    gateway.grant("of-pro")
    edit("  - name: pro\n", "  - name: basic\n    prices: [price_basic]\n  - name: pro\n")
    assert gateway.operator_post("/api/reload", {}).status_code == 200
    assert gateway.status("/pro/x", "of-pro") == 200
    gateway.grant_only("of-basic", "basic")
    assert gateway.status("/pro/x", "of-basic") == 402
    edit("  - name: basic\n    prices: [price_basic]\n", "")
    assert gateway.operator_post("/api/reload", {}).status_code == 200
    assert gateway.status("/pro/x", "of-basic") == 402
    assert gateway.status("/free/x", "of-basic") == 200


def test_tokens_that_were_verified_before_are_verified_again_by_what_the_issuer_says_now(
    gateway: Gateway, edit: Callable[[str, str], None]
) -> None:
    token = {"Authorization": f"Bearer {token_for('remembered')}"}
    assert gateway.ask("/free/x", headers=token).status_code == 200
    for old, new in (
        (f"audience: {AUDIENCE}", "audience: somebody-elses"),
        ("audience: somebody-elses", f"audience: {AUDIENCE}, types: [at+jwt]"),
        (", types: [at+jwt]", ", customer: org_id"),
        (
            f"customer: org_id, algorithms: [HS256], secret: {TOKEN_SECRET}",
            f"algorithms: [HS256], secret: another-{TOKEN_SECRET}",
        ),
    ):
        edit(old, new)
        assert gateway.operator_post("/api/reload", {}).status_code == 200
        answer = gateway.ask("/free/x", headers=token)
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (401, "token_invalid"), new
    edit("secret: another-", "secret: ")
    assert gateway.operator_post("/api/reload", {}).status_code == 200
    assert gateway.ask("/free/x", headers=token).status_code == 200


def test_a_request_under_way_finishes_on_what_it_began_with(
    gateway: Gateway, recorder: Recorder, edit: Callable[[str, str], None]
) -> None:
    release = recorder.holds["/public/slow"] = threading.Event()
    try:
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(gateway.ask, "/public/slow")
            assert recorder.arrived.acquire(timeout=10)
            edit("path: /public/**", "path: /elsewhere/**")
            edit(recorder.url, "http://127.0.0.1:9")
            assert gateway.operator_post("/api/reload", {}).status_code == 200
            assert gateway.status("/elsewhere/x") == 502
            release.set()
            assert answer.result(10).status_code == 200
    finally:
        release.set()


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_what_is_open_goes_on_over_a_reload_that_admits_it_and_ends_by_one_that_does_not(
    gateway: Gateway, recorder: Recorder, edit: Callable[[str, str], None]
) -> None:
    more = threading.Semaphore(0)

    def events(connection: socket.socket, _: bytes) -> None:
        connection.sendall(EVENTS)
        for number in range(2):
            connection.sendall(b"9\r\ndata: %d\n\n\r\n" % number)
            assert more.acquire(timeout=10)
        connection.recv(1)

    def conversation(connection: socket.socket, _begun: bytes) -> None:
        connection.sendall(WEBSOCKET_AGREED)
        while connection.recv(100):
            connection.sendall(b"\x81\x02ok")

    recorder.scripts |= {"/pro/events": events, "/pro/ws": conversation}
    gateway.grant("listener")
    token = f"Authorization: Bearer {token_for('listener')}\r\n".encode()
    with (
        socket.create_connection(gateway.address, timeout=10) as listener,
        socket.create_connection(gateway.address, timeout=10) as speaker,
        listener.makefile("rb") as heard,
        speaker.makefile("rb") as spoken,
    ):
        listener.sendall(b"GET /pro/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n" + token + b"\r\n")
        _read_past(heard, b"data: 0\n")
        speaker.sendall(websocket_offer("/pro/ws", token))
        _read_past(spoken, b"\r\n\r\n")
        speaker.sendall(b"\x81\x80\0\0\0\0")
        assert spoken.read(4) == b"\x81\x02ok"

        edit("/pro/**, tier: pro", "/pro/**, tier: pro, features: [export]")  # which a grant of pro has
        assert gateway.operator_post("/api/reload", {}).status_code == 200
        more.release()
        _read_past(heard, b"data: 1\n")
        speaker.sendall(b"\x81\x80\0\0\0\0")
        assert spoken.read(4) == b"\x81\x02ok"

        edit("/pro/**, tier: pro, features: [export]", "/pro/**, tier: enterprise")
        assert gateway.operator_post("/api/reload", {}).status_code == 200
        _read_past(heard, b"event: payment-required\n")
        assert b'"reason": "tier_required"' in heard.readline().replace(b'":"', b'": "')
        _read_past(heard, b"0\r\n\r\n")
        assert spoken.read(4)[2:] == (4402).to_bytes(2)
        more.release()


def _read_past(answer: IO[bytes], mark: bytes) -> None:
    """To the end of the first occurrence of it."""
    seen = b""
    while not seen.endswith(mark):
        byte = answer.read(1)
        assert byte, seen
        seen += byte


def test_the_tests_of_a_file_must_pass_where_it_says_so(gateway: Gateway, edit: Callable[[str, str], None]) -> None:
    failing = "run_tests_at_load: true\ntests:\n  - {request: GET /pro/x, who: {tier: free}, expect: forward}\n"
    edit("routes:\n", failing + "routes:\n")
    edit("/public/**", "/never/**")
    done = run_verb("reload", cwd=gateway.directory)
    assert done.returncode == 1
    assert "GET /pro/x" in done.stderr
    assert gateway.status("/public/x") == 200
    edit("expect: forward", "expect: 402 tier_required")
    edit("/never/**", "/passed/**")
    assert run_verb("reload", cwd=gateway.directory).returncode == 0
    assert gateway.status("/passed/x") == 200


def test_a_gateway_that_is_killed_within_a_reload_starts_on_the_file_as_it_is(
    gateway: Gateway, edit: Callable[[str, str], None]
) -> None:
    gateway.grant("kept")
    edit("  - {path: /public/**", "  - {path: /new/**, access: public}\n  - {path: /public/**")
    gateway.running.send(signal.SIGHUP)
    gateway.running.kill()
    gateway.start()
    assert gateway.status("/new/x") == 200
    assert gateway.status("/pro/x", "kept") == 200
    assert generation(gateway) == 1


def test_no_request_fails_while_the_file_is_reloaded_again_and_again(
    gateway: Gateway, edit: Callable[[str, str], None]
) -> None:
    gateway.grant("busy")
    over = threading.Event()

    def ask() -> set[tuple[int, str]]:
        seen = set()
        while not over.is_set():
            answer = gateway.ask("/pro/x", "busy")
            seen.add((answer.status_code, answer.headers.get("x-gateway-reason", "")))
        return seen

    with ThreadPoolExecutor(4) as threads:
        askers = [threads.submit(ask) for _ in range(2)]
        try:
            for turn in range(6):
                edit(*(("idle: 30s", "idle: 31s") if turn % 2 == 0 else ("idle: 31s", "idle: 30s")))
                twice = [threads.submit(gateway.operator_post, "/api/reload", {}) for _ in range(2)]
                assert [one.result(20).status_code for one in twice] == [200, 200]
        finally:
            over.set()
        assert [asker.result(20) for asker in askers] == [{(200, "")}] * 2


def test_a_watched_file_is_reloaded_when_it_is_renamed_into_place_and_told_of_once_when_it_is_broken(
    gateway: Gateway,
) -> None:
    gateway.running.stop()
    file, edited = gateway.directory / "gateway.yaml", gateway.directory / "gateway.yaml.new"
    original = file.read_text()
    gateway.process = Process("run", "--watch", cwd=gateway.directory)
    gateway.process.until_answers(f"http://127.0.0.1:{gateway.operator}/readyz")
    try:
        file.unlink()
        edited.write_text(original.replace("/public/**", "/renamed/**"))
        edited.rename(file)
        gateway.until("/renamed/x", None, 200)
        file.write_text("version: 1\n")
        eventually(lambda: gateway.readiness()["configuration"].get("refused"))
        file.write_text(original)
        gateway.until("/public/x", None, 200)
        assert gateway.running.said.count("nothing has changed") == 1
    finally:
        file.write_text(original)
