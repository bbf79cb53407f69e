"""The embedded trace store: SQLite, written from enforced requests, read by the traces page."""
