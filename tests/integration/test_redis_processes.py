"""Two real gateway processes and one Redis: what one publishes, or reads, is in force in the other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.redis import EntitlementPublisher, Held, open_redis
from policies.facts import CustomerFacts, encode
from tests.support.ledger_stub import granted, nothing
from tests.support.redis_server import running_redis_url

pytestmark = pytest.mark.redis
PATIENCE_SECONDS = 10.0


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis_url() as url:
        yield url


class GatewayProcess:
    def __init__(self, url: str, prefix: str, ledger: Path) -> None:
        script = Path(__file__).with_name("redis_resolver_process.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), url, prefix, str(ledger)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self._read() == "ready"

    def lookup(self, customer: str) -> tuple[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{customer}\n")
        self._process.stdin.flush()
        source, version = self._read().split()
        return source, int(version)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def prefix() -> str:
    return f"eg:{uuid4().hex}:acct_1:test"


@pytest.fixture
def processes(redis_url: str, prefix: str, tmp_path: Path) -> Iterator[list[GatewayProcess]]:
    started: list[GatewayProcess] = []
    try:
        started.extend(GatewayProcess(redis_url, prefix, tmp_path) for _ in range(2))
        yield started
    finally:
        for process in started:
            process.close()


def commit(ledger: Path, facts: CustomerFacts) -> CustomerFacts:
    (ledger / facts.customer).write_bytes(encode(facts))
    return facts


async def test_what_is_published_by_a_third_is_in_force_in_both_though_neither_has_a_feed(
    redis_url: str, prefix: str, tmp_path: Path, processes: list[GatewayProcess]
) -> None:
    one, two = processes
    commit(tmp_path, granted("cus_1", 7))
    assert one.lookup("cus_1") == ("sql", 7)
    assert one.lookup("cus_1") == ("memory", 7)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while two.lookup("cus_1")[1] != 7:
        assert time.monotonic() < deadline

    client = open_redis(redis_url, timeout=2)
    publisher = EntitlementPublisher(
        client,
        prefix,
        lifetimes=Lifetimes(max_ttl=3600, max_stale=3600, negative_ttl=5),
        now=time.time,
        next_edge=lambda _facts, _now: None,
    )
    assert await publisher.publish(commit(tmp_path, nothing("cus_1", 8))) == Held(8)
    await client.aclose()

    deadline = time.monotonic() + PATIENCE_SECONDS
    while {one.lookup("cus_1")[1], two.lookup("cus_1")[1]} != {8}:
        assert time.monotonic() < deadline, "a process still answers with the old version"
        await asyncio.sleep(0.01)


def test_a_process_that_is_killed_takes_nothing_from_the_other(tmp_path: Path, processes: list[GatewayProcess]) -> None:
    one, two = processes
    commit(tmp_path, granted("cus_1", 7))
    assert one.lookup("cus_1")[1] == 7
    one.close()
    assert two.lookup("cus_1")[1] == 7
    commit(tmp_path, granted("cus_2", 9))
    assert two.lookup("cus_2") == ("sql", 9)
