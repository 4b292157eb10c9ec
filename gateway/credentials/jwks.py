"""The keys of an issuer that are fetched: in the background, by age, and when a token names one that is not known.

It decides which set is gone by now. It must never fetch for a request (a request may wait for a fetch under way, no
more), never fetch more often because strangers send strange key ids (one such fetch per cooldown), and never hold on to
a key that the issuer has taken back. A set that can't be renewed serves on until it is `max_stale` old.

    start() ── fetch ──▶ sleep until the set is due, a retry is due, or `seek` asks ──▶ fetch ──▶ …   ── stop()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx

from gateway.credentials.key_documents import Fetched, Place, visit
from gateway.credentials.keys import KeySet
from gateway.credentials.outcomes import Flaw

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often keys are fetched and how long they last, in seconds.

    `refresh_default` holds where the issuer doesn't say how long its answer is fresh; `refresh_least` and `refresh_most` bound
    what it says.
    `cooldown` parts two fetches that unknown key ids asked for. `retry_first` doubles up to `retry_most` after failures.
    """

    refresh_default: float = 600
    refresh_least: float = 60
    refresh_most: float = 86_400
    cooldown: float = 30
    retry_first: float = 1
    retry_most: float = 30
    max_stale: float = 86_400


class KeyState(StrEnum):
    """How an issuer's keys are; `UNUSABLE` is a good answer without a key that fits the pinned algorithms."""

    OK = "ok"
    STALE = "stale"
    EXPIRED = "expired"
    UNUSABLE = "unusable"
    NEVER_LOADED = "never_loaded"


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """What /readyz says of one issuer. `failing_since` is when the first of the failures in a row was seen."""

    issuer: str
    state: KeyState
    keys: int
    fetched_at: float | None = None
    failing_since: float | None = None
    last_error: str | None = None


def open_client() -> httpx.AsyncClient:
    """A client of the kind that keys are fetched with; cookies and redirects play no part."""
    return httpx.AsyncClient(timeout=httpx.Timeout(5.0), follow_redirects=False)


class RemoteKeys:
    """The key source of one issuer whose keys are at a URL."""

    def __init__(
        self,
        place: Place,
        algorithms: frozenset[str],
        *,
        now: Callable[[], float],
        bounds: Bounds,
        client: Callable[[], httpx.AsyncClient] = open_client,
    ) -> None:
        self._place = place
        self._algorithms = algorithms
        self._now = now
        self._bounds = bounds
        self._open_client = client
        self._keys: KeySet | None = None
        self._fetched_at: float | None = None
        self._failing_since: float | None = None
        self._last_error: str | None = None
        self._sought_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def current(self, now: float) -> KeySet | None:
        """The last good set, until it is too old to be believed."""
        if self._fetched_at is None or now - self._fetched_at > self._bounds.max_stale:
            return None
        return self._keys

    def seek(self, now: float) -> RemoteKeys | None:
        """Have the keys fetched anew, once per cooldown; itself while a fetch is under way."""
        if self._task is None or self._task.done():
            return None
        if not self._idle.is_set():
            return self
        # A clock that was set back must not make the cooldown last until it has caught up.
        if self._sought_at is not None and 0 <= now - self._sought_at < self._bounds.cooldown:
            return None
        self._sought_at = now
        self._idle.clear()
        self._asked.set()
        return self

    async def landed(self, timeout_seconds: float) -> None:
        """Return when the fetch under way has ended, or when the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()

    async def start(self) -> None:
        """Begin to fetch in the background. An issuer out of reach neither raises nor delays."""
        if self._task is None:
            self._idle.clear()
            self._task = asyncio.create_task(self._follow(self._open_client()), name=f"keys of {self._place.issuer}")

    async def stop(self) -> None:
        """End the background work. The last set serves on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._idle.set()

    def inherit(self, previous: RemoteKeys) -> None:
        """Take over the last good set of a source of the same place and algorithms, unless there is one by now."""
        if self._keys is None and (previous._place, previous._algorithms) == (self._place, self._algorithms):
            self._keys, self._fetched_at = previous._keys, previous._fetched_at

    def health(self, now: float) -> KeyHealth:
        """How the keys are, in words that name no secret."""
        if self._keys is None:
            state = KeyState.NEVER_LOADED
        elif self.current(now) is None:
            state = KeyState.EXPIRED
        elif self._failing_since is not None:
            state = KeyState.STALE
        else:
            state = KeyState.OK if self._keys.keys else KeyState.UNUSABLE
        return KeyHealth(
            self._place.issuer,
            state,
            len(self._keys.keys) if self._keys is not None else 0,
            self._fetched_at,
            self._failing_since,
            self._last_error,
        )

    async def _follow(self, opened: httpx.AsyncClient) -> None:
        async with opened as client:
            failures = 0
            while True:
                outcome = await self._visit(client)
                if isinstance(outcome, Flaw):
                    failures += 1
                    delay = min(self._bounds.retry_most, self._bounds.retry_first * 2 ** min(failures - 1, 16))
                else:
                    failures = 0
                    delay = self._due_in(outcome.max_age)
                self._asked.clear()
                self._idle.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._asked.wait()
                self._idle.clear()

    async def _visit(self, client: httpx.AsyncClient) -> Fetched | Flaw:
        try:
            outcome = await visit(client, self._place, self._algorithms)
        except Exception as error:
            logger.exception("Fetching the keys of %s failed in an unforeseen way", self._place.issuer)
            outcome = Flaw(f"could not be read ({type(error).__name__})")
        if isinstance(outcome, Flaw):
            self._note_failure(outcome)
        else:
            self._take(outcome)
        return outcome

    def _due_in(self, max_age: int | None) -> float:
        wanted = self._bounds.refresh_default if max_age is None else max_age
        return min(self._bounds.refresh_most, max(self._bounds.refresh_least, wanted))

    def _note_failure(self, flaw: Flaw) -> None:
        if self._failing_since is None:
            self._failing_since = self._now()
        if flaw.clause != self._last_error:
            logger.warning("The keys of %s can't be renewed: %s", self._place.issuer, flaw.clause)
        self._last_error = flaw.clause

    def _take(self, fetched: Fetched) -> None:
        if self._failing_since is not None:
            logger.info("The keys of %s are renewed again", self._place.issuer)
        self._fetched_at = self._now()
        self._failing_since = None
        self._last_error = None if fetched.keys.keys else _without_keys(fetched)
        # The same set stays the same object: remembered tokens are tied to it, and need no second verification.
        if fetched.keys != self._keys:
            self._keys = fetched.keys
            logger.info("The keys of %s changed: %d can be used", self._place.issuer, len(fetched.keys.keys))
            if not fetched.keys.keys:
                logger.warning("No key of %s can be used: %s", self._place.issuer, self._last_error)


def _without_keys(fetched: Fetched) -> str:
    return "; ".join(("key set holds no usable key", *fetched.unusable))
