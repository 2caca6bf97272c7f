"""Transactions on the state store, the same for SQLite and PostgreSQL.

Statements are written once, with `?` for parameters. All work happens in threads, never on an event loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Row = tuple[Any, ...]


class Transaction(ABC):
    """Statements that take effect together, or not at all."""

    @abstractmethod
    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement and return its rows; raises EstibaError."""

    @abstractmethod
    def insert(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Add rows with a value for each column of the table, in few statements; raises EstibaError."""

    @abstractmethod
    def script(self, statements: str) -> None:
        """Run several statements without parameters; raises EstibaError."""

    @abstractmethod
    def lock_migrations(self) -> None:
        """Wait until no other process migrates; released at the end of the transaction."""


class Database(ABC):
    """A state store that is open. Safe to share between threads; transactions run one after the other."""

    @abstractmethod
    def begin(self, *, write: bool) -> Transaction:
        """Start a transaction."""

    @abstractmethod
    def end(self, *, commit: bool) -> None:
        """End it; raises EstibaError where it cannot be committed."""

    @abstractmethod
    def is_replaced(self) -> bool:
        """Return True if the store is a file that is gone, or another one by now: then it must be opened again."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Move what was committed into the main file, where the store has such a thing; for one process only."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        """Run the statements of the block as one transaction, which an error in the block rolls back.

        Args:
            write: the block changes something. Only one such transaction runs at a time, over all processes where the
                store is a file.

        Raises:
            EstibaError: the store cannot be reached, is locked or full.
        """
        transaction = self.begin(write=write)
        try:
            yield transaction
        except BaseException:
            self.end(commit=False)
            raise
        self.end(commit=True)


class LazyDatabase:
    """A database that is opened when it is first needed, and again after it was replaced or closed.

    Attributes:
        opened: the database; None while it is not open.
    """

    def __init__(self, open_database: Callable[[], Database]) -> None:
        """Open nothing yet."""
        self._open_database = open_database
        self.opened: Database | None = None

    def get(self) -> Database:
        """The open database; raises EstibaError where it cannot be opened."""
        if self.opened is not None and self.opened.is_replaced():
            self.close()
        if self.opened is None:
            self.opened = self._open_database()
        return self.opened

    def close(self) -> None:
        """Close it; `get` opens it again."""
        if self.opened is not None:
            self.opened.close()
        self.opened = None
