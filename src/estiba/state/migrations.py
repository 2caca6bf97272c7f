"""Bring the tables of the state store up to date: numbered SQL files, each run once, one process at a time."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from estiba.core.errors import EstibaError
from estiba.state.database import Database, Transaction

Kind = Literal["state", "log", "monitoring"]
"""The tables of a store: of keys, of logged predictions, or of drift. One database may have all of them."""


def migrate(database: Database, kind: Kind) -> None:
    """Run the migrations that the store has not seen yet.

    Raises:
        EstibaError: a newer Estiba wrote the store, or it cannot be written.
    """
    scripts = _scripts(kind)
    with database.transaction() as writing:
        writing.lock_migrations()
        version = _version(writing, kind)
        if version > len(scripts):
            raise EstibaError(
                f"The state store has version {version} of its tables; this Estiba knows {len(scripts)}.",
                hint="A newer Estiba has written it: use that one, or another store ([state] url).",
            )
        for number, script in enumerate(scripts[version:], start=version + 1):
            writing.script(script)
            writing.execute(f"INSERT INTO {kind}_version VALUES (?)", [number])


def _version(transaction: Transaction, kind: Kind) -> int:
    """The number of migrations that the store has seen."""
    transaction.script(f"CREATE TABLE IF NOT EXISTS {kind}_version (number BIGINT PRIMARY KEY);")
    ((version,),) = transaction.execute(f"SELECT coalesce(max(number), 0) FROM {kind}_version")
    return int(version)


def _scripts(kind: Kind) -> list[str]:
    folder = files("estiba.state").joinpath("migrations", kind)
    found = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    return [each.read_text(encoding="utf-8") for each in found]
