"""What is measured: everybody in turn in each round, so that a machine that grows slower does so for all."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.compare import bulk, held, load, peers
from bench.compare.load import Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.compare.peers import Place
    from bench.compare.processes import Server

COLD_REQUESTS = 3000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything."""

    rounds: int = 5
    seconds: float = 3
    connections: tuple[int, ...] = (1, 32, 256)
    streams: int = 1000
    idle: int = 10_000


@dataclass(slots=True)
class Results:
    """Medians over the rounds."""

    job: dict[tuple[str, int], Measured] = field(default_factory=dict)
    resident: dict[str, float] = field(default_factory=dict)
    posts: dict[tuple[str, int], Measured] = field(default_factory=dict)
    cold: dict[str, Measured] = field(default_factory=dict)
    differing: dict[tuple[str, int], Measured] = field(default_factory=dict)
    from_redis: float = 1.0
    """The least share of cold entitlements that came from Redis in any round; the others came from SQL."""
    walk: str = ""
    routes: dict[int, Measured] = field(default_factory=dict)
    bulk: dict[tuple[str, str], bulk.Transfer] = field(default_factory=dict)
    held: dict[tuple[str, str], held.Held | None] = field(default_factory=dict)


def middle(runs: list[Any]) -> Any:
    """Of each number on its own."""
    kind = type(runs[0])
    return kind(*(median(getattr(run, name) for run in runs) for name in kind.__slots__))


def full_job(servers: dict[str, Server], token: str, effort: Effort, results: Results) -> None:
    for connections in effort.connections:
        runs: dict[str, list[Measured]] = {name: [] for name in servers}
        for number in range(effort.rounds):
            for name, server in servers.items():
                if number == 0:
                    load.run(server, token, connections=connections, seconds=1)
                runs[name].append(load.run(server, token, connections=connections, seconds=effort.seconds))
        for name, server in servers.items():
            results.job[name, connections] = middle(runs[name])
            results.resident[name] = server.resident_mib()


def posts(servers: dict[str, Server], token: str, effort: Effort, results: Results) -> None:
    for body, connections in ((1024, 32), (1024 * 1024, 8)):
        runs: dict[str, list[Measured]] = {name: [] for name in servers}
        for _ in range(min(3, effort.rounds)):
            for name, server in servers.items():
                one = load.run(server, token, connections=connections, seconds=effort.seconds, body=body)
                runs[name].append(one)
        for name, found in runs.items():
            results.posts[name, body] = middle(found)


def cold(place: Place, redis: str, effort: Effort, results: Results) -> None:
    """First sights, each round on a gateway that has just started; and warm ones on the same, by the same generator."""
    issuer = place.issuer
    same = {
        kind: [issuer.token("customer-0", kind, number) for number in range(COLD_REQUESTS)]
        for kind in ("RS256", "ES256")
    }
    others = [issuer.token(f"customer-{number}") for number in range(COLD_REQUESTS)]
    runs: dict[str, list[Measured]] = {}
    first = peers.gateway(place, name="cold", redis=redis)
    for number in range(1, COLD_REQUESTS):
        peers.grant(first.operator, f"customer-{number}")
    first.stop()
    for _ in range(min(3, effort.rounds)):
        for what, kind, tokens in (
            ("first sight, RS256", "RS256", same["RS256"]),
            ("first sight, ES256", "ES256", same["ES256"]),
            ("first sight, RS256, entitlement in Redis", "RS256", others),
        ):
            server = peers.gateway(place, name="cold", redis=redis, algorithm=kind)
            try:
                warm = issuer.token("customer-0", kind, COLD_REQUESTS)
                load.generate(server, _again(warm, 1000), connections=8)
                runs.setdefault(f"warm {kind}", []).append(load.generate(server, _again(warm), connections=8))
                before = peers.lookups(server.operator, "redis")
                once = load.generate(server, iter([load.request_bytes(token) for token in tokens]), connections=8)
                runs.setdefault(what, []).append(once)
                seen = peers.lookups(server.operator, "redis") - before
                if tokens is others:
                    results.from_redis = min(results.from_redis, seen / COLD_REQUESTS)
                    if seen < COLD_REQUESTS / 2:
                        raise RuntimeError(f"only {seen} of {COLD_REQUESTS} entitlements came from Redis")
            finally:
                server.stop()
    results.cold = {what: middle(found) for what, found in runs.items()}


def _again(token: str, times: int = COLD_REQUESTS) -> Iterator[bytes]:
    request = load.request_bytes(token)
    for _ in range(times):
        yield request


def routes(place: Place, token: str, effort: Effort, results: Results) -> None:
    servers = {count: peers.gateway(place, name=f"routes-{count}", routes=count) for count in (10, 10_000)}
    try:
        runs: dict[int, list[Measured]] = {count: [] for count in servers}
        for number in range(effort.rounds):
            for count, server in servers.items():
                if number == 0:
                    load.run(server, token, connections=32, seconds=1)
                runs[count].append(load.run(server, token, connections=32, seconds=effort.seconds))
        results.routes = {count: middle(found) for count, found in runs.items()}
    finally:
        for server in servers.values():
            server.stop()


def differing(servers: dict[str, Server], token: str, effort: Effort, results: Results) -> None:
    """Requests each of which has a field whose value no other one has, without a body and with one."""
    for body in (0, 1024):
        runs: dict[str, list[Measured]] = {name: [] for name in servers}
        for _ in range(effort.rounds):
            for name, server in servers.items():
                one = load.run(server, token, connections=32, seconds=effort.seconds, body=body, vary=True)
                runs[name].append(one)
        for name, found in runs.items():
            results.differing[name, body] = middle(found)


def walk(python: str, root: Path, results: Results) -> None:
    """What each part of the walk costs, in the gateway's own environment."""
    command = [python, "-m", "bench.walk"]
    results.walk = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def gibibytes(servers: dict[str, Server], token: str, effort: Effort, results: Results) -> None:
    for way in ("up", "down"):
        runs: dict[str, list[bulk.Transfer]] = {name: [] for name in servers}
        for _ in range(min(3, effort.rounds)):
            for name, server in servers.items():
                runs[name].append(bulk.transfer(server, token, up=way == "up"))
        for name, found in runs.items():
            results.bulk[name, way] = middle(found)


def held_open(servers: dict[str, Server], token: str, effort: Effort, results: Results) -> None:
    kinds: dict[str, Callable[[Server], held.Held | None]] = {
        "events": lambda server: held.events(server, token, streams=effort.streams, seconds=5),
        "echo": lambda server: held.echo(server, token, connections=32, seconds=3),
        "idle": lambda server: held.idle(server, token, connections=effort.idle),
    }
    for kind, ask in kinds.items():
        for name, server in servers.items():
            results.held[name, kind] = ask(server)
