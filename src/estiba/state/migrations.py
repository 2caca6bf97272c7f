"""Bring the tables of the state store up to date: numbered SQL files, each run once, one process at a time."""

from __future__ import annotations

from importlib.resources import files

from estiba.core.errors import EstibaError
from estiba.state.database import Database, Transaction


def migrate(database: Database) -> None:
    """Run the migrations that the store has not seen yet.

    Raises:
        EstibaError: a newer Estiba wrote the store, or it cannot be written.
    """
    scripts = _scripts()
    with database.transaction() as writing:
        writing.lock_migrations()
        version = _version(writing)
        if version > len(scripts):
            raise EstibaError(
                f"The state store has version {version} of its tables; this Estiba knows {len(scripts)}.",
                hint="A newer Estiba has written it: use that one, or another store ([state] url).",
            )
        for number, script in enumerate(scripts[version:], start=version + 1):
            writing.script(script)
            writing.execute("INSERT INTO schema_version VALUES (?)", [number])


def _version(transaction: Transaction) -> int:
    """The number of migrations that the store has seen."""
    transaction.script("CREATE TABLE IF NOT EXISTS schema_version (number BIGINT PRIMARY KEY);")
    ((version,),) = transaction.execute("SELECT coalesce(max(number), 0) FROM schema_version")
    return int(version)


def _scripts() -> list[str]:
    folder = files("estiba.state").joinpath("migrations")
    found = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    return [each.read_text(encoding="utf-8") for each in found]
