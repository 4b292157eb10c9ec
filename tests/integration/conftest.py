"""Every test of the ledger runs on both databases; those of a file share a Redis, with names of their own in it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support.ledgers import fresh_postgres, fresh_sqlite, opened
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from admin.ledger.engine import Database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield fresh_sqlite(tmp_path)
        return
    with fresh_postgres() as url:
        yield url


@pytest.fixture
async def database(ledger_url: str) -> AsyncIterator[Database]:
    database = await opened(ledger_url)
    yield database
    await database.dispose()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"eg:{uuid4().hex}:acct_1:test"
