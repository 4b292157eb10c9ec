"""Active checks: each target of an upstream is asked for a path from time to time, in the background.

It decides whether a target is healthy: not after two bad answers in a row (none in time, or a status from 400 on),
again after one good one. It must never carry anything of a caller, nor end because a check failed.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

import httpx

from gateway.upstream.tls import client_tls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.upstream.pool import Pool
    from policies.schema import Upstream

FAILURES_UNTIL_UNHEALTHY: Final = 2


class HealthChecks:
    """The checks of one upstream's targets. httpx serves here: speed is not the point, and it is not on the path of a request."""

    def __init__(self, pools: Sequence[Pool], upstream: Upstream) -> None:
        self._pools = tuple(pools)
        self._settings = upstream.health
        self._http2 = upstream.http2
        # Its own: httpx sets what it offers in the context that it is given, and requests go by that.
        is_secure = any(pool.target.tls is not None for pool in pools)
        self._tls = client_tls(upstream.tls) if is_secure else ssl.create_default_context()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, unless they run already."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._watch(pool), name="health") for pool in self._pools]

    async def stop(self) -> None:
        """End them; nobody knows then, and every target counts as healthy."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in self._pools:
            pool.standing.healthy = True

    async def _watch(self, pool: Pool) -> None:
        target, interval = pool.target, self._settings.interval
        extensions = {} if target.server_name is None else {"sni_hostname": target.server_name}
        failures = 0
        # Without TLS nothing is agreed on: it is spoken as requests speak it.
        http1 = not self._http2 or target.tls is not None
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, timeout=interval, http1=http1, http2=self._http2
        ) as client:
            while True:
                if await _is_good(client, target.url + self._settings.path, extensions):
                    failures = 0
                    pool.standing.healthy = True
                else:
                    failures += 1
                    pool.standing.healthy = failures < FAILURES_UNTIL_UNHEALTHY
                await asyncio.sleep(interval)


async def _is_good(client: httpx.AsyncClient, url: str, extensions: dict[str, str]) -> bool:
    try:
        answer = await client.get(url, extensions=extensions)
    except httpx.HTTPError:  # not connected, not in time, not HTTP: whatever it is, the answer is no
        return False
    return answer.status_code < 400
