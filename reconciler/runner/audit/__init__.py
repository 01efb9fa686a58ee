"""The audit log: an append-only chain of records, the heads of it that are kept elsewhere, and how the two are compared."""
