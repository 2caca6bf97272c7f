"""A registry that hangs or is damaged in one place keeps nothing else from going on."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from constant_load import Load
from endless import push_endless
from supervised import BODY, Server, ask, pack, serving
from toys import until

import estiba
from estiba.core.errors import EstibaError, NotFound, Unavailable
from estiba.core.guard import process_stat
from estiba.core.log import Log
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import open_registry
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers.hot_swap import HotSwap, Source
from estiba.serving.workers.messages import ServedModel
from estiba.serving.workers.store_query import StoreQuery

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "registry"
    for name in ("toy", "other"):
        packed = pack(folder, name=name)
        open_registry(folder).set_alias(name, "live", packed.version)
    return folder


def versions(server: Server) -> set[str]:
    return {ask(server).headers["x-model-version"] for _ in range(8)}


def damage(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(b"{")


def hang(file: Path) -> None:
    """Make opening it hang, for want of a writer."""
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("harm", [damage, hang])
def test_one_bad_reference_stops_no_other_and_delays_no_client(registry: Path, harm: object) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            harm(registry / "models" / "other" / "aliases" / "live.json")  # type: ignore[operator]
            packed = await asyncio.to_thread(pack, registry, 0.3)
            await asyncio.to_thread(open_registry(registry).set_alias, "toy", "live", packed.version)
            began = time.monotonic()
            while not tally.versions["2"]:
                assert time.monotonic() < began + 10
                _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), 1)
                writer.close()
                await asyncio.sleep(0.05)
        assert not tally.lost
        assert set(tally.statuses) == {200}

    with serving(registry, models=["other@live", "toy@live"], settings={"workers": 2, "default": "toy"}) as server:
        asyncio.run(run(server))
        assert versions(server) == {"2"}
        assert server.get("/models/other")[0] == 200
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_a_registry_that_is_gone_and_comes_back(registry: Path) -> None:
    with serving(registry, "--workers", "1") as server:
        registry.rename(registry.with_name("away"))
        server.wait(lambda: "the registry cannot be read" in server.log.read_text())
        assert ask(server).status == 200
        registry.with_name("away").rename(registry)
        pack(registry, 0.3)
        server.wait(lambda: versions(server) == {"2"})


def test_an_alias_that_moves_back_while_the_other_version_loads(registry: Path) -> None:
    with serving(registry, models=["toy@live"], settings={"workers": 1}) as server:
        packed = pack(registry, 0.3)
        store = open_registry(registry)
        for version in (packed.version, 1, packed.version, 1):
            store.set_alias("toy", "live", version)
            time.sleep(0.6)
        time.sleep(1)
        server.wait(lambda: versions(server) == {"1"})
        time.sleep(1)
        assert versions(server) == {"1"}


def test_a_question_is_answered_in_its_own_thread() -> None:
    asked = StoreQuery(threading.current_thread, 5)
    while not asked.done:
        time.sleep(0.01)
    assert asked.result() is not threading.current_thread()


def test_a_question_that_fails_says_why() -> None:
    def fail(error: Exception) -> NoReturn:
        raise error

    for error, said in ((NotFound("no such model"), "no such model"), (OSError("odd"), "OSError: odd")):
        asked = StoreQuery(lambda error=error: fail(error), 5)  # type: ignore[misc]
        while not asked.done:
            time.sleep(0.01)
        with pytest.raises(EstibaError, match=said):
            asked.result()


def test_a_question_is_given_up_after_a_while() -> None:
    enough = threading.Event()
    asked = StoreQuery(enough.wait, 0.05)
    assert not asked.done
    time.sleep(0.1)
    assert asked.done
    with pytest.raises(Unavailable, match=r"0\.05 seconds"):
        asked.result()
    enough.set()


def refused(server: Server) -> str:
    return str(json.loads(server.get("/models")[1])["models"][0].get("refused", ""))


def test_code_is_trusted_by_digest_and_not_in_a_later_version(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    rows = np.arange(20.0).reshape(-1, 1)
    trusted, later = (
        estiba.pack(lambda f, n=n: f.iloc[:, 0] * n, rows, name="double", registry=registry) for n in (2, 3)
    )
    open_registry(registry).set_alias("double", "production", 1)
    with serving(registry, "--workers", "1", "--trust-digest", trusted.artifact.digest, models=("double",)) as server:
        assert json.loads(server.get("/predict?x0=4")[1])["value"] == 8
        open_registry(registry).set_alias("double", "production", 2)
        server.wait(lambda: f"--trust-digest sha256:{later.artifact.digest}" in refused(server), 60)
        assert json.loads(server.get("/predict?x0=4")[1])["value"] == 8


def first(registry: Path) -> Artifact:
    store = open_registry(registry)
    return store.fetch(store.resolve("toy@1"))


def cpu_seconds(pid: int) -> float:
    return process_stat(pid).cpu_ticks / os.sysconf("SC_CLK_TCK")


def loading(server: Server) -> list[int]:
    """The workers that compute although they have no clients."""
    before = {pid: cpu_seconds(pid) for pid in server.workers()}
    time.sleep(1)
    return [pid for pid, seconds in before.items() if cpu_seconds(pid) - seconds > 0.06]


@pytest.mark.timeout(240)
def test_a_version_whose_loading_ends_a_worker_is_refused_at_its_first_death(registry: Path) -> None:
    """As if the system had ended the worker for want of memory."""
    store = open_registry(registry)
    with serving(registry, models=["toy@live"], settings={"workers": 2}) as server:
        store.set_alias("toy", "live", push_endless(registry, first(registry)))
        found: list[int] = []
        server.wait(lambda: found.extend(loading(server)) or found, 60)
        assert len(found) == 1  # the other worker does not begin before the first is through
        os.kill(found[0], signal.SIGKILL)
        server.wait(lambda: "SIGKILL" in refused(server), 60)
        assert versions(server) == {"1"}
        assert server.metric("estiba_swap_failures_total") == 1
        server.wait(lambda: len(server.workers()) == 2 and server.metric('estiba_workers{state="ready"}') == 2)
        server.wait(lambda: not loading(server))
        assert server.metric("estiba_worker_restarts_total") == 1
        store.set_alias("toy", "live", pack(registry, 0.3).version)  # a good version is served all the same
        server.wait(lambda: versions(server) == {"3"})


@pytest.mark.timeout(240)
def test_a_version_that_takes_too_long_to_load_is_refused(registry: Path) -> None:
    store = open_registry(registry)
    with serving(registry, models=["toy@live"], settings={"workers": 2, "start_timeout": 10}) as server:
        old = set(server.workers())
        store.set_alias("toy", "live", push_endless(registry, first(registry)))
        server.wait(lambda: "within 10 seconds (start_timeout in [server])" in refused(server), 60)
        assert versions(server) == {"1"}
        server.wait(lambda: len(set(server.workers()) & old) == 1 and len(server.workers()) == 2, 60)
        server.wait(lambda: not loading(server))  # the worker that would load it for ever was replaced
        store.set_alias("toy", "live", pack(registry, 0.3).version)
        server.wait(lambda: versions(server) == {"3"})


@pytest.mark.timeout(240)
def test_a_refused_version_is_tried_again_after_the_alias_was_moved_back(registry: Path) -> None:
    store = open_registry(registry)
    with serving(registry, models=["toy@live"], settings={"workers": 1, "start_timeout": 10}) as server:
        slow = push_endless(registry, first(registry))
        for _ in range(2):
            store.set_alias("toy", "live", slow)
            server.wait(lambda: "within 10 seconds" in refused(server), 60)
            store.set_alias("toy", "live", 1)
            server.wait(lambda: not refused(server))
        assert server.metric("estiba_swap_failures_total") == 2


def test_a_version_that_cannot_fit_is_refused_before_it_is_loaded(registry: Path, tmp_path: Path) -> None:
    log = io.StringIO()
    metrics = Metrics(tmp_path / "supervisor.metrics")
    fits = ServedModel("toy", "toy", "1", "", model_bytes=1000)
    huge = ServedModel("toy", "toy", "2", "", model_bytes=2**60)
    found = [fits]
    source = Source(lambda _: found[0], lambda: len(found), 0.0)
    swap = HotSwap(["toy"], source, tmp_path, Log("json", log), metrics)
    swap.start()
    found[:] = [huge, huge]
    until(lambda: bool(swap.poll([object()]) or swap.failed))  # type: ignore[list-item]
    assert "version 2: its model has 1152921504607 MB" in swap.failed["toy"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_is_left_when_the_server_ends_while_one_loads(registry: Path, number: int) -> None:
    with serving(registry, models=["toy@live"], settings={"workers": 1, "drain": 1}) as server:
        open_registry(registry).set_alias("toy", "live", push_endless(registry, first(registry)))
        workers = server.workers()
        server.wait(lambda: loading(server), 60)
        server.process.send_signal(number)
        server.process.wait(20)
        server.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
