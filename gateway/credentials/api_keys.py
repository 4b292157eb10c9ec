"""Whose an API key is: known again from memory at once, otherwise looked up in the ledger, many at a time.

It decides how long what the ledger said of a key is believed. Rules, as for entitlements (docs/design.md, section 7):

1. A remembered key serves as long as the ledger's changes are followed, because a revocation would have been heard of.
   While they aren't, it is confirmed with the ledger at most once a second, and when that is gone serves for `max_stale`.
2. A change that was heard of is never un-known: a record read before it is read again.
3. What can't be a key is refused without a lookup. What could be one and is unknown is remembered as such, briefly.
   Lookups under way are one query, whatever the number of keys: nobody hammers the ledger with made-up ones.
4. When nobody can say, the answer is a 503: never a 401 for a key that may be good, and never a free pass.

A key itself is never kept, logged or shown (P9): memory knows it by its keyed hash, which also is compared in constant time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from gateway.credentials.outcomes import Authenticated, Source, Unauthenticated, invalid
from gateway.entitlements.tasks import end
from policies.api_key import KEY_LENGTH, KeyRecord, digest_of, is_same_digest, key_id_of
from policies.caller import Caller
from policies.reasons import Reason

CONFIRM_SECONDS: Final = 1.0
"""While no change would be heard of, a key is confirmed this often at most; and asked about again when that failed."""

READ_SECONDS: Final = 1.5
"""Less than an authentication waits, so that who waits hears how it ended."""

BATCH: Final = 200
MOST_WAITING: Final = 2000
MOST_REFUSED: Final = 10_000
MOST_REMEMBERED: Final = 50_000
NOTE_SECONDS: Final = 300
"""How coarsely it is known when a key was last used."""

NO_END: Final = 2**53
"""When a key without an end expires, as a `Caller` has it."""

_LONG_AGO: Final = -sys.float_info.max
_NOWHERE: Final = Source("key", "")

_MALFORMED: Final = invalid("The API key is not one of this gateway's, or was cut off.")
_UNKNOWN: Final = invalid("The API key is not known here.")
_REVOKED: Final = invalid("The API key has been revoked.")
_EXPIRED: Final = Unauthenticated(
    Reason.TOKEN_EXPIRED, "The API key has expired; make a new one, or rotate it in time."
)
_UNAVAILABLE: Final = Unauthenticated(Reason.KEYS_UNAVAILABLE, "It can't be looked up right now whose API key this is.")

logger = logging.getLogger(__name__)
Read = Callable[[Sequence[str]], Awaitable[dict[str, KeyRecord]]]


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """How long and how much is remembered, in seconds and keys."""

    max_ttl: float = 3600.0
    max_stale: float = 3600.0
    negative_ttl: float = 5.0
    most_remembered: int = MOST_REMEMBERED
    most_refused: int = MOST_REFUSED
    most_waiting: int = MOST_WAITING


@dataclass(slots=True)
class _Remembered:
    """A key whose record is known. Moments are of the monotonic clock but `noted_at`, which is UTC seconds."""

    record: KeyRecord
    caller: Caller
    outcome: Authenticated
    read_at: float
    confirmed_at: float
    retry_at: float
    noted_at: float


@dataclass(frozen=True, slots=True)
class _Refused:
    """A key that is not known, or couldn't be looked up, and until when that is believed."""

    outcome: Unauthenticated
    until: float


