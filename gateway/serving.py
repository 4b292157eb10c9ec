"""Listening, and stopping without cutting anything short.

It decides when sockets are bound (before anything else starts, so that a busy port is a sentence and not a half-started
gateway) and in which order a stop happens: readiness turns first, then a listener closes, then what is under way
finishes within `drain`. A second signal stops at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import uvicorn
import uvloop

LISTEN_BACKLOG: Final = 2048
LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class CannotStart:
    """What is wrong, where, and what to do."""

    detail: str


@dataclass(frozen=True, slots=True)
class CannotListen:
    """Why an address can't be listened on, and what to do."""

    detail: str


def run_loop(work: Awaitable[CannotStart | None]) -> CannotStart | None:
    """Run to the end on uvloop."""

    async def whole() -> CannotStart | None:
        return await work

    return uvloop.run(whole())


def bind(address: str, setting: str, remedy: str = "") -> socket.socket | CannotListen:
    """A listening socket for `host:port`. `setting` is what the sentence names, `remedy` how else to choose a place."""
    host, separator, port = address.rpartition(":")
    if not (separator and port.isascii() and port.isdigit() and int(port[:6]) <= LAST_PORT):
        return CannotListen(f"'{address}' can't be listened on: {setting} takes HOST:PORT, such as 127.0.0.1:8080.")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio (not uvloop) leaves Nagle's algorithm on for every connection, and an answer in two pieces waits.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
        listener.listen(LISTEN_BACKLOG)
        listener.setblocking(False)
    except (OSError, UnicodeError) as error:
        listener.close()
        what = getattr(error, "strerror", None) or "the address can't be used"
        cure = remedy or f"change {setting} in gateway.yaml"
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            cure = f"stop what uses it, or {cure}"
        return CannotListen(f"can't listen on {address}: {what}. {cure[:1].upper()}{cure[1:]}.")
    return listener


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to `Stop`: several of them share one process."""

    def drain(self, seconds: float) -> None:
        """How long what is under way may take once it stops."""
        self.config.timeout_graceful_shutdown = max(1, round(seconds))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Nothing: `Stop` does it for all listeners of the process."""
        yield


def listener(app: Any, *, drain: float, protocol: Any) -> Listener:
    """A server for `app`. Its own proxy headers, Server and Date are off: those are the upstream's, or ours."""
    return Listener(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            loop="none",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(drain)),
        )
    )


def _is_at_a_terminal() -> bool:
    return os.isatty(0)  # stdin, closed or not; of one that was hung up the kernel says no


class Stop:
    """The process's one decision to stop: SIGTERM or SIGINT, once gracefully, twice at once.

    SIGHUP is `on_hangup`'s; where there is none it is ignored, since it must not end what it is meant to renew. But when
    the terminal that all was started at has gone, nobody is left to press Ctrl-C, and SIGHUP means what it always meant.
    """

    def __init__(self) -> None:
        self._had_terminal = _is_at_a_terminal()
        self.on_hangup: Callable[[], None] | None = None
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        """Stop gracefully; a second call stops at once."""
        if self.requested.is_set():
            self.forced.set()
        self.requested.set()

    def _hang_up(self) -> None:
        if self._had_terminal and not _is_at_a_terminal():
            self.request()
        elif self.on_hangup is not None:
            self.on_hangup()

    @contextlib.contextmanager
    def on_signals(self) -> Generator[None]:
        """While inside, SIGTERM, SIGINT and SIGHUP do what they are for instead of ending the process."""
        loop = asyncio.get_running_loop()
        previous: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
        for number, act in (
            (signal.SIGTERM, self.request),
            (signal.SIGINT, self.request),
            (signal.SIGHUP, self._hang_up),
        ):
            previous[number] = signal.getsignal(number)
            loop.add_signal_handler(number, act)
        try:
            yield
        finally:
            for number, handler in previous.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


@contextlib.asynccontextmanager
async def serving(servers: list[tuple[Listener, socket.socket]], stop: Stop) -> AsyncIterator[None]:
    """Serve while inside. On the way out listeners close and requests under way finish within their drain."""
    tasks = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in servers]
    try:
        while not all(server.started for server, _ in servers):
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)
        yield
    finally:
        for server, _ in servers:
            server.should_exit = True
        watcher = asyncio.create_task(_force_on_second_signal(servers, stop))
        await asyncio.gather(*tasks, return_exceptions=True)
        watcher.cancel()


async def _force_on_second_signal(servers: list[tuple[Listener, socket.socket]], stop: Stop) -> None:
    await stop.forced.wait()
    for server, _ in servers:
        server.force_exit = True
