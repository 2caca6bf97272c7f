"""Stores that are stopped, hang or are locked while servers answer: known keys go on, and every answer is logged."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from postgres import Postgres, postgres_server
from toys import Live, children, until

from estiba.gateway import keys
from estiba.gateway.key_snapshot import KeySnapshot
from estiba.gateway.keys import KeyRequest
from estiba.gateway.log_query import Query, find
from estiba.state.store import open_log, open_state

pytestmark = pytest.mark.slow

Start = Callable[..., Live]


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with postgres_server() as server:
        yield server


def status(live: Live, key: str, value: float = 1.0) -> int:
    return httpx.post(f"{live.url}/predict", json={"x": value}, headers={"x-api-key": key}, timeout=10).status_code


def logged(url: str) -> list[float]:
    database = open_log(url)
    try:
        return sorted(each.input["x"] for each in find(database, Query()))
    finally:
        database.close()


def test_keys_and_the_log_survive_their_postgresql(postgres: Postgres, start_server: Start, tmp_path: Path) -> None:
    gateway = {"state": postgres.url, "needs_keys": True, "log": {"enabled": True}}
    store = open_state(postgres.url)
    ada, leaked = (keys.create(store, KeyRequest(name))[0] for name in ("ada", "leaked"))
    servers = [start_server("price", gateway=gateway, workers=2) for _ in range(2)]
    clients = [httpx.Client(base_url=live.url, headers={"x-api-key": leaked}) for live in servers for _ in range(4)]
    assert {client.post("/predict", json={"x": 0.0}).status_code for client in clients} == {200}
    keys.revoke(store, "leaked")
    time.sleep(1.0)
    assert {client.post("/predict", json={"x": 0.0}).status_code for client in clients} == {401}, "in every replica"
    for client in clients:
        client.close()
    store.close()

    main = int((postgres._data / "postmaster.pid").read_text().splitlines()[0])
    stopped = [main, *children(main)]
    for process in stopped:
        with suppress(ProcessLookupError):  # that of a connection which was just closed
            os.kill(process, signal.SIGSTOP)
    began = time.monotonic()
    assert [status(servers[0], ada, value) for value in (1.0, 2.0, 3.0)] == [200] * 3, "while the store hangs"
    assert time.monotonic() - began < 2
    for process in stopped:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    assert until(lambda: logged(postgres.url) == [0.0] * 8 + [1.0, 2.0, 3.0], 15)

    def three(live: Live, value: float) -> list[int]:
        return [status(live, ada, value), status(live, leaked), status(live, keys.generate())]

    postgres.stop()
    assert three(servers[1], 4.0) == [200, 401, 401]
    again = start_server("price", gateway=gateway)  # it has never reached the store
    assert three(again, 5.0) == [200, 401, 401]
    assert "not up to date" in httpx.get(f"{again.url}/health/ready").json()["detail"]
    (file,) = (tmp_path / "cache" / "estiba" / "keys").iterdir()
    assert ada[4:] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0

    postgres.start()
    assert until(lambda: logged(postgres.url)[-2:] == [4.0, 5.0], 15)
    assert until(lambda: "detail" not in httpx.get(f"{again.url}/health/ready").json(), 10)
    for live in (*servers, again):
        live.stop()


def test_a_snapshot_of_others_or_of_another_day_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    snapshot = KeySnapshot("postgresql://a:secret@db/estiba")
    own = open_state(f"sqlite:///{tmp_path}/state.db")
    keys.create(own, KeyRequest("ada"))
    assert snapshot.read() is None
    snapshot.write(keys.listed(own))
    own.close()
    found = snapshot.read()
    assert found is not None
    assert ([key.name for key in found[0]], found[1] < 5) == (["ada"], True)
    assert KeySnapshot("postgresql://a:other@db/estiba").read() is not None, "another password is the same store"
    assert KeySnapshot("postgresql://a:secret@db/other").read() is None
    (file,) = (tmp_path / "estiba" / "keys").iterdir()
    file.chmod(0o666)
    assert snapshot.read() is None
    file.chmod(0o600)
    os.utime(file, (time.time() - 90_000,) * 2)
    assert snapshot.read() is None
    file.write_text(json.dumps({"keys": []}))
    assert snapshot.read() is None
    KeySnapshot(f"sqlite:///{tmp_path}/state.db").write([])
    assert list((tmp_path / "estiba" / "keys").iterdir()) == [file]


def test_a_log_that_another_process_locks_gets_its_rows_later(tmp_path: Path, start_server: Start) -> None:
    live = start_server("price", gateway={"state": f"sqlite:///{tmp_path}/state.db", "log": {"enabled": True}})
    assert status(live, "", 1.0) == 200
    assert until(lambda: (tmp_path / "log.db").exists() and logged(f"sqlite:///{tmp_path}/state.db") == [1.0], 10)
    holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    assert [status(live, "", value) for value in (2.0, 3.0)] == [200] * 2
    assert time.monotonic() - began < 1
    holder.execute("ROLLBACK")
    holder.close()
    assert until(lambda: logged(f"sqlite:///{tmp_path}/state.db") == [1.0, 2.0, 3.0], 15)


@pytest.mark.parametrize("folder", ["~nobody-of-that-name/cache", "cache"])
def test_a_user_without_a_home_has_no_snapshot(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    snapshot = KeySnapshot("postgresql://db/estiba")
    snapshot.write([])
    assert snapshot.read() is None
