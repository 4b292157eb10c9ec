"""An engine for PostgreSQL, and sessions beside it: bounded on both sides, and severed rather than cancelled.

Cancelling a query has psycopg ask the server, over a second connection, to end it: seconds where the server is what
hangs. Shutting the socket down fails the wait at once, whatever it waits for.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import URL

# A host that vanished without a word is noticed by the kernel, not only by our own deadlines.
_POSTGRES_CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
    "application_name": "entitlement-gateway",
}

# idle_in_transaction_session_timeout: a process that was stopped (SIGSTOP, a paused VM) must not keep its row locks.
# synchronous_commit: off would lose acknowledged events in a crash; stricter settings of the server's are left alone.
_POSTGRES_SESSION: Final = """
SELECT set_config('statement_timeout', '8s', false), set_config('lock_timeout', '5s', false),
       set_config('idle_in_transaction_session_timeout', '15s', false),
       CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END
"""


def postgres_engine(url: URL) -> AsyncEngine:
    """A pool whose sessions wait for nothing longer than a few seconds."""
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=2,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args=_defaults(url),
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(_POSTGRES_SESSION)
        cursor.close()
        connection.commit()

    return engine


def session_arguments(url: URL) -> dict[str, Any]:
    """For psycopg's own `connect`: a session outside the pool, reached in the same way."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    return {**_defaults(url), **arguments}


def sever(driver: object) -> None:
    """Break the connection of a psycopg session: whoever waits on it gets an error now."""
    if not isinstance(driver, psycopg.AsyncConnection) or driver.closed:
        return
    with socket.socket(fileno=os.dup(driver.pgconn.socket)) as duplicate:
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the peer was faster


def _defaults(url: URL) -> dict[str, Any]:
    return {key: value for key, value in _POSTGRES_CONNECT.items() if key not in url.query}
