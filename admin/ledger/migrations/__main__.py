"""Write the next migration, `python -m admin.ledger.migrations 0002 "What it changes"`, from what `tables.py` has gained.

It compares with a throw-away SQLite ledger; read what it wrote, and let the tests run it on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command

from admin.ledger.engine import Database
from admin.ledger.migrating import alembic_config
from admin.ledger.schema import open_ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection


async def write_migration(number: str, message: str) -> None:
    """Make `versions/<number>_<message>.py`."""

    def compare(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.revision(config, message, autogenerate=True, rev_id=number)

    with tempfile.TemporaryDirectory() as directory:
        database = await open_ledger(f"sqlite:///{Path(directory) / 'ledger.db'}")
        if not isinstance(database, Database):
            raise SystemExit(database.detail)
        async with database.write() as connection:
            await connection.run_sync(compare)
        await database.dispose()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    asyncio.run(write_migration(sys.argv[1], sys.argv[2]))
