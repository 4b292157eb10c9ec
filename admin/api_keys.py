"""What is done with API keys, the same for their owner, the operator's API and the command line.

Every argument is checked here and comes back as a sentence when it is wrong. A key leaves here once, in `Made`, and is
kept by nobody. What is committed is in force everywhere within a second: the ledger's changes see to it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from admin.ledger.api_keys import MOST_RUNNING, ApiKeys, KeyLine, NewKey, NotRunning, TooMany
from admin.operations import LONGEST_NAME, Done, Malformed, Rejected, Unavailable, format_time, parse_until
from policies.api_key import (
    KEY_LENGTH,
    PREFIX,
    ApiKey,
    digest_of,
    is_key_id,
    key_id_of,
    make_key,
    scopes_problem,
    shown,
)
from policies.caller import customer_problem
from policies.units import parse_duration

DEFAULT_OVERLAP: Final = "24h"
LONGEST_OVERLAP_SECONDS: Final = 30 * 86_400

_OFF: Final = Unavailable("API keys are off: set auth.api_keys.enabled to true in gateway.yaml.")
_FULL: Final = Rejected(
    f"{MOST_RUNNING} keys of this customer are in force, and more are not given: revoke some first."
)


class KeyView(BaseModel):
    """One API key, without the key. Times are UTC seconds."""

    id: str
    customer: str
    name: str
    status: str
    scopes: list[str] | None
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    revoked_by: str | None
    replaced_by: str | None
    last_used_at: int | None


@dataclass(frozen=True, slots=True)
class Made:
    """A new key: `text` is the key itself, to be shown now and never again."""

    text: str = field(repr=False)
    view: KeyView


@dataclass(frozen=True, slots=True)
class NoSuchKey:
    """Nothing was done: there is no such key, or not one of whoever asks."""

    detail: str


class KeyOperations:
    """`now` is UTC seconds. `committed` is told of each customer's new version, so that this process knows at once."""

    def __init__(
        self,
        keys: ApiKeys,
        *,
        hash_key: Callable[[], Awaitable[bytes]],
        enabled: Callable[[], bool],
        now: Callable[[], float],
        committed: Callable[[str, int], None] = lambda _customer, _version: None,
        randbelow: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._keys = keys
        self._hash_key = hash_key
        self._enabled = enabled
        self._now = now
        self._committed = committed
        self._randbelow = randbelow

    @property
    def enabled(self) -> bool:
        """Whether keys are believed at all."""
        return self._enabled()

    async def keys_of(self, customer: str) -> list[KeyView]:
        """The customer's keys, the youngest first, ended ones too."""
        now = self._now()
        return [view(line, now) for line in await self._keys.keys_of(customer)]

    async def create(
        self, customer: str, *, name: str, expires: str | None, scopes: tuple[str, ...] | None, by: str
    ) -> Made | Rejected:
        """A new key. `expires` is a duration from now, a date, a UTC time, or None for without end."""
        problem = _problem(customer, name, scopes)
        if problem is not None:
            return Malformed(problem)
        if not self.enabled:
            return _OFF
        now = self._now()
        expires_at = None if expires is None else parse_until(expires, now)
        if isinstance(expires_at, Malformed):
            return expires_at
        key, new = await self._new()
        written = await self._keys.create(
            customer, new, name=name, scopes=scopes, expires_at=expires_at, by=by, now=now
        )
        if isinstance(written, TooMany):
            return _FULL
        self._committed(customer, written.version)
        return Made(key.text, view(written.line, now))

    async def rotate(
        self, key: str, *, overlap: str | None, by: str, owner: str | None = None
    ) -> Made | Rejected | NoSuchKey:
        """A new key like this one, which itself stays good for `overlap`. `owner`: only if it is theirs."""
        line = await self._find(key, owner)
        if isinstance(line, NoSuchKey):
            return line
        if not self.enabled:
            return _OFF
        try:
            seconds = parse_duration(overlap or DEFAULT_OVERLAP)
        except ValueError as error:
            return Malformed(f"The overlap {error}.")
        if seconds > LONGEST_OVERLAP_SECONDS:
            return Malformed("The overlap is longer than 30 days: two keys for that long is no rotation.")
        now = self._now()
        made, new = await self._new()
        written = await self._keys.rotate(line.id, new, old_until=int(now + seconds), by=by, now=now)
        if isinstance(written, TooMany):
            return _FULL
        if isinstance(written, NotRunning):
            replaced = f"replaced by {shown(line.replaced_by)} already" if line.replaced_by else "not in force any more"
            return Rejected(f"{shown(line.id)} is {replaced}, so it can't be rotated.")
        self._committed(line.customer, written.version)
        return Made(made.text, view(written.line, now))

    async def revoke(self, key: str, *, by: str, owner: str | None = None) -> Done | Rejected | NoSuchKey:
        """End one key at once. `owner`: only if it is theirs."""
        line = await self._find(key, owner)
        if isinstance(line, NoSuchKey):
            return line
        ended = await self._keys.revoke(line.id, by=by, now=self._now())
        if ended.version is None:
            return Rejected(f"{shown(line.id)} is not in force any more.")
        self._committed(line.customer, ended.version)
        return Done(f"{shown(line.id)} of {line.customer} is revoked.")

    async def revoke_all(self, customer: str, *, by: str) -> Done | Rejected:
        """End every key of a customer at once."""
        problem = _problem(customer, "", None)
        if problem is not None:
            return Malformed(problem)
        ended = await self._keys.revoke_all(customer, by=by, now=self._now())
        if ended.version is None:
            return Rejected(f"{customer} has no key that is in force.")
        self._committed(customer, ended.version)
        return Done(f"{ended.count} key{'s' if ended.count > 1 else ''} of {customer} revoked.")

    async def _new(self) -> tuple[ApiKey, NewKey]:
        key = make_key(self._randbelow)
        return key, NewKey(key.id, digest_of(await self._hash_key(), key.text.encode()))

    async def _find(self, text: str, owner: str | None) -> KeyLine | NoSuchKey:
        key_id = id_in(text)
        line = None if key_id is None else await self._keys.show(key_id)
        if key_id is None:
            return NoSuchKey(f"That is no id of a key: it looks like {PREFIX}7Hq2mXk0bTzE.")
        if line is None or owner not in {None, line.customer}:
            return NoSuchKey(f"There is no key {shown(key_id)}.")
        return line


def id_in(text: str) -> str | None:
    """The id in `gw_ID`, or in a whole key: whoever found one on the street may revoke it as it is."""
    if len(text) == KEY_LENGTH and text.isascii():
        return key_id_of(text.encode())
    key_id = text.removeprefix(PREFIX)
    return key_id if is_key_id(key_id) else None


def view(line: KeyLine, now: float) -> KeyView:
    """As people and programs see it."""
    status = "revoked" if line.revoked_at is not None else "active" if line.runs(now) else "expired"
    return KeyView(
        id=shown(line.id),
        customer=line.customer,
        name=line.name,
        status="rotated" if status == "active" and line.replaced_by is not None else status,
        scopes=None if line.scopes is None else list(line.scopes),
        created_at=line.created_at,
        created_by=line.created_by,
        expires_at=line.expires_at,
        revoked_at=line.revoked_at,
        revoked_by=line.revoked_by,
        replaced_by=None if line.replaced_by is None else shown(line.replaced_by),
        last_used_at=line.last_used_at,
    )


def ending(of: KeyView) -> str:
    """Until when it is good, for people."""
    return "without end" if of.expires_at is None else f"until {format_time(of.expires_at)}"


def _problem(customer: str, name: str, scopes: tuple[str, ...] | None) -> str | None:
    named = customer_problem(customer)
    if named is not None:
        return f"The customer's name {named}."
    if len(name) > LONGEST_NAME or not name.isprintable():
        return f"A key's name must be one printable line of at most {LONGEST_NAME} characters."
    problem = None if scopes is None else scopes_problem(scopes)
    return None if problem is None else f"The scopes {problem}."
