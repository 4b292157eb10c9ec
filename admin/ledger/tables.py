"""The shape of the ledger: every table, once, for SQLite and PostgreSQL alike.

It decides names, types and keys; `migrations/` brings a database there and a test holds the two together. All times are
UTC seconds as integers, all ids text. It must never hold a tier that follows from facts, or a verdict: those are computed
at each request (DESIGN.md, section 5). Grants name a tier because an operator said so.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

# SQLite only counts up in a column declared exactly INTEGER PRIMARY KEY.
_Counter = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _pair() -> tuple[Column[str], Column[bool]]:
    return Column("account", Text, primary_key=True), Column("livemode", Boolean, primary_key=True)


meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

customers = Table(
    "customers",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("blocked_reason", Text),
    Column("blocked_by", Text),
    Column("blocked_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("id", _Counter, primary_key=True, autoincrement=True),
    Column("customer", Text, ForeignKey("customers.customer"), nullable=False, index=True),
    Column("tier", Text, nullable=False),
    Column("until", BigInteger),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("revoked_by", Text),
    Column("revoked_reason", Text),
    sqlite_autoincrement=True,
)

# Of a key there is its keyed hash, never the key. Rows of keys that have ended stay for a while, as a record.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.customer"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("revoked_by", Text),
    Column("replaced_by", Text),
    Column("last_used_at", BigInteger),
    Index("ix_api_keys_customer", "customer", "created_at"),
)

stripe_customers = Table(
    "stripe_customers",
    metadata,
    *_pair(),
    Column("id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.customer")),
    Column("linked_by", Text),
    Column("conflict_customer", Text),
    # The last ticket handed out, and the one whose result is in `facts`.
    Column("ticket", BigInteger, nullable=False, server_default=text("0")),
    Column("written_ticket", BigInteger, nullable=False, server_default=text("0")),
    Column("facts", Text, nullable=False, server_default=text("'[]'")),
    Column("fetched_at", BigInteger),
    Column("next_edge_at", BigInteger, index=True),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", BigInteger, nullable=False),
    Column("features", Text, nullable=False, server_default=text("'[]'")),
    # Account and mode stand first in every index beside a key that begins with them, and all that a query compares
    # follows: without statistics SQLite takes whichever index has the most columns, and would read the whole account.
    Index("ix_stripe_customers_owner", "account", "livemode", "customer"),
)

inbox = Table(
    "inbox",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("account", Text, nullable=False),
    Column("livemode", Boolean, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("object_id", Text),
    Column("stripe_customer", Text),
    Column("wire", Text, nullable=False),
    Column("snapshot_event", Text),
    Column("api_version", Text),
    Column("created", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("outcome", Text, nullable=False, server_default=text("''")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", BigInteger, nullable=False),
    Column("doubted_at", BigInteger),
    Column("error", Text, nullable=False, server_default=text("''")),
    Index("uq_inbox_event", "account", "livemode", "event_id", unique=True),
    Index("ix_inbox_due", "account", "livemode", "status", "next_attempt_at"),
    Index("ix_inbox_waiting", "account", "livemode", "status", "stripe_customer"),
    Index("ix_inbox_stripe_customer", "account", "livemode", "stripe_customer"),
    Index("ix_inbox_snapshot_event", "account", "livemode", "snapshot_event"),
    sqlite_autoincrement=True,
)

checkout_sessions = Table(
    "checkout_sessions",
    metadata,
    *_pair(),
    Column("id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.customer"), nullable=False, index=True),
    Column("tier", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("stripe_customer", Text),
    Column("url", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

checkout_attempts = Table(
    "checkout_attempts",
    metadata,
    *_pair(),
    Column("customer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

prices = Table(
    "prices",
    metadata,
    *_pair(),
    Column("id", Text, primary_key=True),
    Column("product", Text, nullable=False),
    Column("lookup_key", Text),
    Column("unit_amount", BigInteger),
    Column("currency", Text, nullable=False),
    Column("interval", Text),
    Column("interval_count", Integer),
    Column("active", Boolean, nullable=False),
    Column("default_of_product", Boolean, nullable=False),
    Column("fetched_at", BigInteger, nullable=False),
)

pinned_prices = Table(
    "pinned_prices",
    metadata,
    *_pair(),
    Column("price", Text, primary_key=True),
    Column("tier", Text, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("id", _Counter, primary_key=True, autoincrement=True),
    Column("customer", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("published_at", BigInteger),
    # PostgreSQL hands out ids before commit and commits in any order; the writing transaction's own number lets a
    # reader ask for "everything that had not ended when I last looked" (see changes.py). SQLite has one writer.
    Column("xid", BigInteger, index=True),
    Index("ix_changes_customer", "customer", "version"),
    Index("ix_changes_published_at", "published_at", "at"),
    sqlite_autoincrement=True,
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Float(53), nullable=False),
)

# How many calls all processes together may still make now; counted up when somebody looks (budgets.py).
call_budgets = Table(
    "call_budgets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("level", Float(53), nullable=False),
    Column("counted_at", Float(53), nullable=False),
)
