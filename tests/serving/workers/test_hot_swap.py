"""A registry that hangs or is damaged in one place keeps nothing else from going on."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
from constant_load import Load
from supervised import BODY, Server, ask, pack, serving

from estiba.core.errors import EstibaError, NotFound, Unavailable
from estiba.model.registry.registry import open_registry
from estiba.serving.workers.registry_query import RegistryQuery

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
    asked = RegistryQuery(threading.current_thread, 5)
    while not asked.done:
        time.sleep(0.01)
    assert asked.result() is not threading.current_thread()


def test_a_question_that_fails_says_why() -> None:
    def fail(error: Exception) -> NoReturn:
        raise error

    for error, said in ((NotFound("no such model"), "no such model"), (OSError("odd"), "OSError: odd")):
        asked = RegistryQuery(lambda error=error: fail(error), 5)  # type: ignore[misc]
        while not asked.done:
            time.sleep(0.01)
        with pytest.raises(EstibaError, match=said):
            asked.result()


def test_a_question_is_given_up_after_a_while() -> None:
    enough = threading.Event()
    asked = RegistryQuery(enough.wait, 0.05)
    assert not asked.done
    time.sleep(0.1)
    assert asked.done
    with pytest.raises(Unavailable, match=r"0\.05 seconds"):
        asked.result()
    enough.set()
