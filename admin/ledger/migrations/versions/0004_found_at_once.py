"""Indexes by which one customer is found among a million, and what waits among what was settled."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("stripe_customers", schema=None) as batch_op:
        batch_op.drop_index("ix_stripe_customers_customer")
        batch_op.create_index("ix_stripe_customers_owner", ["account", "livemode", "customer"], unique=False)
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.drop_index("ix_inbox_due")
        batch_op.create_index("ix_inbox_due", ["account", "livemode", "status", "next_attempt_at"], unique=False)
        batch_op.create_index("ix_inbox_waiting", ["account", "livemode", "status", "stripe_customer"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.drop_index("ix_inbox_waiting")
        batch_op.drop_index("ix_inbox_due")
        batch_op.create_index("ix_inbox_due", ["status", "next_attempt_at"], unique=False)
    with op.batch_alter_table("stripe_customers", schema=None) as batch_op:
        batch_op.drop_index("ix_stripe_customers_owner")
        batch_op.create_index("ix_stripe_customers_customer", ["customer"], unique=False)
