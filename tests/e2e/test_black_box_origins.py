"""Two servers that nobody here wrote, h11 and nginx, get the same requests of whatever callers send: none reads one otherwise."""

from __future__ import annotations

import asyncio
import shutil
import socket
import socketserver
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h11
import pytest

from tests.differential.run import running_nginx
from tests.support.framings import every_request
from tests.support.rawbytes import parts_of, statuses_of, unchunked
from tests.support.recorder import running_recorder
from tests.support.stack import prepared_gateway

ROUTES = """\
  - {path: /public/**, host: h11.example, access: public, upstream: api}
  - {path: /public/**, host: nginx.example, access: public, upstream: nginx}
default: deny
"""
AT_ONCE = 8
Requests = list[tuple[bytes, bytes, bytes]]
"""Method, target and body of each."""


class H11Origin(socketserver.ThreadingTCPServer):
    """Answers what h11 takes for a request, and keeps it."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.got: Requests = []

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], _: object) -> None:
        assert isinstance(request, socket.socket)
        http = h11.Connection(h11.SERVER)
        while True:
            head: h11.Request | None = None
            body = b""
            while True:
                try:
                    event = http.next_event()
                    if event is h11.NEED_DATA:
                        http.receive_data(request.recv(65536))
                        continue
                except (h11.RemoteProtocolError, OSError):  # half a request is none
                    return
                if isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            assert head is not None
            self.got.append((head.method, head.target, body))
            answer = http.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            request.sendall((answer or b"") + (http.send(h11.EndOfMessage()) or b""))
            if http.our_state is h11.MUST_CLOSE:
                return
            http.start_next_cycle()


@contextmanager
def h11_origin() -> Iterator[tuple[str, Requests]]:
    with H11Origin() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", server.got
        server.shutdown()
        thread.join(5)


async def test_h11_and_nginx_behind_the_gateway_get_the_same_requests(tmp_path: Path) -> None:
    if shutil.which("nginx") is None and shutil.which("nginx", path="/usr/sbin") is None:
        pytest.skip("there is no nginx: on Debian, `apt install nginx-light`")
    with (
        h11_origin() as (h11_url, of_h11),
        running_recorder() as recorder,
        running_nginx(tmp_path / "nginx", recorder.url) as nginx,
        prepared_gateway(tmp_path / "gateway", upstream=h11_url) as gateway,
    ):
        file = gateway.directory / "gateway.yaml"
        before = file.read_text().partition("routes:\n")[0]
        another = f'  nginx: {{targets: ["http://{nginx[0]}:{nginx[1]}"]}}\nauth:\n'
        file.write_text(before.replace("auth:\n", another, 1) + "routes:\n" + ROUTES)
        await asyncio.to_thread(gateway.start)
        turns = asyncio.Semaphore(AT_ONCE)

        async def send(number: int, request: bytes) -> list[list[int]]:
            numbered = request.replace(b"/public/x", b"/public/x?%d" % number)
            numbered = numbered.replace(b"/public/smuggled", b"/public/smuggled?%d" % number)
            async with turns:
                return [
                    await statuses_of(gateway, numbered.replace(b"Host: a\r\n", b"Host: %b.example\r\n" % name))
                    for name in (b"h11", b"nginx")
                ]

        requests = every_request()
        statuses = await asyncio.gather(*(send(number, request) for number, request in enumerate(requests)))
        of_nginx: Requests = []
        for request in recorder.taken():
            line, headers, body = parts_of(request)
            method, target, _ = line.split(b" ", 2)
            of_nginx.append((method, target, unchunked(body) if b"transfer-encoding" in headers else body))
    by_number: defaultdict[bytes, tuple[Requests, Requests]] = defaultdict(lambda: ([], []))
    for side, got in enumerate((of_h11, of_nginx)):
        for one in got:
            by_number[one[1].partition(b"?")[2]][side].append(one)
    for number, (h11_got, nginx_got) in by_number.items():
        assert h11_got == nginx_got, (requests[int(number)], statuses[int(number)])
        assert [one[0] for one in h11_got] == [b"POST"], requests[int(number)]
    assert 20 < len(by_number) < len(requests)
