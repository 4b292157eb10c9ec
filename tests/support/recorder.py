"""An API to put behind a gateway process: it keeps every byte of every request, and answers as a test tells it to.

It runs in threads, so that tests of real processes need no event loop. `/…/cookie` and the like have no meaning of their
own: an answer is set per path, everything else is answered with 200.
"""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nrecorded"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)

Script = Callable[[socket.socket, bytes], None]


@dataclass(slots=True)
class Recorder:
    """`answers` by path without query; a path in `holds` is answered when its event is set, and its arrival is told.

    A path in `scripts` gets the connection as soon as the head is there, with what has come of the body; it is closed after.
    """

    address: tuple[str, int]
    answers: dict[str, bytes] = field(default_factory=dict)
    holds: dict[str, threading.Event] = field(default_factory=dict)
    departures: dict[str, threading.Event] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _requests: list[bytes] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def taken(self) -> list[bytes]:
        """Every request since this was last asked."""
        with self._lock:
            taken, self._requests = self._requests, []
        return taken

    def serve(self, connection: socket.socket) -> None:
        """One connection, one request after the other."""
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                data = connection.recv(65536)
                if not data:
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("latin-1")
            path = target.partition("?")[0]
            if path in self.scripts:
                with self._lock:
                    self._requests.append(head + b"\r\n\r\n")
                self.scripts[path](connection, received)
                return
            body, received = self._body(connection, head + b"\r\n", received)
            with self._lock:
                self._requests.append(head + b"\r\n\r\n" + body)
            self.arrived.release()
            if path in self.departures:
                # Nothing more is due from the gateway: whatever ends this wait is the connection's end.
                if not connection.recv(1):
                    self.departures[path].set()
                return
            if path in self.holds:
                self.holds[path].wait(30)
            connection.sendall(self.answers.get(path, ANSWER))

    @staticmethod
    def _body(connection: socket.socket, head: bytes, received: bytes) -> tuple[bytes, bytes]:
        length = _LENGTH.search(head)
        wanted = int(length[1]) if length else 0
        chunked = _CHUNKED.search(head) is not None
        while (chunked and b"0\r\n\r\n" not in received) or len(received) < wanted:
            data = connection.recv(65536)
            if not data:
                return received, b""
            received += data
        if chunked:
            body, mark, rest = received.partition(b"0\r\n\r\n")
            return body + mark, rest
        return received[:wanted], received[wanted:]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


@contextmanager
def running_recorder() -> Iterator[Recorder]:
    """It listens while the block lasts."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                recorder.serve(self.request)
            except OSError:
                return  # the gateway left; what it had sent is kept

    with _Server(("127.0.0.1", 0), Handler) as server:
        recorder = Recorder(("127.0.0.1", int(server.server_address[1])))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join(5)
