"""How the ledger is reached: one bounded transaction at a time, on SQLite or PostgreSQL.

It decides what a transaction is (`read` is one consistent snapshot, `write` takes its lock first), what durable means
(a webhook that was answered 2xx survives a power cut) and how long anybody waits. Nothing here may wait for ever on a
dead server, keep a transaction open over a network call, or let a password or a parameter into a message.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import psycopg
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from admin.ledger.postgres import postgres_engine, sever
from admin.ledger.sqlite import sqlite_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READ_SECONDS: Final = 2.0
WRITE_SECONDS: Final = 10.0

_MASK: Final = "***"
_USERINFO: Final = re.compile(r"(://)\S*(?=@)")
"""Up to the last '@': a password may hold one that should have been escaped."""

_SETTING: Final = re.compile(r"((?:ssl)?password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)+)", re.IGNORECASE)
_STANDS_OUT: Final = 8
"""Characters of which one at least is no letter: shorter ones, and words, stand in sentences that don't mean them."""


class LedgerDownError(Exception):
    """SQL could not be reached or did not answer in time. Of a write, it is not known whether it was committed."""


class Database:
    """The ledger's database. `read` and `write` are its whole interface; `dispose` closes what is idle."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            # Writes are one at a time, and have connections of their own: behind a crowd of readers a webhook would wait to
            # be stored, and whoever asks for a call to Stripe for its turn.
            self._base, writes = sqlite_engine(url), sqlite_engine(url)
            self._reader = self._base
            self._writer = writes.execution_options(ledger_begin="BEGIN IMMEDIATE")
            self._engines: tuple[AsyncEngine, ...] = (self._base, writes)
        else:
            self._base = postgres_engine(url)
            self._reader = self._base.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writer = self._base
            self._engines = (self._base,)
        # SQLite lets one write at a time, and its waiting is polling without order; within the process we queue.
        self._turn = asyncio.Lock()
        self._abandoned: set[asyncio.Future[Any]] = set()

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string(hide_password=True)})"

    @asynccontextmanager
    async def read(self, seconds: float = READ_SECONDS) -> AsyncIterator[AsyncConnection]:
        """One consistent snapshot, read only. Raises LedgerDownError after `seconds` at the latest."""
        async with self._translated(), self._transaction(self._reader, seconds) as connection:
            yield connection

    @asynccontextmanager
    async def write(self, seconds: float = WRITE_SECONDS) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed when the block ends well and durable from then on."""
        async with self._translated():
            if not self.is_sqlite:
                async with self._transaction(self._writer, seconds) as connection:
                    yield connection
                return
            async with asyncio.timeout(seconds), self._turn, self._transaction(self._writer, seconds) as connection:
                yield connection

    async def dispose(self) -> None:
        """Close every idle connection, and let those that were given up come to their end."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=READ_SECONDS)
        for engine in self._engines:
            await engine.dispose()

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (IntegrityError, DataError, ProgrammingError):
            raise
        except (DBAPIError, PoolTimeoutError, psycopg.Error, TimeoutError, OSError) as error:
            raise LedgerDownError(without_secrets(self.url, first_line(error) or "no answer in time")) from error

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine, seconds: float) -> AsyncIterator[AsyncConnection]:
        if self.is_sqlite:
            async with asyncio.timeout(seconds), engine.connect() as connection, connection.begin():
                yield connection
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        connection = await self._started(engine.connect(), seconds)
        async with AsyncExitStack() as ending:
            driver = (await connection.get_raw_connection()).driver_connection
            ending.callback(loop.call_at(deadline, sever, driver).cancel)
            ending.push_async_exit(connection.__aexit__)  # which closes it, also when cancelled meanwhile
            async with connection.begin():
                yield connection

    async def _started(self, connection: AsyncConnection, seconds: float) -> AsyncConnection:
        """`connection`, once it has a session; one that takes too long is left to end by itself."""
        starting = asyncio.ensure_future(_start(connection))
        is_wanted = False
        try:
            await asyncio.wait({starting}, timeout=seconds)
            is_wanted = starting.done()
        finally:
            # Also one that came in the very turn in which its taker was cancelled: nobody else would close it.
            if not is_wanted:
                starting.cancel()
                self._abandoned.add(starting)
                starting.add_done_callback(self._forget)
        if not is_wanted:
            raise TimeoutError("no connection in time")
        return starting.result()

    def _forget(self, starting: asyncio.Future[AsyncConnection]) -> None:
        self._abandoned.discard(starting)
        if not starting.cancelled() and starting.exception() is None:
            closing = asyncio.ensure_future(starting.result().close())
            self._abandoned.add(closing)
            closing.add_done_callback(self._abandoned.discard)


async def _start(connection: AsyncConnection) -> AsyncConnection:
    return await connection.start()


def normalise_url(url: str) -> URL:
    """The URL with its asyncio driver, a SQLite path made absolute. Raises ValueError with a sentence on any other."""
    try:
        parsed = make_url(url.strip())
    except Exception as error:  # whatever the parser trips over, its message might quote the password
        raise ValueError("the database URL can't be read; write sqlite:///gateway.db or postgresql://…") from error
    name = parsed.drivername
    if name in ("sqlite", "sqlite+aiosqlite"):
        if parsed.database in (None, "", ":memory:") or "mode=memory" in url:
            raise ValueError("a SQLite ledger must be a file: other processes follow it; write sqlite:///gateway.db")
        return parsed.set(drivername="sqlite+aiosqlite", database=os.path.abspath(str(parsed.database)))  # noqa: PTH100
    if name in ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg_async"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ValueError(f"the ledger can't live in {name!r}; write sqlite:///gateway.db or postgresql://…")


def first_line(error: BaseException) -> str:
    """The driver's own words, without SQLAlchemy's links and statements."""
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    return lines[0] if lines else ""


def without_secrets(url: URL, text: str) -> str:
    """`text` without the passwords of `url`: masked where a URL or a connection string holds one, and where one stands out.

    A password that is a word of the sentence, such as the user's name, is told by nothing there, and a mask in its place
    would be what tells it.
    """
    secrets = [str(one) for one in (url.password, *map(url.query.get, ("password", "sslpassword"))) if one]
    for spelled in (form for secret in secrets for form in (secret, quote(secret, safe=""))):
        text = text.replace(f":{spelled}@", f":{_MASK}@")  # also one with a blank, at which a URL in a sentence ends
    for place in (_USERINFO, _SETTING):
        text = place.sub(rf"\g<1>{_MASK}", text)
    plain = {str(word) for word in (url.username, url.host, url.database, url.query.get("host")) if word}
    for secret in secrets:
        if len(secret) >= _STANDS_OUT and not secret.isalpha() and not any(secret in word for word in plain):
            text = text.replace(secret, _MASK).replace(quote(secret, safe=""), _MASK)
    return text
