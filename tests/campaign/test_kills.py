"""SIGKILL of a real process at named points: nothing acknowledged is lost, nothing half-applied stays (P6), and another
process, with the old answer in its memory and in Redis, refuses nonetheless (P7).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaign.killed_gateway import POINTS
from tests.support.ledgers import fresh_postgres
from tests.support.recorder import running_recorder
from tests.support.redis_server import RedisServer
from tests.support.stack import (
    Gateway,
    Process,
    Stack,
    plain_environment,
    running_gateway,
    running_stack,
)

pytestmark = [pytest.mark.redis]
SCRIPT = Path(__file__).with_name("killed_gateway.py")
ROOT = Path(__file__).resolve().parents[2]
KILLED = -9
EVERY_KILL = bool(os.environ.get("EVERY_KILL"))
"""`make campaign` sets it: each kill costs three processes' starts, so a suite has only a handful of them."""
COMMITTED = ("after the commit, before publishing", "during publishing")


class KillableProcess(Process):
    """`gateway run` that ends itself at `point` once `when` exists."""

    def __init__(self, point: str, when: Path, *, cwd: Path) -> None:
        self._out = cwd / f"killed-{point.replace(' ', '-').replace(',', '')}.out"
        self._err = self._out.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "run"],
                cwd=cwd,
                env=plain_environment(KILL_AT=point, KILL_WHEN=str(when), PYTHONPATH=str(ROOT)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )


@dataclass(frozen=True, slots=True)
class Pair:
    """The gateway that hears Stripe and is killed, and the one that goes on, over one ledger and one Redis."""

    stack: Stack
    other: Gateway

    def heard_by(self, point: str, when: Path) -> None:
        """From here on the first gateway is one that will be killed at `point`."""
        first = self.stack.gateway
        first.running.stop()
        first.process = KillableProcess(point, when, cwd=first.directory)
        first.process.until_answers(f"http://127.0.0.1:{first.operator}/readyz")


LEDGERS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)] if EVERY_KILL else ["sqlite"]


@pytest.fixture(scope="module", params=LEDGERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    with RedisServer() as redis, running_recorder() as recorder, _ledger(request.param, first) as url:
        shared = {"database": url, "redis": redis.url, "upstream": recorder.url}
        with running_stack(first, **shared) as stack:
            same_stripe = {"secret_key": "sk_test_simulator", "stripe": stack.stripe.base}
            with running_gateway(second, **shared, **same_stripe) as other:
                yield Pair(stack, other)


def _ledger(kind: str, directory: Path) -> AbstractContextManager[str]:
    return fresh_postgres() if kind == "postgres" else nullcontext(f"sqlite:///{directory / 'ledger.db'}")


@pytest.mark.parametrize("point", POINTS)
def test_a_cancellation_is_in_force_although_its_process_was_killed(pair: Pair, tmp_path: Path, point: str) -> None:
    name, stripe = f"leaves-{point.replace(' ', '-').replace(',', '')}", pair.stack.stripe
    pair.stack.subscribe(name)
    for gateway in (pair.stack.gateway, pair.other):
        gateway.until("/pro/x", name, 200)
    pair.heard_by(point, tmp_path / "now")
    (tmp_path / "now").touch()
    (subscription,) = stripe.subscriptions_of(name)
    stripe.stripe(f"subscriptions/{subscription['id']}", "DELETE")
    assert pair.stack.gateway.running.wait() == KILLED
    stripe.control("webhooks", enabled=False)  # it is not told again
    if point in COMMITTED:
        pair.other.until("/pro/x", name, 402, within=5)
    pair.stack.gateway.start()
    for gateway in (pair.stack.gateway, pair.other):
        gateway.until("/pro/x", name, 402, within=60)
    stripe.control("webhooks", enabled=True)


@pytest.mark.parametrize("point", POINTS if EVERY_KILL else ["after the inbox row"])
def test_a_purchase_counts_although_its_process_was_killed(pair: Pair, tmp_path: Path, point: str) -> None:
    name, stripe = f"buys-{point.replace(' ', '-').replace(',', '')}", pair.stack.stripe
    page = pair.stack.checkout_of(name)
    pair.heard_by(point, tmp_path / "now")
    (tmp_path / "now").touch()
    stripe.pay(page)
    assert pair.stack.gateway.running.wait() == KILLED
    stripe.control("webhooks", enabled=False)
    pair.stack.gateway.start()
    for gateway in (pair.stack.gateway, pair.other):
        gateway.until("/pro/x", name, 200, within=60)
    stripe.control("webhooks", enabled=True)
