"""What was measured, as a page and a picture. It says what is missed as plainly as what is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.compare.peers import TITLES

if TYPE_CHECKING:
    from bench.compare.rounds import Effort, Results

_SIDE: Final = 32
"""Connections at which the bars are judged."""

_BUSY: Final = (
    "**It was busy with other work**: throughput and latency say little then, and even ratios of CPU time are unsteady."
)

_WALK: Final = (
    "Python alone, in one process and without sockets (`python -m bench.walk`): the least of many rounds, in µs of CPU time. "
    "A part by itself in a loop finds everything in the processor's caches, which it does not on the way; so the parts are less "
    "than the whole. What the table above has beyond this are system calls (two reads, two writes, a look whether the upstream's "
    "connection is silent, the event loop's own) and the loop around them.\n\n"
)


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that the page says."""

    date: str
    machine: str
    load: str
    was_busy: bool
    versions: str
    effort: Effort
    results: Results
    has_wrk: bool


def markdown(told: Told) -> str:
    effort, results = told.effort, told.results
    generator = "wrk" if told.has_wrk else "the generator of `bench/compare/load.py`"
    parts = [
        (
            "# Side by side\n\nWritten by `make bench`. "
            f"{told.date}; {told.machine}; load {told.load}. {_BUSY if told.was_busy else ''}\n\n{told.versions[0].upper()}{told.versions[1:]}.\n\n"
            "Each server has one core and one worker; the load generator, the upstream and the trivial server that says yes "
            f"share the other. All run in one run, in turn, {effort.rounds} rounds of {effort.seconds} s, and each number is "
            f"the median of its rounds. The load is {generator}'s, on kept-alive connections. CPU is the user and system time "
            "of the server's own processes, divided by the requests answered: what others on the core take does not count, "
            "nor does the server that Envoy and Caddy ask.\n\n"
            "What is fair: everybody but nginx has 100 routes, hands on who the customer is, counts, and writes a line of log "
            "per request into a file. Envoy verifies the token and remembers it (its cache is on) and asks a server that says "
            "yes on a kept-alive connection; Caddy asks the same one. That answer is a 200, since Envoy takes a 204 for a no. "
            "FastAPI with httpx verifies the token and knows the customer. nginx does no job at all. Before anything is "
            "measured each must hand on the upstream's own answer. This gateway does the full job: 100 routes, a verified "
            "token, a known customer, identity headers, metrics, a line of log.\n\n"
            "To repeat it: `apt-get install nginx wrk`, then `make bench` (about nine minutes; what is not installed is left out "
            "and named).\n"
        ),
        _bars(results),
        "## The full job\n\n![Requests a second on one core](benchmarks.svg)\n\n" + _job(results)
        if results.job
        else "",
        "## Requests that differ\n\n" + _differing(results) if results.differing else "",
        "## Bodies\n\n" + _posts(results) if results.posts else "",
        "## First sights\n\n" + _cold(results) if results.cold else "",
        "## The walk, part by part\n\n" + _WALK + results.walk if results.walk else "",
        "## A gibibyte either way\n\n" + _bulk(results) if results.bulk else "",
        "## Held open\n\n" + _held(results) if results.held else "",
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _table(head: str, rows: list[list[str]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * columns, *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join(lines) + "\n"


def _bars(results: Results) -> str:
    job, rows = results.job, []

    def judge(against: str, bar: str, value: float, *, met: bool) -> None:
        rows.append([against, bar, f"{value:.2f} times", "met" if met else "**missed**"])

    ours = job.get(("gateway", _SIDE))
    for name, most in (("envoy", 1.0), ("caddy", 0.5), ("nginx", 5.0)):
        if ours is not None and (name, _SIDE) in job:
            ratio = ours.cpu_us / job[name, _SIDE].cpu_us
            judge(TITLES[name], f"≤ {most:g} times its CPU per request", ratio, met=ratio <= most)
    if ours is not None and ("plain", _SIDE) in job:
        ratio = ours.per_second / job["plain", _SIDE].per_second
        judge(TITLES["plain"], "≥ 20 times its throughput", ratio, met=ratio >= 20)
    if results.cold:
        ratio = results.cold["first sight, RS256, entitlement in Redis"].cpu_us / results.cold["warm RS256"].cpu_us
        judge("first sight of a token, entitlement in Redis", "≤ 8 times the warm request", ratio, met=ratio <= 8)
    if results.routes:
        ratio = results.routes[10_000].cpu_us / results.routes[10].cpu_us
        judge("10,000 routes against 10", "≤ 1.1 times the CPU per request", ratio, met=ratio <= 1.1)
    for way in ("up", "down"):
        ours_bulk, theirs = results.bulk.get(("gateway", way)), results.bulk.get(("nginx", way))
        if ours_bulk is not None:
            grown = ours_bulk.grown_mib
            rows.append(
                [f"1 GiB {way}", "memory grows ≤ 32 MiB", f"{grown:.1f} MiB", "met" if grown <= 32 else "**missed**"]
            )
        if ours_bulk is not None and theirs is not None:
            ratio = ours_bulk.mib_per_second / theirs.mib_per_second
            judge(f"1 GiB {way}", "≥ 0.4 times nginx's throughput", ratio, met=ratio >= 0.4)
    return f"## The bars\n\nThose of [the design](design.md), section 10, at {_SIDE} connections.\n\n" + _table(
        "against | bar | measured | ", rows
    )


def _job(results: Results) -> str:
    rows = [
        [
            TITLES[name],
            str(connections),
            f"{one.cpu_us:,.1f}",
            f"{one.per_second:,.0f}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{results.resident[name]:.0f}",
        ]
        for (name, connections), one in results.job.items()
    ]
    head = "who | connections | CPU µs a request | requests a second | p50 ms | p99 ms | resident MiB"
    return _table(head, rows)


def _differing(results: Results) -> str:
    rows = [
        [
            TITLES[name],
            "POST, 1 KiB" if body else "GET",
            f"{one.cpu_us:,.1f}",
            f"{one.per_second:,.0f}",
            f"{one.p99_ms:.2f}",
        ]
        for (name, body), one in results.differing.items()
    ]
    return (
        "A connection of wrk sends the same fields with every request, and this gateway knows them again "
        "([decision 16](decisions/0016-the-short-way.md)). Here each request has a field whose value no other one has, as a "
        f"trace id or an idempotency key has, at {_SIDE} connections:\n\n"
        + _table("who | request | CPU µs a request | requests a second | p99 ms", rows)
    )


def _posts(results: Results) -> str:
    rows = [
        [
            TITLES[name],
            "1 MiB" if body > 1024 else "1 KiB",
            f"{one.cpu_us:,.1f}",
            f"{one.per_second:,.0f}",
            f"{one.p99_ms:.2f}",
        ]
        for (name, body), one in results.posts.items()
    ]
    return _table("who | POST body | CPU µs a request | requests a second | p99 ms", rows)


def _cold(results: Results) -> str:
    rows = [[what, f"{one.cpu_us:,.1f}", f"{one.p99_ms:.2f}"] for what, one in results.cold.items()]
    told = (
        "Each request with a token that was never seen before; in the last kind the customer is unknown to the process, "
        "too, and comes from Redis (at least "
        f"{results.from_redis:.0%} of them; what Redis did not hold yet, from SQL). All on 8 connections by the generator that can send requests which differ, warm ones as well.\n\n"
    )
    if results.routes:
        rows += [
            [f"{count:,} routes", f"{one.cpu_us:,.1f}", f"{one.p99_ms:.2f}"] for count, one in results.routes.items()
        ]
    return told + _table("what | CPU µs a request | p99 ms", rows)


def _bulk(results: Results) -> str:
    rows = [
        [TITLES[name], way, f"{one.mib_per_second:,.0f}", f"{one.cpu_seconds:.2f}", f"{one.grown_mib:.1f}"]
        for (name, way), one in results.bulk.items()
    ]
    return _table("who | way | MiB a second | CPU s | memory grows by MiB", rows)


def _held(results: Results) -> str:
    rows = []
    for (name, kind), one in results.held.items():
        if one is None:
            rows.append([TITLES[name], "WebSocket echo, 64 bytes", "not served", "", ""])
        elif kind == "events":
            rows.append(
                [
                    TITLES[name],
                    "event streams, 1,000",
                    f"{one.per_second:,.0f} events a second",
                    f"{one.cpu_us:.1f} µs an event",
                    f"{one.kib_each:.1f}",
                ]
            )
        elif kind == "echo":
            rows.append(
                [
                    TITLES[name],
                    "WebSocket echo, 64 bytes, 32 connections",
                    f"{one.per_second:,.0f} messages a second",
                    f"{one.cpu_us:.1f} µs a message",
                    f"{one.kib_each:.1f}",
                ]
            )
        else:
            rows.append(
                [
                    TITLES[name],
                    f"idle connections, {one.things:,}",
                    "",
                    f"{one.cpu_us:.0f} µs a second for all",
                    f"{one.kib_each:.1f}",
                ]
            )
    return _table("who | what | how many | CPU | KiB each", rows)


def plot(told: Told) -> str:
    """Throughput at each number of connections, as bars."""
    job = told.results.job
    if not job:
        return "<svg xmlns='http://www.w3.org/2000/svg'/>\n"
    names = list(dict.fromkeys(name for name, _ in job))
    counts = list(dict.fromkeys(connections for _, connections in job))
    most = max(one.per_second for one in job.values())
    shades = dict(zip(counts, ("#9ec5fe", "#3d8bfd", "#0a58ca"), strict=False))
    lines: list[str] = []
    y = 40
    for name in names:
        title = TITLES[name].replace("*", "")
        lines.append(f'<text x="10" y="{y + 30}">{title}</text>')
        for connections in counts:
            one = job[name, connections]
            width = max(1, round(one.per_second / most * 380))
            lines.append(
                f'<rect x="270" y="{y}" width="{width}" height="14" fill="{shades.get(connections, "#3d8bfd")}"/>'
            )
            lines.append(f'<text x="{275 + width}" y="{y + 12}" font-size="11">{one.per_second:,.0f}</text>')
            y += 16
        y += 14
    key = "  ".join(f"{connections}" for connections in counts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {y + 10}" font-family="system-ui, sans-serif" font-size="13" fill="#333">'
        '<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="10" y="22" font-weight="600">Requests a second on one core; from light to dark: {key} connections</text>'
        + "".join(lines)
        + "</svg>\n"
    )
