"""The entitlement clock: real time, or the simulator's while a simulator plays Stripe.

Only what is bought and when it ends follows it. Tokens, signatures, links and timeouts keep real time.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import Final

import httpx

POLL_SECONDS: Final = 0.5
_log = logging.getLogger(__name__)


def client_for_simulator(address: str) -> httpx.AsyncClient:
    """A proxy named in the environment is for the world outside: it can't reach a simulator beside us."""
    # Without TLS nobody asks for the machine's certificates, and reading them takes 20 ms.
    verify = True if address.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(verify=verify, trust_env=False)


class EntitlementClock:
    """Calling it gives UTC seconds. `offset_seconds` is what a simulator's clock is ahead by."""

    def __init__(self) -> None:
        self.offset_seconds = 0.0

    def __call__(self) -> float:
        """Now."""
        return time.time() + self.offset_seconds

    async def read(self, simulator: str, client: httpx.AsyncClient) -> bool:
        """Take over the clock of the simulator at this address; whether it answered."""
        try:
            answer = await client.get(f"{simulator}/_sim/clock", timeout=2.0)
            self.offset_seconds = float(answer.raise_for_status().json()["offset"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            _log.debug("the simulator's clock can't be read: %s", error)
            return False
        return True

    async def follow(self, simulator: str) -> None:
        """Keep reading it, until cancelled."""
        async with client_for_simulator(simulator) as client:
            while True:
                await self.read(simulator, client)
                await asyncio.sleep(POLL_SECONDS)
