"""The state store, which is an SQLite file or a PostgreSQL database."""
