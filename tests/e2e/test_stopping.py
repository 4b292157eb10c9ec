"""SIGTERM lets what is under way finish, a second one doesn't wait; what was started is ended, its children too."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.support.recorder import running_recorder
from tests.support.stack import eventually, running_gateway, running_simulator, write_config

if TYPE_CHECKING:
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
            release.set()
            assert answer.result(10).text == "recorded"
        assert gateway.running.wait() == 0
        assert "Traceback" not in gateway.running.said
        assert '"/public/slow"' in gateway.running.logged  # the last line of the access log was written


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
