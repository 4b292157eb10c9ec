"""API keys on record: made, rotated, ended, and when each was last used.

It decides which keys run and how many a customer may have. Whatever changes what a key may do raises its customer's
version (see changes.py), so that every process forgets what it knew of it; being used does not. It must never hold a
key: `digest` is what `policies.api_key` makes of one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from admin.ledger.changes import bump
from admin.ledger.sql import in_batches
from admin.ledger.tables import api_keys, customers
from policies.api_key import KeyRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from admin.ledger.engine import Database
    from admin.ledger.meta import Meta

MOST_RUNNING: Final = 50
"""Keys of one customer that run at a time: their own endpoint makes them, so nobody else keeps it from a million."""

MOST_ENDED: Final = 200
"""Ended keys of one customer that stay on record, the youngest."""

_HASH_KEY: Final = "api_key_hash_key"


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key as people see it. Times are UTC seconds."""

    id: str
    customer: str
    name: str
    scopes: tuple[str, ...] | None
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    revoked_by: str | None
    replaced_by: str | None
    last_used_at: int | None

    def runs(self, now: float) -> bool:
        """Whether it is good for anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a new key's row says of the key itself."""

    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Written:
    """It is committed; `version` is the customer's now."""

    line: KeyLine
    version: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Keys that were revoked. `version` is None when there was none, and nothing changed."""

    count: int
    version: int | None


@dataclass(frozen=True, slots=True)
class TooMany:
    """The customer has as many running keys as one may have."""


@dataclass(frozen=True, slots=True)
class NotRunning:
    """There is no such key, or it has ended, or been replaced already."""


_LINE: Final = tuple(api_keys.c[name] for name in KeyLine.__slots__)
_RECORD: Final = (
    select(*(api_keys.c[name] for name in KeyRecord.__slots__ if name != "version"), customers.c.version)
    .join(customers, customers.c.customer == api_keys.c.customer)
    .where(api_keys.c.id.in_(bindparam("ids", expanding=True)))
)


class ApiKeys:
    """Every key of this ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, ids: Sequence[str]) -> dict[str, KeyRecord]:
        """The records of these, in one snapshot with their customers' versions."""
        found: dict[str, KeyRecord] = {}
        async with self._database.read() as connection:
            for some in in_batches(ids):
                for row in await connection.execute(_RECORD, {"ids": list(some)}):
                    fields = row._asdict()
                    found[row.id] = KeyRecord(**{**fields, "scopes": _scopes(row.scopes)})
        return found

    async def keys_of(self, customer: str) -> list[KeyLine]:
        """The customer's keys, the youngest first, ended ones too."""
        query = select(*_LINE).where(api_keys.c.customer == customer)
        query = query.order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        async with self._database.read() as connection:
            return [_line(row) for row in await connection.execute(query)]

    async def show(self, key_id: str) -> KeyLine | None:
        """One key."""
        async with self._database.read() as connection:
            return await _show(connection, key_id)

    async def create(
        self,
        customer: str,
        key: NewKey,
        *,
        name: str,
        scopes: tuple[str, ...] | None,
        expires_at: int | None,
        by: str,
        now: float,
    ) -> Written | TooMany:
        """Put a new key on record."""
        line = KeyLine(key.id, customer, name, scopes, int(now), by, expires_at, None, None, None, None)
        async with self._database.write() as connection:
            version = await bump(connection, customer, now)
            if await _running_count(connection, customer, now) >= MOST_RUNNING:
                return TooMany()
            await _insert(connection, line, key.digest)
            await _forget_ended(connection, customer, now)
            return Written(line, version)

    async def rotate(
        self, key_id: str, key: NewKey, *, old_until: int, by: str, now: float
    ) -> Written | NotRunning | TooMany:
        """A new key with the old one's name, scopes and lifetime; the old one ends at `old_until`, or sooner as planned.

        A key is rotated once: who does it twice has lost track of which one is in use.
        """
        async with self._database.write() as connection:
            seen = await _show(connection, key_id)
            if seen is None or not seen.runs(now) or seen.replaced_by is not None:
                return NotRunning()
            version = await bump(connection, seen.customer, now)
            # Read again behind the customer's lock: somebody may have rotated or ended it meanwhile.
            old = await _show(connection, key_id)
            if old is None or not old.runs(now) or old.replaced_by is not None:
                return NotRunning()
            end = old_until if old.expires_at is None else min(old.expires_at, old_until)
            if end > now and await _running_count(connection, old.customer, now) >= MOST_RUNNING:
                return TooMany()
            expires_at = None if old.expires_at is None else int(now) + old.expires_at - old.created_at
            line = KeyLine(key.id, old.customer, old.name, old.scopes, int(now), by, expires_at, None, None, None, None)
            await _insert(connection, line, key.digest)
            changed = update(api_keys).where(api_keys.c.id == key_id).values(expires_at=end, replaced_by=key.id)
            await connection.execute(changed)
            await _forget_ended(connection, old.customer, now)
            return Written(line, version)

    async def revoke(self, key_id: str, *, by: str, now: float) -> Ended:
        """End this key at once, if it runs. It stays on record."""
        return await self._revoke(api_keys.c.id == key_id, by, now)

    async def revoke_all(self, customer: str, *, by: str, now: float) -> Ended:
        """End every running key of the customer at once."""
        return await self._revoke(api_keys.c.customer == customer, by, now)

    async def _revoke(self, which: ColumnElement[bool], by: str, now: float) -> Ended:
        running = which & _runs(now)
        async with self._database.write() as connection:
            owner = (await connection.execute(select(api_keys.c.customer).where(running).limit(1))).scalar_one_or_none()
            if owner is None:
                return Ended(0, None)
            version = await bump(connection, owner, now)
            ended = update(api_keys).where(running).values(revoked_at=int(now), revoked_by=by)
            return Ended((await connection.execute(ended)).rowcount, version)

    async def touch(self, used: Mapping[str, int], seconds: int) -> None:
        """When keys were last used, where that is news by at least `seconds`. Nobody is told: it changes nothing."""
        newer = update(api_keys).where(
            api_keys.c.id == bindparam("key_id"),
            or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= bindparam("at") - seconds),
        )
        newer = newer.values(last_used_at=bindparam("at"))
        # In one order everywhere, so that two processes never wait for each other's rows.
        rows = [{"key_id": key_id, "at": used[key_id]} for key_id in sorted(used)]
        async with self._database.write() as connection:
            await connection.execute(newer, rows)


