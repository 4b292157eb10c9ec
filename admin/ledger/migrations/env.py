"""How Alembic reaches the ledger: on the connection, and in the transaction, that `schema.py` hands it.

To write a migration after changing `tables.py`: `python -m admin.ledger.migrations 0002 "What it changes"`.
"""

from __future__ import annotations

from alembic import context

from admin.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
