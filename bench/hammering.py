"""What a payer notices of ten thousand lapsed customers who hammer, and how often Stripe is asked meanwhile.

    python -m bench.hammering                             10,000 customers, each stretch 30 s
    python -m bench.hammering --customers 1000 --seconds 10   a smaller round

Everything is on 127.0.0.1: a gateway process on SQLite, the simulated Stripe and the crowd in processes of their own. The
month of each in the crowd ended three days ago, unheard, so that each of its refusals deserves a look at Stripe. One
payer asks about every 20 ms, and halfway somebody new buys at checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import socket
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from admin.simulator import Offer, Simulator
from admin.stripe.shared_budget import CALLS_AT_ONCE, CALLS_PER_SECOND, LOOKS_AT_ONCE, LOOKS_PER_SECOND
from tests.support import lapsed
from tests.support.rawclient import RawClient
from tests.support.recorder import running_recorder
from tests.support.stack import Gateway, eventually, prepared_gateway

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PAYER_PAUSE_SECONDS: Final = 0.02
CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was seen in one of them. `bought` is what a newcomer's four steps were answered with."""

    name: str
    asked: int
    crowd: dict[tuple[int, str | None], int]
    payer_ms: list[float]
    payer: dict[int, int]
    bought: list[int]
    bought_ms: float
    calls: list[tuple[float, str]]
    seconds: float
    cpu_seconds: float


def simulate(listener: socket.socket, customers: int) -> None:
    """A Stripe that knows them, until it is ended."""
    simulator = Simulator(wall_clock=time.time, public_base=f"http://127.0.0.1:{listener.getsockname()[1]}")
    simulator.seed([Offer("price_pro_monthly", "Pro", 2900)])
    lapsed.known_to(simulator, customers)
    app = lapsed.Noted().before(simulator.asgi)
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none")).run(sockets=[listener])


def hammer(address: tuple[str, int], customers: int, rate: float, pipe: Connection) -> None:
    """The crowd: so many requests a second, or as many as it can, until it is told to stop."""
    pipe.send(asyncio.run(_hammer(address, customers, rate, pipe)))


async def _hammer(address: tuple[str, int], customers: int, rate: float, pipe: Connection) -> dict[Any, int]:
    requests = [lapsed.request_of(name) for name in lapsed.names(customers)]
    pipe.send("ready")
    began = time.monotonic()
    slots = 0

    async def goes_on(_asked: int) -> bool:
        nonlocal slots
        slots += 1
        if rate:
            await asyncio.sleep(began + slots / rate - time.monotonic())
        return not pipe.poll()

    return dict(await lapsed.crowd(address, requests, connections=CONNECTIONS, goes_on=goes_on))


async def ask_as_payer(address: tuple[str, int], until: float) -> tuple[list[float], Counter[int]]:
    """How long each answer took, and what it was."""
    times: list[float] = []
    answers: Counter[int] = Counter()
    request = lapsed.request_of("payer")
    async with await RawClient.connect(address) as payer:
        while time.monotonic() < until:
            asked_at = time.monotonic()
            answers[(await payer.ask(request)).status] += 1
            times.append((time.monotonic() - asked_at) * 1000)
            await asyncio.sleep(PAYER_PAUSE_SECONDS)
    return times, answers


def buy(gateway: Gateway, customer: str) -> tuple[list[int], float]:
    """Somebody new pays and comes back from Stripe: the four answers, and how long all took."""
    began = time.monotonic()
    opened = gateway.ask("/_gateway/checkout", customer, "POST", json={"tier": "pro"})
    paid = gateway.http.post(opened.json()["url"], data={"card": "works"})
    returned = gateway.http.get(paid.headers["location"])
    statuses = [opened.status_code, paid.status_code, returned.status_code, gateway.status("/pro/x", customer)]
    return statuses, (time.monotonic() - began) * 1000


