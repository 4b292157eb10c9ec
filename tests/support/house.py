"""A whole gateway in the test's own event loop: both listeners, a SQLite ledger, a simulated Stripe and a recording upstream.

It is joined by `gateway.bootstrap.running`, as a process is; only signals, the command line and other processes are
missing. Everything listens on free ports of 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from gateway.bootstrap import Process, running
from gateway.listener import gateway_protocol
from gateway.loading import LoadedFile, load_file
from gateway.serving import CannotStart, listener
from policies.reasons import ANSWERS, Reason
from tests.support.ledgers import fresh_sqlite
from tests.support.rawclient import RawAnswer, RawClient
from tests.support.simulator import WEBHOOK_SECRET, free_socket, serving_simulator
from tests.support.tokens import SECRET, sign
from tests.support.upstreams import ScriptedUpstream, Visit, scripted_upstream

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from admin.control import Ledger
    from admin.simulator import Simulator

ISSUER: Final = "https://issuer.test/"
AUDIENCE: Final = "api"
OPERATOR_TOKEN: Final = "an-operator-token-of-the-tests"
SIGNING_KEY: Final = "a-signing-key-of-the-tests-0123456789"
PLAIN_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

ROUTES: Final = """
  - path: /open/**
    access: public
  - path: /mine
    access: authenticated
  - path: /free
    tier: free
  - path: /pro/**
    tier: pro
  - path: /read
    methods: [GET]
    tier: pro
  - path: /write
    methods: [POST, PUT]
    tier: pro
  - path: /export
    tier: pro
    features: [export]
  - path: /ent
    tier: enterprise
  - path: /gold
    tier: gold
"""
TIERS: Final = """
  - name: free
  - name: pro
    prices: [price_pro_monthly, price_pro_yearly]
    features: [export]
  - name: enterprise
    prices: [price_ent]
    features: [sso]
  - name: gold
"""


@dataclass(slots=True)
class Clock:
    """The entitlement clock: real time, moved. Where there is a simulator, its clock is the one."""

    simulator: Simulator | None = None
    offset: float = 0.0

    def __call__(self) -> float:
        return (self.simulator.now() if self.simulator is not None else time.time()) + self.offset


@dataclass(slots=True)
class House:
    """A gateway that serves, and everything around it."""

    api: str
    operator: str
    upstream: ScriptedUpstream
    simulator: Simulator | None
    stripe: str | None
    process: Process
    clock: Clock
    http: httpx.AsyncClient
    ledger: Path
    printed: io.StringIO
    answers: list[bytes] = field(default_factory=lambda: [PLAIN_ANSWER])

    @property
    def address(self) -> tuple[str, int]:
        """The public listener, for raw sockets."""
        return _address(self.api)

    async def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """One request to the public listener, with a bearer token where one is given."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = await self.http.request(method, self.api + path, headers=headers, **options)
        # The table of reasons is the whole public vocabulary, and each has one status.
        for reason in answer.headers.get_list("x-gateway-reason"):
            assert ANSWERS[Reason(reason)].status == answer.status_code
        return answer

    async def get(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        return await self.ask("GET", path, token, **options)

    async def post(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        return await self.ask("POST", path, token, **options)

    async def operate(
        self, method: str, path: str, *, token: str | None = OPERATOR_TOKEN, **options: Any
    ) -> httpx.Response:
        """One request to the operator's listener, as the operator."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await self.http.request(method, self.operator + path, headers=headers, **options)

    async def raw(self, data: bytes, *, to_head: bool = False) -> RawAnswer:
        """Exactly these bytes to the public listener, on a connection of their own."""
        async with await RawClient.connect(self.address) as client:
            return await client.ask(data, to_head=to_head)

    async def raw_get(self, target: str, *headers: str) -> RawAnswer:
        """A GET whose target is sent byte for byte."""
        lines = [f"GET {target} HTTP/1.1", "Host: api.test", *headers, "Connection: close", "", ""]
        return await self.raw("\r\n".join(lines).encode("latin-1"))

    async def metrics(self) -> str:
        """What Prometheus would read."""
        return (await self.operate("GET", "/metrics")).text

    async def count(self, **labels: str) -> float:
        """The sum of `gateway_requests_total` over the series that hold these labels."""
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        lines = [line for line in (await self.metrics()).splitlines() if line.startswith("gateway_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(one in line for one in wanted))

    async def until(self, status: int, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """Ask again and again until the answer has this status: what a commit changed is in force within a second."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.get(path, token, **options)
                if answer.status_code == status:
                    return answer
                await asyncio.sleep(0.02)

    def log(self) -> list[dict[str, Any]]:
        """Every line of the access log so far."""
        self.process.gateway._telemetry._log.flush()
        return [json.loads(line) for line in self.printed.getvalue().splitlines()]

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The line of one request, which is written at its very end."""
        async with asyncio.timeout(30):
            while True:
                for line in self.log():
                    if line["request_id"] == request_id:
                        return line
                await asyncio.sleep(0.01)

    async def grant(self, customer: str, tier: str, until: str | None = None) -> None:
        """As an operator would."""
        body = {"tier": tier, "reason": "a test", **({} if until is None else {"until": until})}
        answer = await self.operate("POST", f"/api/grant/{customer}", json=body)
        assert answer.status_code == 200, answer.text

    async def steer(self, path: str, **body: Any) -> dict[str, Any]:
        """One of the simulator's controls."""
        answer = await self.http.post(f"{self.stripe}/_sim/{path}", json=body)
        assert answer.is_success, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def buy(self, customer: str, tier: str = "pro") -> None:
        """Checkout, paid in the simulator; returns once the gateway has heard of it."""
        token = token_for(customer)
        opened = await self.post("/_gateway/checkout", token, json={"tier": tier})
        assert opened.status_code == 200, opened.text
        paid = await self.http.post(opened.json()["url"], data={"card": "works"}, follow_redirects=False)
        assert paid.status_code == 303, paid.text
        returned = await self.http.get(paid.headers["location"])
        assert returned.status_code == 200, returned.text

    def lose_the_ledger(self) -> None:
        """From now on no transaction begins, as on a disk that went away."""
        ledger: Ledger = inspect.getclosurevars(self.process.readiness.ledger_answers).nonlocals["ledger"]

        def fail(_connection: object) -> None:
            raise OperationalError("BEGIN", (), sqlite3.OperationalError("disk I/O error"))

        for engine in ledger.database._engines:
            event.listen(engine.sync_engine, "begin", fail)

    def visit_count(self) -> int:
        """How many requests have reached the upstream."""
        return len(self.upstream.visits)

    def last(self) -> Visit:
        """The last request that the upstream saw."""
        return self.upstream.visits[-1]

    def seen(self, name: str) -> list[str]:
        """The values of a header of the last request that the upstream saw."""
        return [value for key, value in self.last().headers if key == name.lower()]


def token_for(customer: str = "alice", *, lifetime: float = 3600, **claims: Any) -> str:
    """A token of the house's own issuer."""
    now = int(time.time())
    return sign({"iss": ISSUER, "aud": AUDIENCE, "sub": customer, "iat": now, "exp": now + int(lifetime), **claims})


def configuration(
    *,
    public_url: str,
    ledger: str,
    upstream: str,
    stripe: str | None,
    server: str = "",
    upstream_settings: str = "",
    issuer: str = "",
    auth: str = "",
    billing: str = "",
    tiers: str = TIERS,
    routes: str = ROUTES,
    default: str = "deny",
) -> str:
    """A gateway.yaml; the free texts are lines to add to their section, indented as it is."""
    account = f"    secret_key: sk_test_simulator\n    webhook_secrets: {WEBHOOK_SECRET}\n    api_base: {stripe}\n"
    return f"""
version: 1
server:
  listen: 127.0.0.1:0
  operator: 127.0.0.1:0
  operator_token: {OPERATOR_TOKEN}
  signing_key: {SIGNING_KEY}
  public_url: {public_url}
{server}
database: {ledger}
upstreams:
  api:
    targets: ["{upstream}"]
{upstream_settings}
auth:
  issuers:
    - issuer: {ISSUER}
      audience: {AUDIENCE}
      algorithms: [HS256]
      secret: {SECRET}
{issuer}
{auth}
tiers:{tiers}
billing:
  stripe:
{account if stripe is not None else '    secret_key: ""'}
{billing}
routes:{routes}
default: {default}
"""


@contextlib.asynccontextmanager
async def house(
    directory: Path,
    *,
    stripe: bool = True,
    webhooks: bool = True,
    script: Callable[[Visit], Any] | None = None,
    upstream_url: str | None = None,
    on_the_way: Callable[[Any], Any] = lambda app: app,
    **sections: str,
) -> AsyncIterator[House]:
    """A whole gateway until the block ends. `sections` are those of `configuration`; `script` replaces the upstream's.

    `on_the_way` may stand between the gateway and the simulated Stripe.
    """
    answers = [PLAIN_ANSWER]

    async def answering(visit: Visit) -> None:
        await visit.request()
        await visit.say(answers[0])

    async with contextlib.AsyncExitStack() as stack:
        public, private = free_socket(), free_socket()
        stack.callback(public.close)
        stack.callback(private.close)
        api, operator = (f"http://127.0.0.1:{one.getsockname()[1]}" for one in (public, private))
        upstream = await stack.enter_async_context(scripted_upstream(script or answering))
        simulator, base = None, None
        if stripe:
            target = [(f"{api}/_gateway/stripe/webhook", WEBHOOK_SECRET)] if webhooks else []
            simulator, base = await stack.enter_async_context(serving_simulator(webhook=target, on_the_way=on_the_way))
        text = configuration(
            public_url=api,
            ledger=fresh_sqlite(directory),
            upstream=upstream_url or upstream.url,
            stripe=base,
            **sections,
        )
        path = directory / "gateway.yaml"
        path.write_text(text, encoding="utf-8")
        loaded = load_file(path, {})
        assert isinstance(loaded, LoadedFile)
        assert loaded.ready is not None, loaded.diagnostics
        clock = Clock(simulator)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):  # the access log keeps the stream that it finds
            process = await stack.enter_async_context(running(*loaded.ready, clock))
        assert not isinstance(process, CannotStart), process
        protocol = gateway_protocol(render_refusal=process.refuse_raw, at_once=process.gateway.at_once)
        await stack.enter_async_context(_listening(process.gateway, protocol, public))
        await stack.enter_async_context(_listening(process.operator, gateway_protocol(), private))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20, verify=False, trust_env=False))
        ledger = directory / "ledger.db"
        yield House(api, operator, upstream, simulator, base, process, clock, http, ledger, printed, answers)


@contextlib.asynccontextmanager
async def _listening(app: Any, protocol: Any, sock: socket.socket) -> AsyncIterator[None]:
    """As `gateway.serve` does it, without uvicorn's main loop, which only sleeps."""
    server = listener(app, drain=5, protocol=protocol)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    sock.setblocking(False)
    await server.startup(sockets=[sock])
    try:
        yield
    finally:
        for one in server.servers:
            one.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            _, still_running = await asyncio.wait(server.server_state.tasks, timeout=10)
            assert not still_running, "a request outlived its connection"


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)
