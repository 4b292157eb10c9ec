"""API keys on record, on both databases: what runs, what ended, and who is told."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import select

from admin.ledger import api_keys as ledger_keys
from admin.ledger.api_keys import ApiKeys, Ended, NewKey, NotRunning, TooMany, Written, hash_key
from admin.ledger.changes import bump
from admin.ledger.meta import Meta
from admin.ledger.tables import api_keys, changes
from policies.api_key import digest_of, make_key

if TYPE_CHECKING:
    import pytest

    from admin.ledger.engine import Database

NOW = 1_800_000_000.0
DAY = 86_400


def new() -> NewKey:
    key = make_key(secrets.randbelow)
    return NewKey(key.id, digest_of(b"k", key.text.encode()))


async def made(keys: ApiKeys, customer: str = "alice", expires_at: int | None = None, now: float = NOW) -> Written:
    written = await keys.create(
        customer, new(), name="ci", scopes=("a", "b:c"), expires_at=expires_at, by="test", now=now
    )
    assert isinstance(written, Written)
    return written


async def changes_of(database: Database, customer: str) -> list[int]:
    async with database.read() as connection:
        query = select(changes.c.version).where(changes.c.customer == customer).order_by(changes.c.id)
        return list((await connection.execute(query)).scalars())


async def test_a_key_is_found_by_its_id_with_its_customers_version(database: Database) -> None:
    keys = ApiKeys(database)
    written = await made(keys, expires_at=int(NOW) + DAY)
    other = await made(keys, "bob")
    found = await keys.read([written.line.id, "nobody", other.line.id])
    assert set(found) == {written.line.id, other.line.id}
    record = found[written.line.id]
    assert (record.customer, record.scopes, record.expires_at) == ("alice", ("a", "b:c"), int(NOW) + DAY)
    assert record.version == written.version == (await changes_of(database, "alice"))[-1]
    assert await keys.read([]) == {}
    async with database.write() as connection:
        version = await bump(connection, "alice", NOW + 5)
    assert (await keys.read([written.line.id]))[written.line.id].version == version


async def test_thousands_are_read_at_once(database: Database) -> None:
    keys = ApiKeys(database)
    written = await made(keys)
    assert set(await keys.read([*(f"x{number}" for number in range(1200)), written.line.id])) == {written.line.id}


async def test_a_revoked_key_stays_on_record_and_everybody_is_told_once(database: Database) -> None:
    keys = ApiKeys(database)
    first, second = await made(keys), await made(keys)
    ended = await keys.revoke(first.line.id, by="op", now=NOW + 1)
    assert ended.count == 1
    assert await changes_of(database, "alice") == [first.version, second.version, ended.version]
    assert await keys.revoke(first.line.id, by="op", now=NOW + 2) == Ended(0, None)
    assert await keys.revoke("nothing", by="op", now=NOW + 2) == Ended(0, None)
    assert len(await changes_of(database, "alice")) == 3
    line = await keys.show(first.line.id)
    assert line is not None
    assert (line.revoked_at, line.revoked_by, line.runs(NOW + 3)) == (int(NOW) + 1, "op", False)
    still = await keys.show(second.line.id)
    assert still is not None
    assert still.runs(NOW + 3)


async def test_all_keys_of_a_customer_end_together_and_nobody_elses(database: Database) -> None:
    keys = ApiKeys(database)
    await made(keys)
    await made(keys)
    expired = await made(keys, expires_at=int(NOW) + 1)
    bobs = await made(keys, "bob")
    assert (await keys.revoke_all("alice", by="op", now=NOW + 10)).count == 2
    assert (await keys.revoke_all("alice", by="op", now=NOW + 10)).count == 0
    assert (await keys.revoke_all("nobody", by="op", now=NOW)).count == 0
    bob = await keys.show(bobs.line.id)
    assert bob is not None
    assert bob.runs(NOW + 10)
    untouched = await keys.show(expired.line.id)
    assert untouched is not None
    assert untouched.revoked_at is None


async def test_rotation_overlaps_and_hands_on_name_scopes_and_lifetime(database: Database) -> None:
    keys = ApiKeys(database)
    old = await made(keys, expires_at=int(NOW) + 90 * DAY)
    later = NOW + 10 * DAY
    rotated = await keys.rotate(old.line.id, new(), old_until=int(later) + DAY, by="op", now=later)
    assert isinstance(rotated, Written)
    assert (rotated.line.name, rotated.line.scopes) == ("ci", ("a", "b:c"))
    assert rotated.line.expires_at == int(later) + 90 * DAY
    before = await keys.show(old.line.id)
    assert before is not None
    assert (before.expires_at, before.replaced_by) == (int(later) + DAY, rotated.line.id)
    assert before.runs(later)
    assert not before.runs(later + DAY)
    assert (await changes_of(database, "alice"))[-1] == rotated.version


async def test_rotation_never_prolongs_the_old_key(database: Database) -> None:
    keys = ApiKeys(database)
    old = await made(keys, expires_at=int(NOW) + 60)
    assert isinstance(await keys.rotate(old.line.id, new(), old_until=int(NOW) + DAY, by="op", now=NOW), Written)
    before = await keys.show(old.line.id)
    assert before is not None
    assert before.expires_at == int(NOW) + 60


async def test_only_a_running_key_is_rotated_and_only_once(database: Database) -> None:
    keys = ApiKeys(database)
    old, revoked, expired = await made(keys), await made(keys), await made(keys, expires_at=int(NOW) + 1)
    await keys.revoke(revoked.line.id, by="op", now=NOW)
    outcomes = await asyncio.gather(
        *(keys.rotate(old.line.id, new(), old_until=int(NOW) + DAY, by="op", now=NOW) for _ in range(4))
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotRunning"] * 3 + ["Written"]
    for key_id in (old.line.id, revoked.line.id, expired.line.id, "nothing"):
        assert await keys.rotate(key_id, new(), old_until=int(NOW) + DAY, by="op", now=NOW + 2) == NotRunning()
    assert len(await keys.keys_of("alice")) == 4


async def test_nobody_has_more_running_keys_than_one_may_have(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_keys, "MOST_RUNNING", 3)
    keys = ApiKeys(database)

    async def another(number: int) -> Written | TooMany:
        return await keys.create("alice", new(), name=str(number), scopes=None, expires_at=None, by="x", now=NOW)

    outcomes = await asyncio.gather(*(another(number) for number in range(6)))
    assert sum(isinstance(outcome, Written) for outcome in outcomes) == 3
    one = (await keys.keys_of("alice"))[0]
    assert await keys.rotate(one.id, new(), old_until=int(NOW) + DAY, by="x", now=NOW) == TooMany()
    at_once = await keys.rotate(one.id, new(), old_until=int(NOW), by="x", now=NOW)
    assert isinstance(at_once, Written)
    await keys.revoke(at_once.line.id, by="x", now=NOW)
    assert isinstance(await another(7), Written)


async def test_of_ended_keys_the_youngest_stay_on_record(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_keys, "MOST_ENDED", 2)
    keys = ApiKeys(database)
    runs = await made(keys, now=NOW - 100)
    bobs = await made(keys, "bob", now=NOW - 100)
    await keys.revoke(bobs.line.id, by="x", now=NOW)
    for number in range(5):
        ended = await made(keys, now=NOW + number)
        await keys.revoke(ended.line.id, by="x", now=NOW + number)
    last = await made(keys, now=NOW + 9)
    lines = await keys.keys_of("alice")
    assert [line.created_at - int(NOW) for line in lines] == [9, 4, 3, -100]
    assert {lines[0].id, lines[-1].id} == {last.line.id, runs.line.id}
    assert len(await keys.keys_of("bob")) == 1


async def test_being_used_is_written_coarsely_and_tells_nobody(database: Database) -> None:
    keys = ApiKeys(database)
    one, two = await made(keys), await made(keys)
    told = await changes_of(database, "alice")
    await keys.touch({one.line.id: 1000, two.line.id: 1000, "gone": 1000}, 300)
    await keys.touch({one.line.id: 1299, two.line.id: 1300}, 300)
    await keys.touch({two.line.id: 900}, 300)
    seen = {line.id: line.last_used_at for line in await keys.keys_of("alice")}
    assert seen == {one.line.id: 1000, two.line.id: 1300}
    assert await changes_of(database, "alice") == told


async def test_no_column_holds_anything_that_a_key_could_be_made_of(database: Database) -> None:
    keys = ApiKeys(database)
    key = make_key(secrets.randbelow)
    digest = digest_of(await hash_key(Meta(database)), key.text.encode())
    await keys.create("alice", NewKey(key.id, digest), name="n", scopes=None, expires_at=None, by="x", now=NOW)
    async with database.read() as connection:
        row = (await connection.execute(select(api_keys))).one()
    stored = "\n".join(str(value) for value in row)
    assert key.id in stored
    assert not any(key.text[at : at + 6] in stored for at in range(16, 48))
    assert digest not in repr((await keys.read([key.id]))[key.id])


async def test_the_hash_key_is_made_once_whoever_asks_first(database: Database) -> None:
    made_keys = await asyncio.gather(*(hash_key(Meta(database)) for _ in range(4)))
    assert len(set(made_keys)) == 1
    assert len(made_keys[0]) == 32