async def stretch(name: str, gateway: Gateway, customers: int, rate: float | None, seconds: float) -> Stretch:
    """One of them; without a `rate` nobody hammers, and with 0 as fast as they can."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    crowd = None
    if rate is not None:
        crowd = context.Process(target=hammer, args=(gateway.address, customers, rate, theirs), daemon=True)
        crowd.start()
        assert await asyncio.to_thread(ours.recv) == "ready"
    began, busy_before = time.monotonic(), _cpu_seconds(gateway)
    paying = asyncio.create_task(ask_as_payer(gateway.address, began + seconds))
    await asyncio.sleep(seconds / 2)
    bought, bought_ms = await asyncio.to_thread(buy, gateway, f"newcomer-{name}")
    times, answers = await paying
    elapsed, busy = time.monotonic() - began, _cpu_seconds(gateway) - busy_before
    counted: dict[Any, int] = {}
    if crowd is not None:
        ours.send("stop")
        counted = await asyncio.to_thread(ours.recv)
        await asyncio.to_thread(crowd.join)
    listed = gateway.http.get(f"{_stripe_of(gateway)}{lapsed.CALLS}").json()
    calls = [(at - began, path) for at, path in listed if began <= at <= began + elapsed]
    return Stretch(name, sum(counted.values()), counted, times, dict(answers), bought, bought_ms, calls, elapsed, busy)


def _cpu_seconds(gateway: Gateway) -> float:
    """What the gateway's process has used so far."""
    fields = Path(f"/proc/{gateway.running.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stripe_of(gateway: Gateway) -> str:
    text = (gateway.directory / "gateway.yaml").read_text()
    return next(line.split("api_base:")[1].strip() for line in text.splitlines() if "api_base:" in line)


def measure(
    directory: Path, customers: int, seconds: float, *, ended: bool, rates: list[tuple[str, float | None]]
) -> list[Stretch]:
    """One gateway and its crowd, stretch after stretch."""
    with ExitStack() as stack:
        upstream = stack.enter_context(running_recorder())
        listener = socket.create_server(("127.0.0.1", 0))
        stripe = multiprocessing.get_context("spawn").Process(target=simulate, args=(listener, customers), daemon=True)
        stripe.start()
        stack.callback(stripe.join)
        stack.callback(stripe.terminate)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        named = {"upstream": upstream.url, "secret_key": "sk_test_simulator", "stripe": base}
        gateway = stack.enter_context(prepared_gateway(directory, **named))
        account = eventually(lambda: _account(gateway, base))
        gateway.start()
        lapsed.write(directory / "gateway.db", account, customers, ended=ended)
        gateway.grant("payer")
        return [asyncio.run(stretch(name, gateway, customers, rate, seconds)) for name, rate in rates]


def _account(gateway: Gateway, base: str) -> str:
    return str(gateway.http.get(f"{base}/v1/account", auth=("sk_test_simulator", "")).json()["id"])


def row(one: Stretch) -> str:
    """Of the table."""
    p99 = statistics.quantiles(one.payer_ms, n=100, method="inclusive")[98]
    looks = sum(path.startswith("/v1/customers/cus_lapsed") for _, path in one.calls)
    busiest = max(Counter(int(at) for at, _ in one.calls).values(), default=0)
    payer = ", ".join(f"{count:,} answers {status}" for status, count in sorted(one.payer.items()))
    crowd = ", ".join(
        f"{count / one.seconds:,.0f}/s {status} {reason}" for (status, reason), count in sorted(one.crowd.items())
    )
    return (
        f"| {one.name} | {crowd or '-'} | {payer} | {statistics.median(one.payer_ms):.1f}, {p99:.1f}, {max(one.payer_ms):.1f} ms "
        f"| {'/'.join(map(str, one.bought))} in {one.bought_ms / 1000:.1f} s "
        f"| {looks / one.seconds:.1f} | {len(one.calls) / one.seconds:.1f}, {busiest} "
        f"| {one.cpu_seconds / max(1, one.asked + sum(one.payer.values())) * 1000:.2f} ms |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="each stretch")
    parser.add_argument("--rate", type=float, default=500.0, help="requests of the crowd in a second")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        known = measure(
            directory / "known",
            options.customers,
            options.seconds,
            ended=True,
            rates=[
                ("nobody else asks", None),
                ("known to have ended", options.rate),
                ("the same, as fast as they can", 0.0),
            ],
        )
        unheard = measure(
            directory / "unheard",
            options.customers,
            options.seconds,
            ended=False,
            rates=[("unheard of, each worth a look", options.rate), ("the same, as fast as they can", 0.0)],
        )
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.0f} at the start"
    )
    print(
        f"budget: looks {LOOKS_PER_SECOND:.0f}/s and {LOOKS_AT_ONCE:.0f} at once, calls {CALLS_PER_SECOND:.0f}/s and {CALLS_AT_ONCE:.0f} at once"
    )
    print(
        "\n| | the crowd | payer | p50, p99, worst | a newcomer buys | looks/s | calls/s, most in one | CPU a request |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for one in (*known, *unheard):
        print(row(one))


if __name__ == "__main__":
    main()
