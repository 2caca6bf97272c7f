"""Open the state store of a project."""

from __future__ import annotations

from pathlib import Path

from estiba.state.database import Database
from estiba.state.migrations import migrate
from estiba.state.options import SQLITE
from estiba.state.sqlite import SqliteDatabase


def open_state(url: str) -> Database:
    """Open a state store and bring its tables up to date.

    Args:
        url: as `estiba.state.options.location` returns it.

    Raises:
        EstibaError: it cannot be opened. MissingExtra: PostgreSQL needs a library that is not installed.
    """
    database = _opened(url)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _opened(url: str) -> Database:
    if url.startswith(SQLITE):
        return SqliteDatabase(Path(url.removeprefix(SQLITE)))
    from estiba.state.postgres import PostgresDatabase

    return PostgresDatabase(url)
