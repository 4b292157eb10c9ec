"""Runs the Stripe simulator on a free port of 127.0.0.1, with a receiver for its webhooks where a test wants one.

`running_simulator` serves from a thread of its own, so that the blocking SDK can be used; a test then steers it over
HTTP only. `serving_simulator` serves from the test's own event loop, so that the `Simulator` object may be used directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import stripe
import uvicorn

from admin.simulator import DEFAULT_API_KEY, Offer, Simulator

WEBHOOK_SECRET = "whsec_simulator"
OFFERS = (
    Offer("price_pro_monthly", "Pro", 2900, lookup_key="pro_monthly"),
    Offer("price_pro_yearly", "Pro", 29000, interval="year"),
    Offer("price_ent", "Enterprise", 9900),
)
_START_SECONDS = 10.0


@dataclass(slots=True)
class Receiver:
    """An endpoint that keeps what it gets and answers with `status` (or what `answer` says for the nth)."""

    status: int = 200
    answer: Callable[[int], int] | None = None
    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        self.bodies.append(body)
        self.signatures.append(headers.get(b"stripe-signature", b"").decode())
        status = self.answer(len(self.bodies)) if self.answer is not None else self.status
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@dataclass(slots=True)
class Running:
    """A simulator that answers at `base`."""

    simulator: Simulator
    base: str
    receiver: Receiver
    http: httpx.Client

    def stripe(self, **options: Any) -> stripe.StripeClient:
        """The real SDK, pointed here."""
        return stripe.StripeClient(DEFAULT_API_KEY, base_addresses={"api": self.base}, **options)

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """POST to `/_sim/{path}`; the answer must be 2xx."""
        answer = self.http.post(f"{self.base}/_sim/{path}", json=body)
        assert answer.is_success, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def advance(self, **step: Any) -> None:
        """Move the clock and wait for the webhooks of what happened."""
        self.control("clock/advance", wait=True, **step)

    def pay(self, url: str, **form: str) -> httpx.Response:
        """Press a button of a page."""
        return self.http.post(url, data={"card": "works", **form})


def free_socket() -> socket.socket:
    """A listening socket on a port that nobody else has."""
    # Named, or asyncio leaves Nagle's algorithm on, and each answer in two pieces waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _server(app: Any, *, lifespan: Any = "on") -> uvicorn.Server:
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan=lifespan, ws="none", timeout_graceful_shutdown=2
    )
    return uvicorn.Server(config)


@contextmanager
def _threaded(server: uvicorn.Server, listener: socket.socket, *also: uvicorn.Server) -> Iterator[str]:
    """Serve from a thread; on leaving, the servers in `also` are told to stop as well, to stop at the same time."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not server.started:
            assert thread.is_alive(), "the server stopped"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for one in (server, *also):
            one.should_exit = True
        thread.join(_START_SECONDS)
        listener.close()


@contextmanager
def in_a_thread(app: Any) -> Iterator[str]:
    """Serve `app` from a thread of its own; its address."""
    with _threaded(_server(app, lifespan="off"), free_socket()) as base:
        yield base


@asynccontextmanager
async def serving(app: Any, listener: socket.socket, *, lifespan: Any = "on") -> AsyncIterator[str]:
    """Serve `app` from this event loop."""
    server = _server(app, lifespan=lifespan)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Not `server.serve`, which looks ten times a second whether it is to end: nothing here is to be finished.
        for one in server.servers:
            one.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=_START_SECONDS)
        await server.lifespan.shutdown()
        listener.close()


@contextmanager
def running_simulator(
    offers: Sequence[Offer] = OFFERS,
    *,
    receiver: Receiver | None = None,
    wall_clock: Callable[[], float] = time.time,
    retry_seconds: tuple[float, ...] = (0.05, 0.05),
    on_the_way: Callable[[Any], Any] = lambda app: app,
) -> Iterator[Running]:
    """A simulator in a thread. With a `receiver`, its webhooks go there. `on_the_way` may stand before it."""
    kept = receiver or Receiver()
    listener = free_socket()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with contextlib.ExitStack() as stack:
        webhook, hooks = [], [] if receiver is None else [_server(kept, lifespan="off")]
        for server in hooks:
            hook = stack.enter_context(_threaded(server, free_socket()))
            webhook = [(f"{hook}/webhook", WEBHOOK_SECRET)]
        simulator = Simulator(wall_clock=wall_clock, webhook=webhook, public_base=base, retry_seconds=retry_seconds)
        simulator.seed(offers)
        stack.enter_context(_threaded(_server(on_the_way(simulator.asgi)), listener, *hooks))
        http = stack.enter_context(httpx.Client(timeout=30, verify=False, trust_env=False, follow_redirects=False))
        yield Running(simulator, base, kept, http)


@asynccontextmanager
async def serving_simulator(
    offers: Sequence[Offer] = OFFERS,
    *,
    webhook: Sequence[tuple[str, str]] = (),
    wall_clock: Callable[[], float] = time.time,
    retry_seconds: tuple[float, ...] = (0.05, 0.05),
    on_the_way: Callable[[Any], Any] = lambda app: app,
) -> AsyncIterator[tuple[Simulator, str]]:
    """A simulator in this event loop, and its base URL. `on_the_way` may stand between it and whoever calls."""
    listener = free_socket()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    simulator = Simulator(wall_clock=wall_clock, webhook=webhook, public_base=base, retry_seconds=retry_seconds)
    simulator.seed(offers)
    async with serving(on_the_way(simulator.asgi), listener):
        yield simulator, base
