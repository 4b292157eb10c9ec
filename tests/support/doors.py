"""A TCP door to a server of a test: it can be shut, as when the server is gone, and opened again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import make_url


class Door:
    """Listens on `port` of 127.0.0.1 while it is open, and joins each connection to one that `connect` makes."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener: socket.socket | None = None
        self._joined: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = 0
        self.open()

    def open(self) -> None:
        """At the same port each time."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Every connection ends, and new ones are refused. Twice is fine."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        with self._lock:
            joined, self._joined = self._joined, []
        for one in joined:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = self._connect()
            except OSError:
                near.close()
                continue
            with self._lock:
                self._joined += [near, far]
            ends = threading.Semaphore(0)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink, ends), daemon=True).start()
            threading.Thread(target=_close_after, args=(ends, near, far), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, ends: threading.Semaphore) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass  # the other direction ends as well
    finally:
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        ends.release()


def _close_after(ends: threading.Semaphore, *sockets: socket.socket) -> None:
    for _ in sockets:
        ends.acquire()
    for one in sockets:
        one.close()


@contextmanager
def door_to_postgres(url: str) -> Iterator[tuple[Door, str]]:
    """A door to this PostgreSQL, and the URL that leads through it."""
    parsed = make_url(url)
    named = parsed.query.get("host") or parsed.host or "127.0.0.1"
    host, port = str(named), parsed.port or 5432

    def connect() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port), timeout=5)
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    door = Door(connect)
    try:
        through = parsed.set(host="127.0.0.1", port=door.port, query={"sslmode": "disable"})
        yield door, through.render_as_string(hide_password=False)
    finally:
        door.shut()
