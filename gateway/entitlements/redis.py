"""What Redis holds of a customer's facts: the write side, which `admin` publishes through, and the read side.

Redis is a cache and a messenger, never the truth: whatever it holds that is not ours counts as absent, a write goes in
only over an older version, and no failure of it is an exception here or a second wait for anyone. It is never asked on
a request's behalf while the breaker is open; a background probe closes that again.

    {prefix}:ent:{CUSTOMER}   the facts, for as long as their answer can't change by itself, at most max_ttl
    {prefix}:ver:{CUSTOMER}   the highest version seen, for max_ttl
    {prefix}:changed          channel: "VERSION CUSTOMER" for each published change

This module imports neither the resolver nor the memory: it is all of `gateway` that `admin` may know.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from gateway.entitlements.lifetimes import Lifetimes
from gateway.entitlements.names import look_names_up_once
from gateway.entitlements.tasks import end
from policies.facts import CustomerFacts, decode, encode

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

READ_SECONDS: Final = 0.1
"""The longest a request waits for Redis, connecting and queueing included."""
PUBLISH_SECONDS: Final = 1.0
"""Nobody's request waits for a publication; it is retried when it fails."""
MAX_AT_ONCE: Final = 16
"""Questions under way from one process. More would not be answered sooner: they wait here, within the same bound."""
OPENS_AFTER: Final = 3
"""Failures in a row that open the breaker: one slow answer is not an outage."""
PROBE_SECONDS: Final = 0.5
STORE_SCRIPT: Final = Path(__file__).with_name("store.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Held:
    """Redis holds this version of the customer now: the one that was written, or a newer one."""

    version: int


@dataclass(frozen=True, slots=True)
class Down:
    """Redis gave no usable answer."""

    detail: str


BREAKER_IS_OPEN: Final = Down("the breaker is open")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under one prefix: the ledger's own random id, the account and the mode."""

    prefix: str

    @property
    def channel(self) -> str:
        """Where published changes are announced."""
        return f"{self.prefix}:changed"

    def entry(self, customer: str) -> str:
        """The customer's facts."""
        return f"{self.prefix}:ent:{{{_tag(customer)}}}"

    def guard(self, customer: str) -> str:
        """The highest version of them that Redis has seen."""
        return f"{self.prefix}:ver:{{{_tag(customer)}}}"


def _tag(customer: str) -> str:
    # A brace inside would end the hash tag early, and the two keys of one customer could part ways in a cluster.
    return customer.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def open_redis(url: str, *, timeout: float = READ_SECONDS) -> Redis:
    """A client that gives up after `timeout`, once. redis-py's own defaults are 5 s and 10 retries."""
    client = Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=4 * MAX_AT_ONCE,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    look_names_up_once(client)
    return client


class _Store:
    """The compare-and-set of store.lua."""

    def __init__(self, client: Redis, keys: Keys, lifetimes: Lifetimes) -> None:
        self._script = client.register_script(STORE_SCRIPT)
        self._keys = keys
        self._lifetimes = lifetimes

    async def __call__(self, facts: CustomerFacts, edge: float | None, now: float, *, announce: bool) -> Held:
        seconds = self._lifetimes.until_edge(facts, edge, now)
        held = await self._script(
            keys=[self._keys.entry(facts.customer), self._keys.guard(facts.customer)],
            args=[
                facts.version,
                encode(facts),
                max(1, int(seconds * 1000)),
                max(1, int(self._lifetimes.max_ttl * 1000)),
                self._keys.channel if announce else "",
                f"{facts.version} {facts.customer}",
            ],
        )
        return Held(int(held))


class EntitlementPublisher:
    """Puts committed facts into Redis and tells every gateway process; the caller retries until it is `Held`.

    `next_edge` says when the answer to these facts may change by itself, under the configuration in force.
    """

    def __init__(
        self,
        client: Redis,
        prefix: str,
        *,
        lifetimes: Lifetimes,
        now: Callable[[], float],
        next_edge: Callable[[CustomerFacts, float], float | None],
        timeout: float = PUBLISH_SECONDS,
    ) -> None:
        self._store = _Store(client, Keys(prefix), lifetimes)
        self._now = now
        self._next_edge = next_edge
        self._timeout = timeout

    async def publish(self, facts: CustomerFacts) -> Held | Down:
        """Write `facts` and announce them, in one step, unless Redis holds newer ones."""
        now = self._now()
        edge = self._next_edge(facts, now)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._store(facts, edge, now, announce=True)
        except (RedisError, OSError) as error:
            return Down(_described(error))


class RedisEntitlements:
    """The read side, with its breaker; `refill` is the write that a reader may make. `aclose` before dropping it."""

    def __init__(
        self,
        client: Redis,
        prefix: str,
        *,
        lifetimes: Lifetimes,
        timeout: float = READ_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self.client = client
        self.keys = Keys(prefix)
        self._store = _Store(client, self.keys, lifetimes)
        self._timeout = timeout
        self._probe_seconds = probe_seconds
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """The breaker's state: while it is open nothing is asked of Redis, and every answer is `Down` at once."""
        return self._probing is not None

    async def read(self, customer: str) -> CustomerFacts | Down | None:
        """The facts that Redis holds, or None for nothing that can be read as this customer's facts."""
        value = await self._bounded(lambda: self._get(self.keys.entry(customer)))
        if value is None or isinstance(value, Down):
            return value
        facts = decode(value)
        return facts if facts is not None and facts.customer == customer else None

    async def refill(self, facts: CustomerFacts, edge: float | None, now: float) -> Held | Down:
        """Put back what SQL says, unless Redis has seen a newer version. Announces nothing."""
        return await self._bounded(lambda: self._put(facts, edge, now))

    async def aclose(self) -> None:
        """Stop probing. The client belongs to whoever opened it."""
        if self._probing is not None:
            await end([self._probing])

    async def _get(self, key: str) -> bytes | str | None:
        try:
            value: bytes | str | None = await self.client.get(key)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return None
            raise
        return value

    async def _put(self, facts: CustomerFacts, edge: float | None, now: float) -> Held | Down:
        try:
            return await self._store(facts, edge, now, announce=False)
        except ResponseError as error:  # read-only or full: no reason to stop reading
            return Down(_described(error))

    async def _bounded(self, ask: Callable[[], Awaitable[Answer]]) -> Answer | Down:
        answer: Answer | Down = BREAKER_IS_OPEN
        clock = asyncio.get_running_loop().time
        asked_at = math.inf
        try:
            async with asyncio.timeout(self._timeout), self._room:
                if not self.is_open:  # asked only now: it may have opened while we queued
                    asked_at = clock()
                    answer = await ask()
        except Exception as error:  # noqa: BLE001
            # Whatever a client raises on what comes over the wire, it is Redis that gave no answer. But waiting in our
            # own queue says nothing about Redis, nor does an answer that had too little of the time left.
            had_too_little_time = isinstance(error, TimeoutError) and clock() - asked_at < self._timeout / 2
            if not had_too_little_time and not isinstance(error, MaxConnectionsError):
                self._failed(error)
            return Down(_described(error))
        if asked_at < math.inf:
            self._failures = 0
        return answer

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= OPENS_AFTER and self._probing is None:
            logger.warning("redis: not asked for now, after %d failures: %s", self._failures, _described(error))
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(self._probe_seconds)
            try:
                async with asyncio.timeout(self._timeout):
                    # A read of our own, not a PING: a password or ACL that forbids reads is an outage, too.
                    await self.client.get(f"{self.keys.prefix}:probe")
            except Exception as error:  # noqa: BLE001
                # A probe that died would leave the breaker open for good.
                logger.debug("redis: still not usable: %s", _described(error))
                continue
            logger.info("redis: answering again")
            self._failures = 0
            self._probing = None
            return


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
