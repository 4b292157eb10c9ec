"""Follows the Redis channel of changes: the fast path by which another process's commit reaches this one's memory.

It says when it is being followed, and when something may have been missed. It is never the only way a change arrives
(that is the ledger's `changes` table) and it never decides what is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

logger = logging.getLogger(__name__)

CHECK_SECONDS: Final = 1.0
"""Silence after which the connection is asked whether it is alive; a second one and it is given up."""
RETRY_SECONDS: Final = 0.5
_NOT_FOLLOWED: Final = "redis can't be used (%s: %s): until it can be, who is not in memory is looked up in the ledger, and changes come from there"


class Follower(Protocol):
    """Who is told."""

    def announced(self, customer: str, version: int) -> None:
        """Redis holds `version` of `customer`."""

    def missed_announcements(self, *, redis_may_have_lost_writes: bool) -> None:
        """Announcements may have passed unheard. The second: this isn't the Redis that was followed before."""


class ChangeChannel:
    """`run` never returns; `is_followed` is true only between a subscription's confirmation and its loss."""

    def __init__(
        self,
        client: Redis,
        channel: str,
        follower: Follower,
        *,
        check_seconds: float = CHECK_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.is_followed = False
        self._client = client
        self._channel = channel
        self._follower = follower
        self._check_seconds = check_seconds
        self._retry_seconds = retry_seconds
        self._incarnation: str | None = None
        self._told = False
        """Whether it was said that changes aren't followed: once, not at each attempt."""

    async def run(self) -> None:
        """Subscribe, follow, and start over when the connection is lost, until cancelled."""
        while True:
            try:
                await self._follow()
            except (RedisError, OSError) as error:
                level = logging.DEBUG if self._told else logging.WARNING
                self._told = True
                logger.log(level, _NOT_FOLLOWED, type(error).__name__, error)
            except Exception:
                # Not what the client promises to raise. To stop following for good would be worse than to go on.
                logger.exception("redis: changes not followed")
            finally:
                self.is_followed = False
            await asyncio.sleep(self._retry_seconds)

    async def _follow(self) -> None:
        # One PubSub object per connection: redis-py's own would reconnect in silence, and what was published meanwhile
        # would be lost without a trace.
        subscription = self._client.pubsub()
        try:
            async with asyncio.timeout(self._check_seconds):
                await subscription.subscribe(self._channel)
            is_waiting_for_pong = False
            while True:
                # A timeout given here replaces the client's socket timeout for this read: silence is no failure.
                message = await subscription.get_message(timeout=self._check_seconds)
                if message is not None:
                    is_waiting_for_pong = False
                    await self._heard(message)
                elif is_waiting_for_pong or not self.is_followed:
                    raise TimeoutError("the subscription is silent")
                else:
                    async with asyncio.timeout(self._check_seconds):
                        await subscription.ping()
                    is_waiting_for_pong = True
        finally:
            await subscription.aclose()  # type: ignore[no-untyped-call]

    async def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            incarnation = await self._asked_incarnation()
            before, self._incarnation = self._incarnation, incarnation
            self._follower.missed_announcements(redis_may_have_lost_writes=before not in (None, incarnation))
            self.is_followed = True
            self._told = False
            logger.info("redis: following changes")
        elif message["type"] == "message":
            change = parse_announcement(message["data"])
            if change is None:
                # Somebody announced something that this version can't read: it may concern anyone.
                self._follower.missed_announcements(redis_may_have_lost_writes=False)
            else:
                self._follower.announced(*change)

    async def _asked_incarnation(self) -> str | None:
        """Which run of which server this is. One that came back from its snapshot holds what was true back then."""
        try:
            async with asyncio.timeout(self._check_seconds):
                info = await self._client.info("server")
        except ResponseError as error:
            logger.debug("redis: INFO is refused, a restart from a snapshot can't be told: %s", error)
            return None
        return str(info.get("run_id"))


def parse_announcement(data: bytes | str) -> tuple[str, int] | None:
    """`VERSION CUSTOMER`, or None when it is anything else."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        version, customer = text.split(" ", 1)
        return (customer, int(version)) if customer else None
    except (ValueError, AttributeError):
        return None
