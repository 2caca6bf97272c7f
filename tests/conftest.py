"""A registry of toy models, a server of them, and a client. Made once per run, when a test first asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toys import CHURN, CHURN_ROW, PRICE, Live, toy

from estiba.model.registry.registry import open_registry


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="Write golden files anew.")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_children() -> None:
    """A shell that starts the tests in the background ignores SIGINT for them, and what they start would inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def english_messages() -> None:
    """Tests read messages in English, on a machine of any language."""
    os.environ["ESTIBA_LANG"] = "en"


@pytest.fixture(scope="session")
def toy_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with `churn` (every common kind of field) and `price` (one number), version 1 of each."""
    folder = tmp_path_factory.mktemp("toys")
    registry = open_registry(folder / "registry")
    registry.push(toy("churn", CHURN, CHURN_ROW, folder))
    registry.push(toy("price", PRICE, {"x": 1.0}, folder, unstable=True))
    return folder / "registry"


@pytest.fixture(scope="session")
def start_server(toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Live]]:
    """Starts a server of models of the toy registry, with settings of ServerOptions; ended with the tests."""
    running: list[subprocess.Popen[str]] = []
    folder = tmp_path_factory.mktemp("servers")

    def start(*models: str, registry: str = "", gateway: dict[str, Any] | None = None, **settings: Any) -> Live:
        drift = settings.pop("drift", {})
        log = folder / f"{len(running)}.log"
        spec = {
            "registry": registry or str(toy_registry),
            "models": models,
            "settings": settings,
            "gateway": gateway or {},
            "drift": drift,
        }
        script = str(Path(__file__).parent / "support" / "toy_server.py")
        with log.open("w") as stderr:
            command = [sys.executable, script, msgspec.json.encode(spec).decode()]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://"), log.read_text()
        return Live(process, int(line.rsplit(":", 1)[1]), log)

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in running:
        process.wait(15)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Live]) -> Live:
    """A server of `churn` and `price`, with `churn` as the default model."""
    return start_server("churn", "price", default="churn")


@pytest.fixture(scope="session")
def http(server: Live) -> Iterator[Any]:
    """An httpx client of `server`."""
    import httpx

    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """On a user's machine a test whose server is missing skips; in CI, which installs them all, nothing may."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if skipped and os.environ.get("CI") == "true":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"CI: {len(skipped)} tests were skipped, and none may be.", red=True)
