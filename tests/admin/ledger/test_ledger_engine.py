from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg import conninfo
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError

from admin.ledger.engine import Database, LedgerDownError, normalise_url, without_secrets
from admin.ledger.meta import Meta
from admin.ledger.opening import LedgerUnavailable, open_database
from tests.support.ledgers import fresh_postgres, fresh_sqlite, opened
from tests.support.postgres import shared_postgres
from tests.support.relay import Relay


def test_a_relative_sqlite_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = normalise_url("sqlite:///gateway.db")
    assert (url.drivername, url.database) == ("sqlite+aiosqlite", str(tmp_path / "gateway.db"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_spelling_of_postgresql_is_understood(scheme: str) -> None:
    url = normalise_url(f"{scheme}://ann:p%40ss@db.example:5433/gate?sslmode=require")
    assert (url.drivername, url.password, url.port, url.database) == ("postgresql+psycopg", "p@ss", 5433, "gate")


async def test_a_write_does_not_wait_behind_a_crowd_of_readers(tmp_path: Path) -> None:
    """Ten thousand strangers at once are as many lookups: a webhook is stored meanwhile, and calls to Stripe are let out."""
    database = await opened(fresh_sqlite(tmp_path))
    meta, leave = Meta(database), asyncio.Event()
    reading = 0

    async def linger() -> None:
        nonlocal reading
        with suppress(LedgerDownError):  # those behind the first eight come to nothing
            async with database.read(30) as connection:
                await connection.execute(text("SELECT 1"))
                reading += 1
                await leave.wait()

    crowd = [asyncio.create_task(linger()) for _ in range(40)]
    async with asyncio.timeout(30):
        while reading < 8:  # noqa: ASYNC110 -- nobody announces it
            await asyncio.sleep(0.005)
    async with database.write(
        1.5
    ) as connection:  # less than the two seconds after which a reader's place would be given up
        await connection.execute(text("INSERT INTO meta (key, value) VALUES ('written', 'meanwhile')"))
    assert reading == 8
    leave.set()
    await asyncio.gather(*crowd)
    assert await meta.get("written") == "meanwhile"
    await database.dispose()


@pytest.mark.parametrize("url", ["mysql://a:s3cret@b/c", "s3cret", "", "sqlite://", "sqlite:///:memory:", "//s3cret@x"])
async def test_a_url_of_another_kind_is_refused_in_a_sentence_that_quotes_no_secret(url: str) -> None:
    refused = await open_database(url)
    assert isinstance(refused, LedgerUnavailable)
    assert refused.detail[0].isupper()
    assert refused.detail.endswith(".")
    assert "s3cret" not in refused.detail


@pytest.mark.parametrize("password", ["a", "postgres", "connection", "127", "refused", "localhost"])
async def test_a_password_that_is_a_common_word_leaves_the_sentence_whole(password: str) -> None:
    plain, worded = [
        await open_database(f"postgresql://postgres{userinfo}@127.0.0.1:1/postgres")
        for userinfo in ("", f":{password}")
    ]
    assert isinstance(plain, LedgerUnavailable)
    assert worded == plain
    assert "PostgreSQL at 127.0.0.1:1 (database postgres) can't be used: connection" in plain.detail


@pytest.mark.parametrize(
    "password", ["a", "postgres", "hunter2", "p@ss word", "it's", 'a"b', "c0rrect-horse", "ab\\'c"]
)
@pytest.mark.parametrize(
    "said",
    [
        "can't reach postgresql://ann:{raw}@db/x or postgresql://ann:{quoted}@db/x, sorry",
        "invalid: postgresql://ann:{quoted}@db/x?sslpassword={quoted}",
        "host=db password={libpq} user=ann",
        "host=db sslpassword = {libpq} user=ann",
    ],
)
def test_a_password_is_masked_in_every_place_that_is_one(password: str, said: str) -> None:
    url = make_url("postgresql://ann@db/x").set(password=password)
    libpq = conninfo.make_conninfo(password=password).partition("=")[2]
    text = said.format(raw=password, quoted=quote(password, safe=""), libpq=libpq)
    masked = without_secrets(url, text)
    assert masked == said.replace("ann:{raw}", "***").replace("ann:{quoted}", "***").format(quoted="***", libpq="***")


def test_a_password_that_stands_out_is_masked_wherever_it_stands() -> None:
    url = make_url("postgresql://ann@db/x").set(password="c0rrect/horse")
    text = 'unexpected "c0rrect/horse" and "c0rrect%2Fhorse" in it'
    assert without_secrets(url, text) == 'unexpected "***" and "***" in it'
    same = make_url("postgresql://postgres-1@db/x").set(password="postgres-1")
    assert without_secrets(same, 'for user "postgres-1"') == 'for user "postgres-1"'


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    refused = await open_database(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}")
    assert refused == LedgerUnavailable(f"The ledger can't be made: there is no directory {tmp_path / 'nowhere'}.")


async def test_a_directory_is_no_ledger(tmp_path: Path) -> None:
    refused = await open_database(f"sqlite:///{tmp_path}")
    assert isinstance(refused, LedgerUnavailable)
    assert "is a directory" in refused.detail


async def test_a_place_that_cannot_be_written_is_named() -> None:
    refused = await open_database("sqlite:////proc/ledger.db")
    assert isinstance(refused, LedgerUnavailable)
    assert "can't be written" in refused.detail


async def test_a_file_of_another_kind_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_bytes(b"these are notes\n" * 1000)
    refused = await open_database(f"sqlite:///{file}")
    assert refused == LedgerUnavailable(f"The ledger {file} can't be used: file is not a database.")
    assert file.read_bytes() == b"these are notes\n" * 1000


async def test_a_port_where_nobody_listens_is_named_without_the_password() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    refused = await open_database(f"postgresql://ann:s3cret@127.0.0.1:{port}/gate")
    assert isinstance(refused, LedgerUnavailable)
    assert f"PostgreSQL at 127.0.0.1:{port} (database gate) can't be used" in refused.detail
    assert "refused" in refused.detail
    assert "s3cret" not in refused.detail


async def test_a_server_that_accepts_and_never_answers_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        async with asyncio.timeout(60):
            refused = await open_database(f"postgresql://ann:s3cret@127.0.0.1:{port}/gate")
    assert isinstance(refused, LedgerUnavailable)
    assert "s3cret" not in refused.detail


@pytest.mark.postgres
async def test_a_database_that_is_not_there_is_named() -> None:
    url = make_url(shared_postgres().url).set(database="nothing_here").render_as_string(hide_password=False)
    refused = await open_database(url)
    assert isinstance(refused, LedgerUnavailable)
    assert 'database "nothing_here" does not exist' in refused.detail


@pytest.mark.postgres
async def test_a_wrong_password_is_said_and_not_shown() -> None:
    with shared_postgres().fresh_database() as url:
        # The server of the tests lets everybody in; a role that may not log in is refused at the same point.
        refused = await open_database(make_url(url).set(username="ann", password="s3cret").render_as_string(False))
    assert isinstance(refused, LedgerUnavailable)
    assert "ann" in refused.detail
    assert "s3cret" not in refused.detail


async def test_nothing_of_a_failed_transaction_remains(database: Database) -> None:
    with pytest.raises(RuntimeError, match="midway"):  # noqa: PT012 -- the block is the transaction
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO meta (key, value) VALUES ('a', 'b')"))
            raise RuntimeError("midway")
    assert await Meta(database).get("a") is None


async def test_a_cancelled_transaction_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    inside = asyncio.Event()

    async def hang() -> None:
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO meta (key, value) VALUES ('a', 'b')"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await Meta(database).set("c", "d")
    assert await Meta(database).get("a") is None


async def test_a_read_can_write_nothing_on_postgres_and_sees_one_snapshot_on_both(database: Database) -> None:
    meta = Meta(database)
    await meta.set("a", "before")
    async with database.read() as connection:
        query = text("SELECT value FROM meta WHERE key = 'a'")
        assert (await connection.execute(query)).scalar_one() == "before"
        await meta.set("a", "after")
        assert (await connection.execute(query)).scalar_one() == "before"
    assert await meta.get("a") == "after"


async def test_a_broken_rule_of_the_schema_is_no_outage(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO meta (key) VALUES ('a')"))


async def test_an_error_shows_no_parameter(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught:
        async with database.write() as connection:
            await connection.execute(
                text("INSERT INTO meta (key, value) VALUES (:key, NULL)"), {"key": "signing_key_s3cret"}
            )
    assert "s3cret" not in repr(caught.value).replace("s3cret, null", "")


async def test_a_block_that_outlasts_its_time_is_an_outage_and_writes_nothing(database: Database) -> None:
    with pytest.raises(LedgerDownError):  # noqa: PT012 -- the block is the transaction
        async with database.write(seconds=0.2) as connection:
            await connection.execute(text("INSERT INTO meta (key, value) VALUES ('a', 'b')"))
            await asyncio.sleep(0.5)
            await connection.execute(text("SELECT 1"))
    assert await Meta(database).get("a") is None


async def test_many_readers_and_writers_at_once_all_come_through(database: Database) -> None:
    meta = Meta(database)
    await asyncio.gather(*(meta.set(f"key_{n}", str(n)) for n in range(30)), *(meta.get(f"key_{n}") for n in range(30)))
    assert [await meta.get(f"key_{n}") for n in range(30)] == [str(n) for n in range(30)]


async def test_a_sqlite_commit_is_on_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    database = await opened(f"sqlite:///{tmp_path / 'x.db'}")
    async with database.write() as connection:
        pragmas = [(await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in _PRAGMAS]
    await database.dispose()
    assert dict(zip(_PRAGMAS, pragmas, strict=True)) == _PRAGMAS


_PRAGMAS = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}


@pytest.mark.postgres
async def test_a_postgres_session_is_durable_and_bounded_whatever_the_servers_defaults_are() -> None:
    with fresh_postgres() as url:
        options = "-c synchronous_commit=off -c statement_timeout=0"
        database = await opened(make_url(url).update_query_dict({"options": options}).render_as_string(False))
        async with database.write() as connection:
            shown = [(await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in _SETTINGS]
        await database.dispose()
    assert dict(zip(_SETTINGS, shown, strict=True)) == _SETTINGS


_SETTINGS = {
    "synchronous_commit": "on",
    "statement_timeout": "8s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
}


@pytest.mark.postgres
async def test_a_network_that_swallows_everything_is_an_outage_and_its_end_is_noticed() -> None:
    with fresh_postgres() as url:
        relay = Relay(url)
        async with relay.running() as port, asyncio.timeout(90):
            database = await opened(relay.url(port))
            meta = Meta(database)
            await meta.set("a", "b")
            relay.open.clear()
            with pytest.raises(LedgerDownError):
                await meta.get("a")  # on a pooled session
            with pytest.raises(LedgerDownError):
                await asyncio.gather(*(meta.get("a") for _ in range(3)))  # on new ones, too
            relay.open.set()
            assert await meta.get("a") == "b"
            with pytest.raises(LedgerDownError):  # noqa: PT012 -- the block is the transaction
                async with database.write(seconds=1) as connection:
                    await connection.execute(text("INSERT INTO meta (key, value) VALUES ('c', 'd')"))
                    relay.open.clear()  # and so its COMMIT arrives nowhere
            relay.open.set()
            await database.dispose()


async def test_a_write_that_was_cut_off_keeps_nobody_from_writing(database: Database) -> None:
    """At any point: before its first statement, between two, within one."""
    meta = Meta(database)
    gc.disable()  # a cursor that waits for the collector must not hold the lock
    try:
        for turns in range(40):
            writing = asyncio.create_task(_write_slowly(database, f"cut-{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            async with asyncio.timeout(4):  # below the time for which SQLite waits for another's lock
                await meta.set("after", str(turns))
    finally:
        gc.enable()


async def _write_slowly(database: Database, key: str) -> None:
    async with database.write() as connection:
        for part in range(10):
            await connection.execute(text("INSERT INTO meta (key, value) VALUES (:key, 'x')"), {"key": f"{key}-{part}"})
            rows = await connection.execute(text("SELECT key FROM meta"))
            rows.fetchone()
