"""SIGTERM lets what is under way finish, a second one doesn't wait; what was started is ended, its children too."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.support.recorder import running_recorder
from tests.support.stack import Process, bearer, eventually, free_port, running_gateway, running_simulator, write_config

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    import httpx


def test_sigterm_lets_a_request_finish_and_ends_with_status_0(tmp_path: Path) -> None:
    with running_recorder() as recorder, running_gateway(tmp_path, upstream=recorder.url) as gateway:
        release = recorder.holds["/public/slow"] = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(gateway.ask, "/public/slow")
            assert recorder.arrived.acquire(timeout=10)
            gateway.running.send(signal.SIGTERM)
            # The listener is closed while the request is still under way.
            eventually(lambda: _refused(gateway.http, gateway.base))
            assert gateway.running.is_running
            assert gateway.readiness()["status"] == "stopping"
            assert "gateway_requests_total" in gateway.operator_get("/metrics").text
            release.set()
            assert answer.result(10).text == "recorded"
        assert gateway.running.wait() == 0
        assert "Traceback" not in gateway.running.said
        assert '"/public/slow"' in gateway.running.logged  # the last line of the access log was written


def test_a_closed_terminal_ends_what_was_started_at_it_and_a_hangup_before_does_not(tmp_path: Path) -> None:
    write_config(tmp_path)
    place = f"127.0.0.1:{free_port()}"
    terminal, stdin = pty.openpty()
    process = Process("simulator", "--listen", place, cwd=tmp_path, stdin=stdin)
    os.close(stdin)
    try:
        process.until_answers(f"http://{place}/_sim/clock")
        process.send(signal.SIGHUP)
        process.until_answers(f"http://{place}/_sim/clock")
        os.close(terminal)
        process.send(signal.SIGHUP)
        assert process.wait() == 0
    finally:
        if process.is_running:
            process.kill()


def test_a_second_sigterm_does_not_wait_for_what_is_under_way(tmp_path: Path) -> None:
    with running_recorder() as recorder, running_gateway(tmp_path, upstream=recorder.url) as gateway:
        release = recorder.holds["/public/slow"] = threading.Event()
        try:
            with ThreadPoolExecutor(1) as thread:
                answer = thread.submit(gateway.ask, "/public/slow")
                assert recorder.arrived.acquire(timeout=10)
                gateway.running.send(signal.SIGTERM)
                eventually(lambda: _refused(gateway.http, gateway.base))
                gateway.running.send(signal.SIGTERM)
                gateway.running.wait(9)  # the drain of 10 s would be longer
                # Not waited for is not answered: torn, or said to have failed; never as if it were whole.
                assert answer.exception(10) is not None or answer.result().status_code == 500
        finally:
            release.set()
        assert "Traceback" not in gateway.running.said


def test_ctrl_c_ends_a_simulator_with_status_0(tmp_path: Path) -> None:
    write_config(tmp_path)
    with running_simulator(tmp_path) as stripe:
        stripe.process.send(signal.SIGINT)
        assert stripe.process.wait() == 0
        assert "Traceback" not in stripe.process.said


def test_a_gateway_starts_again_on_what_a_kill_or_ctrl_c_left_behind(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        gateway.grant_only("again")
        link = gateway.ask("/pro/x", "other").json()["pay_url"]
        gateway.running.kill()
        gateway.start()
        assert gateway.status("/pro/x", "again") == 502  # admitted, and nothing is behind it
        assert gateway.http.get(link).status_code == 200  # the signing key was kept
        gateway.running.send(signal.SIGINT)
        assert gateway.running.wait() == 0
        assert "Traceback" not in gateway.running.said


def _refused(client: httpx.Client, base: str) -> bool:
    import httpx

    try:
        client.get(f"{base}/public/x", headers={"Connection": "close"})
    except httpx.ConnectError:
        return True
    except httpx.ReadError:  # the kernel had accepted it for a listener that then closed: it was never the gateway's
        return False
    return False


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
RESTART = 'event: restart\ndata: {"detail": "The gateway stops. Open the stream again, here or elsewhere."}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_sigterm_ends_events_that_are_opened_again_between_two_of_them_and_cuts_no_others(tmp_path: Path) -> None:
    with running_recorder() as recorder, running_gateway(tmp_path, upstream=recorder.url) as gateway:
        gateway.grant("anna")
        go_on = {name: threading.Event() for name in ("half", "completion", "post", "late")}
        begun = {name: threading.Event() for name in ("idle", "known", *go_on)}

        def script(name: str, first: bytes, then: bytes) -> Callable[[socket.socket, bytes], None]:
            def play(connection: socket.socket, _: bytes) -> None:
                if name == "late":  # its head comes only once the gateway stops
                    begun[name].set()
                else:
                    connection.sendall(HEAD + chunk(first))
                if name in go_on:
                    assert go_on[name].wait(30)
                    if name == "late":
                        connection.sendall(HEAD + chunk(first))
                    connection.sendall(then)
                connection.recv(1)  # as a server of events does, until the gateway leaves

            return play

        whole = chunk(b"data: 2\n\n") + b"0\r\n\r\n"
        for path, name, first, then in (
            ("/public/idle", "idle", b"data: 1\n\n", b""),
            ("/pro/known", "known", b"data: 1\n\n", b""),
            ("/public/half", "half", b"data: 1\n", chunk(b"\ndata: 2\n") + chunk(b"\n")),
            ("/pro/completion", "completion", b"data: 1\n\n", whole),
            ("/public/post", "post", b"data: 1\n\n", whole),
            ("/public/late", "late", b"data: 1\n\n", b""),
        ):
            recorder.scripts[path] = script(name, first, then)

        def listen(method: str, path: str, name: str, accept: str) -> str:
            headers = {"Accept": accept, "X-Request-Id": name} | bearer("anna")
            with gateway.http.stream(method, gateway.base + path, headers=headers) as answer:
                said = ""
                for piece in answer.iter_text():
                    said += piece
                    begun[name].set()
                return said

        events = "text/event-stream"
        with ThreadPoolExecutor(6) as threads:
            idle, known, half, completion, post, late = (
                threads.submit(listen, *request)
                for request in (
                    ("GET", "/public/idle", "idle", events),
                    ("GET", "/pro/known", "known", events),
                    ("GET", "/public/half", "half", events),
                    ("GET", "/pro/completion", "completion", "application/json"),
                    ("POST", "/public/post", "post", events),
                    ("GET", "/public/late", "late", events),
                )
            )
            assert all(event.wait(10) for event in begun.values())
            gateway.running.send(signal.SIGTERM)
            assert idle.result(8) == known.result(8) == "data: 1\n\n" + RESTART
            assert not any(one.done() for one in (half, completion, post, late))
            for event in go_on.values():
                event.set()
            assert half.result(8) == "data: 1\n\ndata: 2\n\n" + RESTART
            assert late.result(8) == "data: 1\n\n" + RESTART
            assert completion.result(8) == post.result(8) == "data: 1\n\ndata: 2\n\n"
        assert gateway.running.wait(9) == 0
        assert "Traceback" not in gateway.running.said
        lines = {line["request_id"]: line for line in map(json.loads, gateway.running.logged.splitlines())}
        assert {name: lines[name]["status"] for name in begun} == dict.fromkeys(begun, 200)
        told = {name for name in begun if lines[name].get("note") == "the gateway stops: ended with an event"}
        assert told == {"idle", "known", "half", "late"}


def test_sigterm_tells_a_websocket_and_does_not_wait_for_it(tmp_path: Path) -> None:
    codes: list[int | None] = []

    def listen(peer: ServerConnection) -> None:
        with pytest.raises(ConnectionClosed):
            peer.recv()
        codes.append(peer.close_code)

    with serve(listen, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        with running_gateway(tmp_path, upstream=url) as gateway:
            address = gateway.base.replace("http", "ws") + "/public/ws"
            with connect(address, proxy=None) as client:
                gateway.running.send(signal.SIGTERM)
                with pytest.raises(ConnectionClosed):
                    client.recv(timeout=8)
                assert client.protocol.close_code == 1012
            assert gateway.running.wait(9) == 0
            eventually(lambda: codes == [1012])
            assert '"status":101' in gateway.running.logged
            assert "Traceback" not in gateway.running.said
        server.shutdown()