@dataclass(slots=True, eq=False)
class _Flight:
    """A lookup under way or about to be; whoever sends the same key meanwhile waits for the same one."""

    key_id: str
    digest: str = field(repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def landed(self, timeout_seconds: float) -> None:
        """Return when it has ended, or when the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self.ended.wait()


class ApiKeys:
    """`now` is UTC seconds, `feed_healthy` says that every change committed until a moment ago was given to `changed`."""

    def __init__(
        self,
        read: Read,
        *,
        hash_key: bytes,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        feed_healthy: Callable[[], bool],
        bounds: KeyBounds | None = None,
    ) -> None:
        self._read = read
        self._hash_key = hash_key
        self._now = now
        self._monotonic = monotonic
        self._feed_healthy = feed_healthy
        self._bounds = bounds or KeyBounds()
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._of_customer: dict[str, set[str]] = {}
        self._refused: OrderedDict[str, _Refused] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._heard: dict[str, int] = {}
        self._working: asyncio.Task[None] | None = None
        self._unheard_at = _LONG_AGO
        self._followed_at = -math.inf
        self._used: dict[str, int] = {}

    def recognise(self, text: bytes, place: Source) -> Authenticated | Unauthenticated:
        """Whose this key is. Never waits; `awaited` is set when a lookup under way will tell."""
        if len(text) != KEY_LENGTH:
            return _MALFORMED
        digest = digest_of(self._hash_key, text)
        at = self._monotonic()
        known = self._remembered.get(digest)
        if known is not None:
            if self._serves(known, at):
                self._remembered.move_to_end(digest)
                return self._judge(known, place)
            return self._ask(known.record.id, digest)
        refused = self._refused.get(digest)
        if refused is not None and at < refused.until:
            return refused.outcome
        key_id = key_id_of(text)
        return _MALFORMED if key_id is None else self._ask(key_id, digest)

    def changed(self, customer: str, version: int) -> None:
        """From the changes feed, or from a commit of this process: the ledger holds `version` of `customer`."""
        if self._flights and version > self._heard.get(customer, -1):
            self._heard[customer] = version
        for digest in tuple(self._of_customer.get(customer, ())):
            if self._remembered[digest].record.version < version:
                self._forget(digest)

    def unconfirm_all(self) -> None:
        """Changes may have been missed: each remembered key must be confirmed before it serves again."""
        self._unheard_at = self._monotonic()

    def take_used(self) -> dict[str, int]:
        """Keys used since this was last asked, and when, coarsely. Whoever takes them writes them down."""
        used, self._used = self._used, {}
        return used

    def put_back(self, used: dict[str, int]) -> None:
        """They could not be written down: the next one to ask gets them again."""
        for key_id, at in used.items():
            if len(self._used) < self._bounds.most_remembered:
                self._used.setdefault(key_id, at)

    async def aclose(self) -> None:
        """End what is under way; who waits for it goes on without."""
        if self._working is not None:
            await end([self._working])
        for flight in self._flights.values():
            flight.ended.set()
        self._flights.clear()

    def _serves(self, known: _Remembered, at: float) -> bool:
        if self._feed_healthy():
            self._followed_at = at
            confirmed_since = self._unheard_at
        else:
            confirmed_since = max(self._unheard_at, at - CONFIRM_SECONDS)
        if known.confirmed_at > confirmed_since and at < known.read_at + self._bounds.max_ttl:
            return True
        return at < known.retry_at and self._outlasts_the_ledger(known, at)

    def _outlasts_the_ledger(self, known: _Remembered, at: float) -> bool:
        heard_of = known.confirmed_at > self._unheard_at
        known_at = max(known.read_at, self._followed_at) if heard_of else known.read_at
        return at < known_at + self._bounds.max_stale

    def _judge(self, known: _Remembered, place: Source) -> Authenticated | Unauthenticated:
        record, now = known.record, self._now()
        if record.revoked_at is not None:
            return _REVOKED
        if record.expires_at is not None and now >= record.expires_at:
            return _EXPIRED
        if now - known.noted_at >= NOTE_SECONDS:
            known.noted_at = now
            self._used[record.id] = int(now)
        outcome = known.outcome
        return outcome if outcome.source is place else Authenticated(known.caller, place)

    def _ask(self, key_id: str, digest: str) -> Unauthenticated:
        flight = self._flights.get(digest)
        if flight is None:
            if len(self._flights) >= self._bounds.most_waiting:
                return _UNAVAILABLE
            flight = self._flights[digest] = _Flight(key_id, digest)
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work_off())
        return Unauthenticated(_UNAVAILABLE.reason, _UNAVAILABLE.detail, flight)

    async def _work_off(self) -> None:
        while self._flights:
            await self._look_up(list(self._flights.values())[:BATCH])

    async def _look_up(self, flights: list[_Flight]) -> None:
        """One query for all of them. Those that a change overtook stay, for the next one."""
        self._heard = {}
        began = self._monotonic()
        found: dict[str, KeyRecord] | None = None
        try:
            async with asyncio.timeout(READ_SECONDS):
                found = await self._read(sorted({flight.key_id for flight in flights}))
        except Exception:
            # Whatever a driver raises: the ledger gave no answer. It never holds a key, only ids.
            logger.debug("ledger: a lookup of API keys failed", exc_info=True)
        for flight in flights:
            if found is None:
                self._found_nobody_to_ask(flight.digest)
            else:
                record = found.get(flight.key_id)
                if record is None or not is_same_digest(record.digest, flight.digest):
                    self._forget(flight.digest)
                    self._refuse(flight.digest, _UNKNOWN, self._bounds.negative_ttl)
                elif self._heard.get(record.customer, -1) > record.version:
                    continue
                else:
                    self._remember(flight.digest, record, began)
            del self._flights[flight.digest]
            flight.ended.set()

    def _found_nobody_to_ask(self, digest: str) -> None:
        known, at = self._remembered.get(digest), self._monotonic()
        if known is not None and self._outlasts_the_ledger(known, at):
            known.retry_at = at + CONFIRM_SECONDS
        else:
            self._forget(digest)
            self._refuse(digest, _UNAVAILABLE, CONFIRM_SECONDS)

    def _remember(self, digest: str, record: KeyRecord, read_at: float) -> None:
        self._forget(digest)
        self._refused.pop(digest, None)
        expires_at = NO_END if record.expires_at is None else record.expires_at
        caller = Caller(record.customer, "", expires_at, key_id=record.id, scopes=record.scopes)
        self._remembered[digest] = _Remembered(
            record=record,
            caller=caller,
            outcome=Authenticated(caller, _NOWHERE),
            read_at=read_at,
            confirmed_at=read_at,
            # Whoever waited for this reads it now, however long it took.
            retry_at=self._monotonic() + CONFIRM_SECONDS,
            noted_at=-math.inf if record.last_used_at is None else record.last_used_at,
        )
        self._of_customer.setdefault(record.customer, set()).add(digest)
        while len(self._remembered) > self._bounds.most_remembered:
            self._forget(next(iter(self._remembered)))

    def _forget(self, digest: str) -> None:
        known = self._remembered.pop(digest, None)
        if known is None:
            return
        of_customer = self._of_customer[known.record.customer]
        of_customer.discard(digest)
        if not of_customer:
            del self._of_customer[known.record.customer]

    def _refuse(self, digest: str, outcome: Unauthenticated, seconds: float) -> None:
        self._refused.pop(digest, None)
        self._refused[digest] = _Refused(outcome, self._monotonic() + seconds)
        while len(self._refused) > self._bounds.most_refused:
            self._refused.popitem(last=False)