async def hash_key(meta: Meta) -> bytes:
    """What keys are hashed with: made once and kept, since whoever changes it ends every key.

    Not derived from `server.signing_key`: rolling that one must end payment links and nothing else.
    """
    return bytes.fromhex(await meta.get_or_make(_HASH_KEY, lambda: secrets.token_hex(32)))


def _runs(now: float) -> ColumnElement[bool]:
    unexpired = api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > int(now))
    return api_keys.c.revoked_at.is_(None) & unexpired


async def _running_count(connection: AsyncConnection, customer: str, now: float) -> int:
    query = select(func.count()).select_from(api_keys).where(api_keys.c.customer == customer, _runs(now))
    count: int = (await connection.execute(query)).scalar_one()
    return count


async def _show(connection: AsyncConnection, key_id: str) -> KeyLine | None:
    row = (await connection.execute(select(*_LINE).where(api_keys.c.id == key_id))).first()
    return None if row is None else _line(row)


async def _insert(connection: AsyncConnection, line: KeyLine, digest: str) -> None:
    fields = {name: getattr(line, name) for name in KeyLine.__slots__}
    fields["scopes"] = None if line.scopes is None else " ".join(line.scopes)
    await connection.execute(insert(api_keys).values(**fields, digest=digest))


async def _forget_ended(connection: AsyncConnection, customer: str, now: float) -> None:
    own = api_keys.c.customer == customer
    oldest = select(api_keys.c.id).where(own, ~_runs(now)).order_by(api_keys.c.created_at.desc(), api_keys.c.id)
    await connection.execute(delete(api_keys).where(api_keys.c.id.in_(oldest.offset(MOST_ENDED).scalar_subquery())))


def _line(row: Any) -> KeyLine:
    fields = row._asdict()
    return KeyLine(**{**fields, "scopes": _scopes(row.scopes)})


def _scopes(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split(" "))
