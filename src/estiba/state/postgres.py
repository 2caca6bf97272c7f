"""The state store as a PostgreSQL database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estiba.core.errors import EstibaError, MissingExtra, Unavailable
from estiba.core.stores.disk import explained
from estiba.state.database import Database, Row, Transaction
from estiba.state.options import shown, without_password_file

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 5
STATEMENT_MILLISECONDS = 5000
"""Time for the server to accept a connection, and for one statement."""

MIGRATION_LOCK = 0x45535449
"""Key of the advisory lock that a process holds while it migrates."""


class PostgresDatabase(Database):
    """A PostgreSQL database. A connection that was lost is opened again by the next transaction."""

    def __init__(self, url: str) -> None:
        """Connect; raises EstibaError, or MissingExtra without psycopg."""
        try:
            import psycopg
        except ModuleNotFoundError:
            raise MissingExtra("psycopg, the driver of PostgreSQL,", "postgres") from None
        self._psycopg = psycopg
        self.url = url
        self._lock = threading.RLock()
        self.connection: psycopg.Connection[Any] | None = None
        with self._explained():
            self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        if self.connection is None or self.connection.closed:
            options = f"-c statement_timeout={STATEMENT_MILLISECONDS} -c lock_timeout={STATEMENT_MILLISECONDS}"
            url, file = without_password_file(self.url)
            password = _password(Path(file)) if file else None
            self.connection = self._psycopg.connect(
                url, connect_timeout=CONNECT_SECONDS, options=options, application_name="estiba", password=password
            )
        return self.connection

    def begin(self, *, write: bool) -> Transaction:
        self._lock.acquire()
        try:
            with self._explained():
                self._connect().execute("SELECT 1")  # finds a connection that was lost, and begins the transaction
        except Unavailable:
            try:
                with self._explained():
                    self._connect().execute("SELECT 1")
            except BaseException:
                self._lock.release()
                raise
        except BaseException:
            self._lock.release()
            raise
        return _PostgresTransaction(self)

    def end(self, *, commit: bool) -> None:
        assert self.connection is not None
        try:
            if commit:
                with self._explained():
                    self.connection.commit()
        finally:
            with suppress(self._psycopg.Error):
                self.connection.rollback()  # does nothing after a commit
            self._lock.release()

    def is_replaced(self) -> bool:
        return False

    def checkpoint(self) -> None:
        """PostgreSQL does it by itself."""

    def close(self) -> None:
        with self._lock:
            if self.connection is not None:
                self.connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of PostgreSQL inside the block into one that says what to do."""
        try:
            yield
        except (self._psycopg.OperationalError, self._psycopg.InterfaceError) as error:
            if self.connection is not None and self.connection.broken:
                self.connection.close()
            raise Unavailable(
                f"The state store {shown(self.url)} cannot be reached: {_first_line(error)}.",
                hint="Is PostgreSQL running there, and do user and password match? See [state] url.",
            ) from error
        except self._psycopg.Error as error:
            hint = "Give its user the right to create tables in that database." if _is_forbidden(error) else None
            raise EstibaError(
                f"The state store {shown(self.url)} cannot be used: {_first_line(error)}.", hint=hint
            ) from error


class _PostgresTransaction(Transaction):
    def __init__(self, database: PostgresDatabase) -> None:
        assert database.connection is not None
        self._database = database
        self._connection = database.connection

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        with self._database._explained():
            cursor = self._connection.execute(statement.replace("?", "%s"), parameters)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def insert(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        with (
            self._database._explained(),
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def script(self, statements: str) -> None:
        with self._database._explained():
            self._connection.execute(statements.replace(" BLOB ", " BYTEA "))

    def lock_migrations(self) -> None:
        self.execute("SELECT pg_advisory_xact_lock(?)", [MIGRATION_LOCK])


def _password(file: Path) -> str:
    """The password in a file, read for each connection, so that it may change; raises EstibaError."""
    with explained("read", file):
        return file.read_text().rstrip("\r\n")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _is_forbidden(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) == "42501"
