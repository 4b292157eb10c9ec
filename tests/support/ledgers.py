"""Fresh ledgers for tests, on SQLite and PostgreSQL, at the price of a copy: each is migrated once per session."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from admin.ledger.engine import Database
from admin.ledger.opening import open_database
from admin.ledger.schema import Upgraded, upgrade
from tests.support.postgres import shared_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


def fresh_sqlite(directory: Path) -> str:
    """The URL of a migrated ledger file in `directory`."""
    migrated_sqlite(directory / "ledger.db")
    return f"sqlite:///{directory / 'ledger.db'}"


def migrated_sqlite(path: Path) -> None:
    """Put a migrated ledger there."""
    shutil.copyfile(_migrated_file(), path)
    path.chmod(0o600)  # as one that was made there


@contextlib.contextmanager
def fresh_postgres() -> Iterator[str]:
    """The URL of a migrated ledger, dropped at the end."""
    with shared_postgres().fresh_database(template=_migrated_database()) as url:
        yield url


async def opened(url: str) -> Database:
    """The ledger at `url`, which must be in order."""
    database = await open_database(url)
    assert isinstance(database, Database), database
    return database


@functools.cache
def _migrated_file() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="ledger"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    _migrate(f"sqlite:///{directory / 'template.db'}")
    return directory / "template.db"


@functools.cache
def _migrated_database() -> str:
    # Registered once the server runs, so that it runs before the server is stopped.
    database = contextlib.ExitStack()
    url = database.enter_context(shared_postgres().fresh_database())
    atexit.register(database.close)
    _migrate(url)
    return str(make_url(url).database)


def _migrate(url: str) -> None:
    # Fixtures may be set up inside a running loop; a thread has none.
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(lambda: asyncio.run(upgrade(url))).result()
    assert isinstance(result, Upgraded), result
