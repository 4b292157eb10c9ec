"""`gateway simulator`: a Stripe of one's own on a listener of its own, which sells the tiers of gateway.yaml.

It decides where it listens and where its events go. It loads nothing of the gateway that it stands beside.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from admin.simulator import Simulator
from admin.simulator.changes import price_in_words
from admin.stripe.account import simulator_address
from admin.stripe.client import SIMULATOR_BASE, SIMULATOR_KEY_PREFIX
from gateway.serving import CannotListen, CannotStart, Stop, bind, listener, serving
from policies.schema import Config


async def run_simulator(
    config: Config, listen: str | None, webhook: str | None, public_url: str | None = None
) -> CannotStart | None:
    """A simulated Stripe that sells the tiers of `config`, until it is stopped."""
    listen = listen or urlsplit(simulator_address(config.billing.stripe) or SIMULATOR_BASE).netloc
    stop = Stop()
    with stop.on_signals():
        async with serving_simulator(config, listen, webhook, stop, public_url, setting="--listen") as started:
            if isinstance(started, CannotStart):
                return started
            _say(f"A simulated Stripe is at http://{listen} (its key is {SIMULATOR_KEY_PREFIX}). Ctrl-C ends it.")
            _say(f"It sells {', '.join(map(price_in_words, started.world.store.prices.values())) or 'nothing'}.")
            _say("What simulator.prices in gateway.yaml doesn't say of these is made up.")
            await stop.requested.wait()
    return None


@asynccontextmanager
async def serving_simulator(
    config: Config,
    listen: str,
    webhook: str | None,
    stop: Stop,
    public_url: str | None = None,
    *,
    setting: str = "STRIPE_API_BASE",
) -> AsyncIterator[Simulator | CannotStart]:
    """The simulator on its own listener, which `setting` puts elsewhere."""
    elsewhere = "STRIPE_API_BASE=http://127.0.0.1:PORT, in every terminal"
    bound = bind(listen, setting, f"choose another with {'' if setting in elsewhere else f'{setting}, or '}{elsewhere}")
    if isinstance(bound, CannotListen):
        yield CannotStart(bound.detail)
        return
    secret = config.billing.stripe.webhook_secrets.get_secret_value().partition(",")[0].strip()
    target = webhook or f"{_local_address(config)}/_gateway/stripe/webhook"
    try:
        simulator = Simulator(
            wall_clock=time.time,
            webhook=[(target, secret)] if secret else [],
            public_base=public_url or f"http://{listen}",
        )
    except ValueError as error:
        bound.close()
        yield CannotStart(f"the simulator can't be set up: {error}.")
        return
    simulator.seed_from_tiers(config.tiers, config.simulator.prices)
    async with (
        simulator.webhooks.run(),
        serving([(listener(simulator.asgi, drain=1, protocol=HttpToolsProtocol), bound)], stop),
    ):
        yield simulator


def _local_address(config: Config) -> str:
    """Where this machine reaches the public listener, whatever its public name is."""
    host, _, port = config.server.listen.rpartition(":")
    return f"http://{'127.0.0.1' if host.strip('[]') in {'0.0.0.0', '::', ''} else host}:{port}"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
