"""The ledger: facts, grants, events and links, kept in SQL."""
