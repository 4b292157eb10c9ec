"""What the walk of one request costs in this process, part by part and whole: no sockets, no kernel, no other process.

    python -m bench.walk [--rounds N] [--profile]

A whole gateway is made as `gateway run` makes it. Its caller's and its upstream's connection are stood in for by
transports that take what is written and give a fixed answer, so that what is measured is Python alone. Each number is
the least of its rounds, in µs of CPU time: whatever else the machine does can only add to it. The parts are measured
one by one with the arguments that they get on the way, and add up to less than the whole: between them lie calls.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import math
import pstats
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway.bootstrap import CannotStart, Process, running
from gateway.listener import gateway_protocol
from gateway.listener_cycle import GatewayCycle
from gateway.loading import load_file
from gateway.telemetry import AccessLog, RequestEnd
from gateway.upstream import pool as pools
from gateway.upstream.answer import AnswerReader
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.headers import inbound_response_headers
from gateway.walk import new_request_id
from policies.paths import BadTarget
from policies.routes import Matched

TARGET: Final = "/v1/r007/items/42?page=3"
SECRET: Final = "a-secret-of-the-walk-that-is-long-enough"
REQUESTS: Final = 200
BODY: Final = b'{"data": "' + b"x" * 100 + b'"}'
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Fri, 27 Nov 2026 12:00:00 GMT\r\nServer: bench\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
WHOLE: Final = "the whole walk, short way"
KINDS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    WHOLE: lambda request, _: request,
    "the same, a field that differs each time": lambda request, number: _with(request, b"X-Trace: %d" % number),
    "the same, a body of 1 KiB": lambda request, _: _with_body(request),
    "the same, both": lambda request, number: _with(_with_body(request), b"Idempotency-Key: %d" % number),
}
CONFIGURATION: Final = """
version: 1
server: {{listen: '127.0.0.1:0', operator: '127.0.0.1:0', operator_token: the-operator-token-of-the-walk}}
database: sqlite:///{folder}/ledger.db
upstreams:
  api: {{targets: ['http://127.0.0.1:9']}}
auth:
  issuers:
    - {{issuer: 'https://issuer.example', audience: api, algorithms: [HS256], secret: {secret}}}
tiers: [{{name: free}}, {{name: pro, prices: [price_pro], features: [export]}}]
routes:
"""


def _with(request: bytes, field: bytes) -> bytes:
    head, end, body = request.partition(b"\r\n\r\n")
    return b"%b\r\n%b%b%b" % (head, field, end, body)


def _with_body(request: bytes) -> bytes:
    return _with(request.replace(b"GET", b"POST", 1), b"Content-Length: 1024") + b"x" * 1024


class Transport(asyncio.Transport):
    """Takes what is written; `on_write` sees it."""

    def __init__(self, on_write: Callable[[bytes], None]) -> None:
        super().__init__()
        self.on_write = on_write
        self.socket, self._other = socket.socketpair()

    def write(self, data: Any) -> None:
        self.on_write(data)

    def writelines(self, parts: Any) -> None:
        self.on_write(b"".join(parts))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Walked:
    """A caller's connection on one side, an upstream's on the other, and one request after another."""

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        self.answers = 0
        self.said = asyncio.Event()
        self.request = request
        config = uvicorn.Config(process.gateway, http="httptools", lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        protocol = gateway_protocol(render_refusal=process.refuse_raw, at_once=process.gateway.at_once)
        self.config = config
        self.caller = protocol(config, ServerState(), {}, loop)
        self.caller.connection_made(Transport(self._answered))
        self.connection = UpstreamConnection(loop)
        self.connection.connection_made(Transport(self._asked))

        async def connected(*_: object) -> UpstreamConnection:
            return self.connection

        pools.connect = connected  # the one seam: what dials is not measured

    def _asked(self, _data: bytes) -> None:
        self.said.set()

    def _answered(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200"), data
        self.answers += 1
        self.said.set()

    def walk(self, requests: Sequence[bytes]) -> float:
        """Requests that go the short way: the answer is there when the upstream's is. CPU seconds of all of them."""
        started = time.process_time()
        for number, request in enumerate(requests, 1):
            self.caller.data_received(request)
            self.connection.data_received(ANSWER)
            assert self.answers == number, "it went the long way"
        self.answers = 0
        return time.process_time() - started

    async def warm(self, times: int) -> None:
        """The first requests, which may go the long way."""
        for _ in range(times):
            self.said.clear()
            self.caller.data_received(self.request)
            await self.said.wait()
            self.said.clear()
            self.connection.data_received(ANSWER)
            await self.said.wait()
            await asyncio.sleep(0.01)  # until the connection rests
        self.answers = 0


