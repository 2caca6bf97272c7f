"""Open the state store of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from estiba.core.errors import EstibaError
from estiba.state.database import Database
from estiba.state.migrations import Kind, migrate
from estiba.state.options import SQLITE

LOG_FILE = "log.db"
"""Name of the SQLite file of logged predictions, in the folder of the state store."""

MONITORING_FILE = "monitoring.db"
"""Name of the SQLite file of drift, in the same folder: it is written often, and must not wait for the log."""


def open_state(url: str) -> Database:
    """Open a state store and bring its tables up to date.

    Args:
        url: as `estiba.state.options.location` returns it.

    Raises:
        EstibaError: it cannot be opened. MissingExtra: PostgreSQL needs a library that is not installed.
    """
    return _migrated(_opened(url), "state")


def open_log(url: str) -> Database:
    """Open the log of predictions of a state store: in SQLite a file beside it, so that neither waits for the other.

    Args and raises as `open_state`.
    """
    return _beside(url, LOG_FILE, "log")


def open_monitoring(url: str) -> Database:
    """Open the counts and windows of drift of a state store, in SQLite a file of their own.

    Args and raises as `open_state`.
    """
    return _beside(url, MONITORING_FILE, "monitoring")


def _beside(url: str, file: str, kind: Kind) -> Database:
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE)).with_name(file)
        return _migrated(_sqlite(path, synchronous="NORMAL"), kind)
    return _migrated(_opened(url), kind)


def _migrated(database: Database, kind: Kind) -> Database:
    try:
        migrate(database, kind)
    except BaseException:
        database.close()
        raise
    return database


def _opened(url: str) -> Database:
    if url.startswith(SQLITE):
        return _sqlite(Path(url.removeprefix(SQLITE)))
    from estiba.state.postgres import PostgresDatabase

    return PostgresDatabase(url)


def _sqlite(path: Path, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Database:
    try:
        from estiba.state.sqlite import SqliteDatabase
    except ModuleNotFoundError:  # such as an image that was built for a state store in PostgreSQL
        raise EstibaError(
            f"The state store {path} cannot be used: this Python has no SQLite.",
            hint="Name a PostgreSQL database, with $ESTIBA_STATE or url in [state].",
        ) from None
    return SqliteDatabase(path, synchronous=synchronous)
