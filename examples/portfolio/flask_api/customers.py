"""Store the bank's customers in SQLite. The customers in a new database are invented."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

FACTS = {
    "CreditScore": "INTEGER NOT NULL",
    "Geography": "TEXT NOT NULL",
    "Gender": "TEXT NOT NULL",
    "Age": "INTEGER NOT NULL",
    "Tenure": "INTEGER",
    "Balance": "REAL NOT NULL",
    "NumOfProducts": "INTEGER NOT NULL",
    "HasCrCard": "INTEGER NOT NULL",
    "IsActiveMember": "INTEGER NOT NULL",
    "EstimatedSalary": "REAL NOT NULL",
}
"""The fields of a customer, as the model takes them, and their column types."""

INVENTED = [
    ("Ana Ferrer", 612, "Spain", "Female", 37, 4, 0.0, 2, 1, 1, 48_200.0),
    ("Jonas Weber", 545, "Germany", "Male", 58, 2, 131_750.0, 1, 1, 0, 91_300.0),
    ("Claire Morel", 701, "France", "Female", 29, 7, 0.0, 2, 0, 1, 62_000.0),
    ("Marta Ruiz", 488, "Spain", "Female", 51, None, 88_410.0, 3, 1, 0, 37_900.0),
    ("Paul Lefevre", 795, "France", "Male", 44, 9, 104_020.0, 1, 1, 1, 120_500.0),
]


class Customers:
    """A table in a file. Each call opens its own connection, so threads may share an object."""

    def __init__(self, file: Path) -> None:
        self._file = file
        facts = ", ".join(f"{name} {kind}" for name, kind in FACTS.items())
        with self._open() as database:
            database.execute(
                f"CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, {facts})"
            )
            if not database.execute("SELECT 1 FROM customers").fetchone():
                database.executemany(self._insertion(), INVENTED)

    def all(self) -> list[dict[str, Any]]:
        with self._open() as database:
            return [dict(row) for row in database.execute("SELECT * FROM customers ORDER BY id")]

    def find(self, number: int) -> dict[str, Any] | None:
        with self._open() as database:
            row = database.execute("SELECT * FROM customers WHERE id = ?", (number,)).fetchone()
            return dict(row) if row else None

    def add(self, customer: dict[str, Any]) -> int:
        """The new customer's id; raises ValueError where a fact is missing, unknown or cannot be stored."""
        wanted = {"name", *FACTS}
        if wrong := wanted ^ customer.keys():
            missing, unknown = sorted(wrong - customer.keys()), sorted(wrong - wanted)
            raise ValueError(f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}")
        try:
            with self._open() as database:
                row = database.execute(self._insertion(), [customer[name] for name in ("name", *FACTS)])
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError) as error:
            raise ValueError(f"a value cannot be stored: {error}") from None
        return int(row.lastrowid or 0)

    @staticmethod
    def _insertion() -> str:
        return f"INSERT INTO customers (name, {', '.join(FACTS)}) VALUES ({', '.join('?' * (len(FACTS) + 1))})"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection, whose changes are kept unless the block fails."""
        with closing(sqlite3.connect(self._file, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            with database:
                yield database