async def measure(rounds: int, *, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = CONFIGURATION.format(folder=folder, secret=SECRET)
        text += "".join(f"  - {{path: /v1/r{number:03}/**, tier: pro}}\n" for number in range(100))
        path = Path(folder) / "gateway.yaml"
        path.write_text(text)
        loaded = load_file(path, {})
        if not hasattr(loaded, "ready") or loaded.ready is None:
            raise SystemExit(str(loaded))
        with (Path(folder) / "log").open("w") as told:
            async with running(*loaded.ready, time.time, None, AccessLog(told, wall=time.time)) as process:
                if isinstance(process, CannotStart):
                    raise SystemExit(process.detail)
                await grant(process)
                await tell(process, rounds, profile=profile)


async def grant(process: Process) -> None:
    transport = httpx.ASGITransport(process.operator)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.post(
            "/api/grant/customer-0",
            json={"tier": "pro", "reason": "measured"},
            headers={"Authorization": "Bearer the-operator-token-of-the-walk"},
        )
        answer.raise_for_status()


async def tell(process: Process, rounds: int, *, profile: bool) -> None:
    claims = {"iss": "https://issuer.example", "aud": "api", "sub": "customer-0", "exp": int(time.time()) + 86400}
    token = jwt.encode({**claims, "pad": "x" * 400}, SECRET, "HS256")
    request = (
        f"GET {TARGET} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench/1\r\n"
        f"Accept: application/json\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    walked = Walked(process, asyncio.get_running_loop(), request)
    await walked.warm(10)
    numbers = count()

    def whole(kind: Callable[[bytes, int], bytes]) -> Callable[[int], float]:
        return lambda times: walked.walk([kind(request, next(numbers)) for _ in range(times)])

    wholes = [(name, whole(kind)) for name, kind in KINDS.items()]
    least: dict[str, float] = {}
    parts = list(parts_of(process, walked))
    for _ in range(rounds):
        for name, part in [*wholes, *parts]:
            least[name] = min(least.get(name, math.inf), part(REQUESTS) / REQUESTS * 1e6)
            await asyncio.sleep(
                0.01
            )  # the gateway has other things to do, and believes nothing that it couldn't follow
    between = least[WHOLE] - sum(least[name] for name, _ in parts if not name.startswith("instead"))
    print("| part | CPU µs |\n|---|---|")
    for name, cost in [*least.items(), ("between the parts", between)]:
        print(f"| {name} | {cost:.1f} |")
    if profile:
        for name, walk in wholes:
            print(f"\n{name}")
            profiler = cProfile.Profile()
            profiler.enable()
            walk(REQUESTS)
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def parts_of(process: Process, walked: Walked) -> Iterator[tuple[str, Callable[[int], float]]]:
    """Each part by itself, with the arguments that it gets on the way."""
    gateway, caller = process.gateway, walked.caller
    plan = gateway.plan
    known_fields = caller._known
    assert known_fields is not None
    fields = known_fields._fields
    assert fields.sought is not None
    assert fields.sent is not None
    sought, sent = fields.sought, fields.sent
    target = plan.routes.read(TARGET.encode())
    assert not isinstance(target, BadTarget)
    matched = plan.routes.match("GET", "127.0.0.1:8080", target)
    assert isinstance(matched, Matched)
    route = matched.route
    known = plan.authenticator.recall(sought)
    assert known is not None
    listener = type("Alone", (type(caller),), {"at_once": staticmethod(lambda _cycle: True)})
    alone = listener(walked.config, ServerState(), {}, asyncio.get_running_loop())
    alone.connection_made(Transport(lambda _data: None))

    differing = cycle([_with(walked.request, b"X-Trace: %d" % number) for number in range(REQUESTS)])

    def take(*, varied: bool = False, anew: bool = False) -> None:
        alone.data_received(next(differing) if varied else walked.request)
        alone._active = None
        if anew:
            alone._known = None

    def exchange() -> None:
        begun = plan.upstreams.begin("api", head, None)
        assert begun is not None
        walked.connection.data_received(ANSWER)
        begun.over()

    head = sent.head("GET", target.raw, "0123456789abcdef", 0)
    answered = GatewayCycle(caller, "GET", target.raw, "1.1", fields, keep_alive=True, expects_continue=False)
    answered.more_body = False
    reader = AnswerReader(to_head=False)
    reader.feed(ANSWER)
    assert reader.head is not None
    headers = reader.head.headers
    end = RequestEnd(
        "0123456789abcdef", "GET", TARGET.partition("?")[0], route.label, 200, "forwarded", "customer-0", "pro", "api",
        0.00123, 0.00123, len(BODY),
    )  # fmt: skip
    timed = [
        ("listener: line, and fields known again", take),
        ("instead, one that differs each time", lambda: take(varied=True)),
        ("instead, all read by the parser", lambda: take(anew=True)),
        ("the target has one reading", lambda: plan.routes.read(TARGET.encode())),
        ("its route, among a hundred", lambda: plan.routes.match("GET", "127.0.0.1:8080", target)),
        ("the token is known and good", lambda: plan.authenticator.recall(sought)),
        ("what the customer has, and the decision", lambda: gateway.admits_at_once(plan, route, known.caller)),
        ("the upstream's head, and a request id", lambda: sent.head("GET", target.raw, new_request_id(), 0)),
        ("place and connection, sending, reading the answer, giving back", exchange),
        ("the caller's head", lambda: answered.whole_head(200, inbound_response_headers(headers))),
        ("counts and the line of log", lambda: gateway._telemetry.tell(end)),
    ]
    for name, part in timed:
        yield name, partial(_timed, part)


def _timed(part: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        part()
    return time.process_time() - started


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m bench.walk", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=100)
    arguments.add_argument("--profile", action="store_true")
    asked = arguments.parse_args()
    uvloop.run(measure(asked.rounds, profile=asked.profile))


if __name__ == "__main__":
    main()
