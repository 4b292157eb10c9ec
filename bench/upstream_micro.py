"""What one exchange with an upstream costs in CPU: `Upstreams.forward` alone, without listener, token or decision.

    python bench/upstream_micro.py [EXCHANGES]

The upstream is a process of its own on 127.0.0.1 that says one fixed answer as fast as it can. What is told is CPU time
of this process per exchange, its own and the kernel's; the wall clock and the upstream's own cost don't count. `--profile` says
where it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import subprocess
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gateway.upstream.forward import Upstreams
from gateway.upstream.headers import outbound_request_headers
from gateway.upstream.outcome import DEPARTURE_KEY, TARGET_KEY, Forwarded
from policies.schema import Upstream

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nServer: bench\r\n"
    b"Content-Length: 1024\r\n\r\n" + b"x" * 1024
)
INBOUND = [
    (b"host", b"api.example.com"),
    (b"user-agent", b"bench/1"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip"),
    (b"authorization", b"Bearer " + b"t" * 600),
]
IDENTITY = [
    (b"x-gateway-customer", b"cust_42"),
    (b"x-gateway-tier", b"pro"),
    (b"x-gateway-features", b"export"),
    (b"x-gateway-status", b"active"),
]
BODY = b"b" * 1024


class Answering(asyncio.Protocol):
    """Says the answer once per head, and reads a body of the one length that is ever sent."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found or (head.startswith(b"POST") and len(rest) < len(BODY)):
            return
        self.received = b""
        self.transport.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def measure(url: str, *, exchanges: int, concurrency: int, method: str) -> tuple[float, float]:
    """Microseconds of CPU per exchange: in this program, and in the kernel on its behalf."""
    upstreams = Upstreams({"api": Upstream(targets=(url,))})
    rules = upstreams.rules("api")
    inbound = INBOUND if method == "GET" else [*INBOUND, (b"content-length", b"%d" % len(BODY))]

    async def one() -> None:
        waiting = [{"type": "http.request", "body": BODY if method == "POST" else b"", "more_body": False}]

        async def receive() -> dict[str, object]:
            return waiting.pop()

        async def send(_message: object) -> None:
            return None

        scope = {
            "type": "http",
            "method": method,
            "raw_path": b"/v1/reports/7",
            TARGET_KEY: b"/v1/reports/7",
            DEPARTURE_KEY: lambda _callback: None,
        }
        headers = outbound_request_headers(
            inbound, rules=rules, peer="127.0.0.1", trusted=False, scheme="https", request_id="r1", identity=IDENTITY
        )
        outcome = await upstreams.forward("api", scope=scope, headers=headers, receive=receive, send=send)
        assert isinstance(outcome, Forwarded), outcome

    async def worker(count: int) -> None:
        for _ in range(count):
            await one()

    await asyncio.gather(*(worker(20) for _ in range(concurrency)))
    began = os.times()
    await asyncio.gather(*(worker(exchanges // concurrency) for _ in range(concurrency)))
    ended = os.times()
    await upstreams.aclose()
    each = 1e6 / (exchanges // concurrency * concurrency)
    return (ended.user - began.user) * each, (ended.system - began.system) * each


async def table(url: str, exchanges: int) -> None:
    print(f"{'exchange':16}{'concurrency':>12}{'user µs':>10}{'system µs':>11}{'sum µs':>9}")
    for method in ("GET", "POST"):
        for concurrency in (1, 32):
            user, system = await measure(url, exchanges=exchanges, concurrency=concurrency, method=method)
            print(
                f"{method + ' 1 KiB':16}{concurrency:>12}{user:>10.1f}{system:>11.1f}{user + system:>9.1f}", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exchanges", type=int, nargs="?", default=10_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        uvloop.run(serve())
        return
    upstream = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert upstream.stdout is not None
        url = f"http://127.0.0.1:{int(upstream.stdout.readline())}"
        if asked.profile:
            profile = cProfile.Profile()
            profile.runcall(uvloop.run, measure(url, exchanges=asked.exchanges, concurrency=32, method="GET"))
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        else:
            uvloop.run(table(url, asked.exchanges))
    finally:
        upstream.kill()
        upstream.wait()


if __name__ == "__main__":
    main()
