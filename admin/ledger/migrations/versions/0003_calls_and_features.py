"""A budget of calls for all processes, features that Stripe grants, and the twin of a thin event."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "call_budgets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("level", sa.Float(precision=53), nullable=False),
        sa.Column("counted_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_call_budgets")),
    )
    with op.batch_alter_table("stripe_customers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("features", sa.Text(), server_default=sa.text("'[]'"), nullable=False))
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.create_index("ix_inbox_snapshot_event", ["account", "livemode", "snapshot_event"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.drop_index("ix_inbox_snapshot_event")
    with op.batch_alter_table("stripe_customers", schema=None) as batch_op:
        batch_op.drop_column("features")
    op.drop_table("call_budgets")
