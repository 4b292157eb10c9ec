"""A crowd of lapsed customers hammers a real gateway: who pays doesn't notice, and Stripe isn't asked more than it bears."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from admin.stripe.shared_budget import (
    CALLS_AT_ONCE,
    CALLS_PER_SECOND,
    LOOKS_AT_ONCE,
    LOOKS_PER_SECOND,
)
from tests.support import lapsed
from tests.support.rawclient import RawClient
from tests.support.simulator import running_simulator
from tests.support.stack import Gateway, prepared_gateway

if TYPE_CHECKING:
    from tests.support.recorder import Recorder

MANY = 200
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Hammered:
    gateway: Gateway
    stripe: lapsed.Noted


@pytest.fixture
def hammered(recorder: Recorder, tmp_path: Path) -> Iterator[Hammered]:
    stripe = lapsed.Noted()
    with running_simulator(on_the_way=stripe.before) as simulated:
        lapsed.known_to(simulated.simulator, MANY)
        named = {"upstream": recorder.url, "secret_key": "sk_test_simulator", "stripe": simulated.base}
        with prepared_gateway(tmp_path, **named) as gateway:
            gateway.start()
            lapsed.write(tmp_path / "gateway.db", simulated.simulator.world.account, MANY)
            yield Hammered(gateway, stripe)


async def of_the_payer(address: tuple[str, int], crowd: asyncio.Task[Any]) -> Counter[int]:
    """Every answer that one who pays gets while the crowd is there."""
    answers: Counter[int] = Counter()
    async with await RawClient.connect(address) as payer:
        while not crowd.done():
            answers[(await payer.ask(lapsed.request_of("payer"))).status] += 1
    return answers


def buy(gateway: Gateway) -> list[int]:
    """Somebody new pays meanwhile, and comes back from Stripe."""
    opened = gateway.ask("/_gateway/checkout", "newcomer", "POST", json={"tier": "pro"})
    paid = gateway.http.post(opened.json()["url"], data={"card": "works"})
    returned = gateway.http.get(paid.headers["location"])
    return [opened.status_code, paid.status_code, returned.status_code, gateway.status("/pro/x", "newcomer")]


async def test_a_payer_and_one_who_is_about_to_be_do_not_notice_and_stripe_is_asked_within_the_budget(
    hammered: Hammered,
) -> None:
    gateway, stripe = hammered.gateway, hammered.stripe
    await asyncio.to_thread(gateway.grant, "payer")
    requests = [lapsed.request_of(name) for name in lapsed.names(MANY)]
    began = time.monotonic()
    buying = asyncio.create_task(asyncio.to_thread(buy, gateway))

    async def goes_on(asked: int) -> bool:
        return asked < ROUNDS * MANY or not buying.done()

    crowd = asyncio.create_task(lapsed.crowd(gateway.address, requests, connections=24, goes_on=goes_on))
    bought, payer = await asyncio.gather(buying, of_the_payer(gateway.address, crowd))
    answers = await crowd
    calls = [(at - began, path) for at, path in stripe.calls if at >= began]
    elapsed = max([time.monotonic() - began, *(at for at, _ in calls)])

    assert set(payer) == {200}, payer
    assert bought == [200, 303, 200, 200]
    assert answers.total() >= ROUNDS * MANY
    assert set(answers) <= {(503, "entitlement_unavailable"), (402, "tier_required")}, answers
    assert answers[503, "entitlement_unavailable"] > MANY, "nobody could be asked, so nobody is told to pay twice"
    looks = sum(path.startswith("/v1/customers/cus_lapsed") for _, path in calls)
    assert 0 < looks <= LOOKS_AT_ONCE + LOOKS_PER_SECOND * elapsed
    assert len(calls) <= CALLS_AT_ONCE + CALLS_PER_SECOND * elapsed
