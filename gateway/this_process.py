"""This process's part in a reload: a plan made beside the one in force, and put in its place between two requests.

It decides in which order things change hands. It must never let a request see half of each: plan, what is remembered of
customers and what is sold change in one step of the event loop, and what the old plan needs outlives its requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.app import Gateway
from gateway.credentials import Authenticator
from gateway.credentials.authenticator import SETTLE_SECONDS
from gateway.entitlements.resolver import Resolver
from gateway.entitlements.tasks import end
from gateway.in_force import InForce
from gateway.operator import Operator
from gateway.plan import Plan
from gateway.reloading import Candidate, ConfigurationState
from gateway.telemetry import Metrics
from gateway.upstream.tls import TlsFilesError
from policies.entitlement import Entitlement
from policies.schema import Config

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a configuration gives, or the ledger keeps where it gives none."""

    signing_key: str = field(repr=False)
    operator_token: str = field(repr=False)


class ThisProcess:
    """`gateway.reloading.Part`. `keys_of` gives a sentence where the ledger can't be asked; `sell` tells the Stripe side."""

    def __init__(
        self,
        in_force: InForce,
        gateway: Gateway,
        resolver: Resolver[Entitlement],
        operator: Operator,
        metrics: Metrics,
        *,
        keys: Keys,
        keys_of: Callable[[Config], Awaitable[Keys | str]],
        sell: Callable[[Config], None],
    ) -> None:
        self._in_force = in_force
        self._gateway = gateway
        self._resolver = resolver
        self._operator = operator
        self._metrics = metrics
        self._keys = keys
        self._keys_of = keys_of
        self._sell = sell
        self._prepared: tuple[Plan, Keys] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def prepare(self, candidate: Candidate) -> str | None:
        """Make the plan; or why that can't be."""
        config, keys = candidate.config, self._keys
        if _given(config) != _given(self._in_force.config):
            found = await self._keys_of(config)
            if isinstance(found, str):
                return found
            keys = found
        try:
            plan = await asyncio.to_thread(self._in_force.prepare, config, candidate.routes, keys.signing_key)
        except TlsFilesError as error:
            return str(error)
        self._prepared = plan, keys
        return None

    async def commit(self) -> None:
        """From here on new requests are judged by it."""
        if self._prepared is None:
            return
        (plan, self._keys), self._prepared = self._prepared, None
        old = self._in_force.plan
        if plan.authenticator is not old.authenticator:
            await plan.authenticator.start()  # which waits for nothing: a token met next may need its keys
        self._in_force.take(plan)
        self._gateway.plan = self._in_force.plan
        self._resolver.forget_all(self._in_force.derive)
        self._operator.use_token(self._keys.operator_token)
        self._sell(plan.config)
        plan.upstreams.start()
        if plan.upstreams is not old.upstreams:
            await old.upstreams.aclose(successor=plan.upstreams)
        if plan.authenticator is not old.authenticator:
            retiring = asyncio.get_running_loop().create_task(_retire(old.authenticator))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    async def discard(self) -> None:
        """Nothing comes of it."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await prepared[0].upstreams.aclose(successor=self._in_force.plan.upstreams)

    def tell(self, state: ConfigurationState) -> None:
        """Into the metrics."""
        self._metrics.reloaded.set(0 if state.refused else 1)
        self._metrics.loaded_at.set(state.loaded_at)

    async def aclose(self) -> None:
        """End what is in force and what is retiring."""
        await end(self._retiring)
        await self._in_force.authenticator.stop()
        await self._in_force.plan.upstreams.aclose()


def _given(config: Config) -> tuple[str, str]:
    server = config.server
    return server.signing_key.get_secret_value(), server.operator_token.get_secret_value()


async def _retire(authenticator: Authenticator) -> None:
    """Requests that came before the reload may wait for a fetch of its keys."""
    try:
        await asyncio.sleep(SETTLE_SECONDS)
    finally:
        await authenticator.stop()
