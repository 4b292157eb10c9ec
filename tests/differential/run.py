"""The same bytes, valid and not, to a gateway and to nginx in front of the same API: it must see the same requests.

    python -m tests.differential.run --requests 5000

What both hand on must be alike in method, target and body, in order. Where the gateway refuses what nginx hands on, it is
only stricter, and counted. Where it hands on what nginx refuses, that stands in `LOOSER` with the reason, or is a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.mutations import REQUESTS, mutated
from tests.support.rawbytes import parts_of, unchunked
from tests.support.rawclient import RawClient
from tests.support.recorder import Recorder, running_recorder
from tests.support.stack import eventually, free_port, running_gateway

CONFIG: Final = """\
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
  uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
  client_header_timeout 2s; client_body_timeout 2s; large_client_header_buffers 4 16k;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
KNOWN: Final = tuple(request.replace(b" /a", b" /public/a") for request in REQUESTS)
LAST: Final = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# What the gateway hands on and nginx does not, by what stands in the bytes, and why that is right.
LOOSER: Final[dict[str, bytes]] = {
    "more than nginx's 16 KiB in one field": rb"[^\r\n]{16000}",
    "Expect twice, which is a list (RFC 9110, section 10.1.1)": rb"(?is)\nexpect:.*\nexpect:",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the API got it."""

    method: bytes
    target: bytes
    body: bytes


@contextmanager
def running_nginx(directory: Path, upstream: str, *, template: str = CONFIG) -> Iterator[tuple[str, int]]:
    """nginx from Debian's package, as this user, in the foreground."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert binary is not None
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(template.format(directory=directory, port=port, upstream=upstream))
    process = subprocess.Popen(
        [binary, "-e", str(directory / "error.log"), "-c", str(config)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: (directory / "pid").exists() or process.poll() is not None)
        assert process.poll() is None, (directory / "error.log").read_text()
        yield ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


async def seen_through(address: tuple[str, int], data: bytes, recorder: Recorder) -> tuple[list[Seen], bytes]:
    """What the API got of these bytes, and what the caller did."""
    recorder.taken()
    async with await RawClient.connect(address) as client:
        client.writer.write(data + LAST)
        received = await client.rest()
    seen = []
    for request in recorder.taken():
        line, headers, body = parts_of(request)
        method, target, _ = line.split(b" ", 2)
        if target == b"/nowhere":
            continue
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            body = unchunked(body)
        seen.append(Seen(method, target, body))
    return seen, received


@dataclass(slots=True)
class Tally:
    """What came of the comparison; `faults` must stay empty."""

    counted: Counter[str]
    faults: list[tuple[int, bytes, list[Seen], list[Seen]]]


def _is_part(ours: list[Seen], theirs: list[Seen]) -> bool:
    """Whether ours are some of theirs, in their order."""
    left = iter(theirs)
    return all(one in left for one in ours)


async def compare(directory: Path, seeds: range) -> Tally:
    """Each seed's bytes to both."""
    tally = Tally(Counter(), [])
    with (
        running_recorder() as recorder,
        running_nginx(directory / "nginx", recorder.url) as nginx,
        running_gateway(directory / "gateway", upstream=recorder.url) as gateway,
    ):
        for seed in seeds:
            data = mutated(KNOWN, random.Random(seed))
            ours, answer = await seen_through(gateway.address, data, recorder)
            theirs, _ = await seen_through(nginx, data, recorder)
            reasons = re.findall(rb"X-Gateway-Reason: (\w+)", answer, re.IGNORECASE)
            if ours == theirs:
                tally.counted["the same"] += 1
            elif ours == theirs[: len(ours)]:
                tally.counted[f"stricter: {reasons[-1].decode() if reasons else 'closed'}"] += 1
            elif len(theirs) - len(ours) < len(reasons) and _is_part(ours, theirs):  # one reason is that of LAST
                tally.counted["stricter: one refused, and what follows it the same"] += 1
            else:
                why = next((why for why, mark in LOOSER.items() if re.search(mark, data)), None)
                if why is None:
                    tally.faults.append((seed, data, ours, theirs))
                else:
                    tally.counted[f"looser: {why}"] += 1
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        seeds = range(given.first_seed, given.first_seed + given.requests)
        tally = asyncio.run(compare(Path(directory), seeds))
    for what, count in tally.counted.most_common():
        print(f"{count:6} {what}")
    for seed, data, ours, theirs in tally.faults[:20]:
        print(f"seed {seed}: {data[:300]!r}\n  through the gateway {ours}\n  through nginx {theirs}")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
