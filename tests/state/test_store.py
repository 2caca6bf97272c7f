"""Transactions and migrations on a real SQLite file and a real PostgreSQL server."""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Postgres, postgres_server

from estiba.core.errors import EstibaError, MissingExtra, Unavailable
from estiba.state.store import open_state


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder/state.db"
    server: Postgres = request.getfixturevalue("postgres")
    database = open_state(server.url)
    with database.transaction() as writing:
        writing.script("DROP TABLE api_key; DROP TABLE change; DROP TABLE state_version;")
    database.close()
    return server.url


def count(url: str) -> int:
    database = open_state(url)
    with database.transaction(write=False) as reading:
        ((number,),) = reading.execute("SELECT generation FROM change")
    database.close()
    return int(number)


@pytest.mark.slow
def test_an_error_in_the_block_undoes_all_of_it(url: str) -> None:
    database = open_state(url)
    with pytest.raises(EstibaError), database.transaction() as writing:  # noqa: PT012
        writing.execute("UPDATE change SET generation = ?", [41])
        writing.execute("UPDATE nothing SET generation = ?", [41])
    with database.transaction() as writing:
        writing.execute("UPDATE change SET generation = generation + ?", [1])
    database.close()
    assert count(url) == 2


@pytest.mark.slow
def test_threads_share_a_store_one_transaction_at_a_time(url: str) -> None:
    database = open_state(url)

    def add() -> None:
        for _ in range(25):
            with database.transaction() as writing:
                ((number,),) = writing.execute("SELECT generation FROM change")
                writing.execute("UPDATE change SET generation = ?", [number + 1])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    assert count(url) == 101


def _open(url: str) -> None:
    open_state(url).close()


@pytest.mark.slow
def test_many_processes_that_start_at_once_migrate_once(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_open, [url] * 8)
    assert count(url) == 1


@pytest.mark.slow
def test_a_store_of_a_newer_estiba_is_refused(url: str) -> None:
    database = open_state(url)
    with database.transaction() as writing:
        writing.execute("INSERT INTO state_version VALUES (?)", [999])
    with pytest.raises(EstibaError, match="version 999 of its tables") as caught:
        open_state(url)
    assert "newer Estiba" in str(caught.value.hint)
    with database.transaction() as writing:
        writing.execute("DELETE FROM state_version WHERE number = ?", [999])
    database.close()


@pytest.mark.slow
def test_a_server_of_postgresql_that_was_restarted_is_used_again(postgres: Postgres) -> None:
    database = open_state(postgres.url)
    postgres.stop()
    with pytest.raises(Unavailable, match="cannot be reached"), database.transaction() as reading:
        reading.execute("SELECT 1")
    postgres.start()
    with database.transaction() as reading:
        assert reading.execute("SELECT 1") == [(1,)]
    database.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.write_text("These are notes, and no database at all. " * 50)
    with pytest.raises(EstibaError, match=r"state\.db cannot be used: file is not a database") as caught:
        open_state(f"sqlite:///{file}")
    assert "another file" in str(caught.value.hint)
    assert file.read_text().startswith("These are notes")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EstibaError, match=r"Cannot write .*file"):
        open_state(f"sqlite:///{tmp_path}/file/state.db")


@pytest.mark.slow
def test_a_locked_file_is_unavailable_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    open_state(url).close()
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("estiba.state.sqlite.BUSY_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="database is locked"):
        open_state(url)
    other.execute("ROLLBACK")
    open_state(url).close()


def test_only_this_user_may_read_the_file(tmp_path: Path) -> None:
    open_state(f"sqlite:///{tmp_path}/state.db").close()
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"psycopg.* is not installed") as caught:
        open_state("postgresql://nobody@127.0.0.1:1/none")
    assert "[postgres]" in str(caught.value.hint)
