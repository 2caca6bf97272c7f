"""The state store as an SQLite file in WAL mode: readers never wait for a writer.

SQLite before 3.51.3 can damage a file where one connection checkpoints while another resets the log. So connections
never checkpoint by themselves (`wal_autocheckpoint=0`): the server does, and whoever closes the file last.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from estiba.core.errors import EstibaError, Unavailable
from estiba.core.stores.disk import explained
from estiba.state.database import Database, Row, Transaction

BUSY_SECONDS = 5.0
"""Time to wait for another process that writes."""

MAX_PARAMETERS = 999
"""Parameters of one statement that every SQLite takes (`SQLITE_MAX_VARIABLE_NUMBER` before 3.32)."""

_HINTS = {
    sqlite3.SQLITE_BUSY: "Another process keeps it locked: try again, or find it with: fuser {path}",
    sqlite3.SQLITE_FULL: "The disk is full: free some space and try again.",
    sqlite3.SQLITE_READONLY: "Give this user the right to write the file and its folder.",
    sqlite3.SQLITE_CANTOPEN: "Give this user the right to write that folder, or choose another file: [state] url.",
    sqlite3.SQLITE_NOTADB: "Choose another file: [state] url.",
    sqlite3.SQLITE_CORRUPT: "Restore the file from a copy, or move it away to begin anew: keys are lost then.",
}


class SqliteDatabase(Database):
    """An SQLite file."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        """Open the file, or create it; raises EstibaError.

        Args:
            synchronous: with NORMAL commits do not wait for disks, and a crash of the machine may lose some seconds.
        """
        self.path = path
        with explained("write", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
        try:
            with self._explained():
                for setting in ("journal_mode=WAL", f"synchronous={synchronous}", "wal_autocheckpoint=0"):
                    self._connection.execute(f"PRAGMA {setting}")
        except EstibaError:
            self._connection.close()
            raise
        with suppress(OSError):  # hashes of keys are for this user only
            path.chmod(0o600)
        self._file = _identity(path)

    def begin(self, *, write: bool) -> Transaction:
        self._lock.acquire()
        try:
            with self._explained():
                self._connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        except BaseException:
            self._lock.release()
            raise
        return _SqliteTransaction(self)

    def end(self, *, commit: bool) -> None:
        try:
            if commit:
                with self._explained():
                    self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            self._lock.release()

    def is_replaced(self) -> bool:
        return _identity(self.path) != self._file

    def checkpoint(self) -> None:
        with self._lock, suppress(sqlite3.Error):  # the next one does what this one cannot
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of SQLite inside the block into one that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of an extended code
            hint = _HINTS.get(code, "Check that file and the disk it is on.").format(path=self.path)
            kind = Unavailable if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL) else EstibaError
            raise kind(f"The state store {self.path} cannot be used: {error}.", hint=hint) from error


class _SqliteTransaction(Transaction):
    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        with self._database._explained():
            return self._database._connection.execute(statement, parameters).fetchall()

    def insert(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Add rows, many in one statement: with each statement this thread gives the interpreter lock away and waits.

        Their numbers are powers of two, so that the connection's cache of statements has them all.
        """
        width = len(rows[0]) if rows else 1
        marks = f"({', '.join('?' * width)})"
        start, size = 0, 1 << ((MAX_PARAMETERS // width).bit_length() - 1)
        while start < len(rows):
            while size > len(rows) - start:
                size //= 2
            values = [value for row in rows[start : start + size] for value in row]
            self.execute(f"INSERT INTO {table} VALUES {', '.join([marks] * size)}", values)
            start += size

    def script(self, statements: str) -> None:
        for statement in _split(statements):
            self.execute(statement)

    def lock_migrations(self) -> None:
        """BEGIN IMMEDIATE has locked the file already."""


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _split(statements: str) -> Iterator[str]:
    """The statements one by one: `executescript` would commit the transaction first."""
    text = ""
    for line in statements.splitlines():
        text += line + "\n"
        if sqlite3.complete_statement(text):
            yield text
            text = ""
