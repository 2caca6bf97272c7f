"""A service that nobody can ask about its health has to stay up before a deployment counts as good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Docker

from estiba import project
from estiba.cli.main import run
from estiba.deploy.kubernetes.render import render
from estiba.deploy.plan.timing import STARTED_SECONDS
from estiba.planning import lower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

WORKER = """
[project]
name = "{name}"

[services.worker]
image = "debian:bookworm-slim"
command = ["sh", "-c", "{code}"]
user = 1000
"""


@pytest.fixture
def worker(docker: Docker, tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Deploys a service that does what it is told."""
    docker.need("debian:bookworm-slim")

    def deploy(code: str) -> int:
        (tmp_path / "estiba.toml").write_text(WORKER.format(name=f"{docker.name}-s", code=code))
        return run(["deploy", "compose", "-C", str(tmp_path), "--yes"])

    yield deploy
    docker("compose", "down", "--timeout", "1", folder=tmp_path / "deploy" / "compose")


def test_one_that_ends_every_few_seconds_is_named_and_taken_back(
    worker: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker("trap 'exit 0' TERM; sleep 600 & wait") == 0
    assert worker("sleep 5; echo no queue; exit 3") == 1
    said = capsys.readouterr().err
    assert (
        "worker has no health check, and did not stay up for 10 seconds.\nworker is restarting (exit code 3).\nno queue"
        in said
    )
    assert "The last healthy deployment runs again." in said


def test_a_cluster_waits_as_long(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text(WORKER.format(name="shop", code="sleep 600"))
    found = project.load(tmp_path)
    rendered = render(lower(found), found.kubernetes)
    assert f"minReadySeconds: {STARTED_SECONDS}" in rendered.texts["base/worker.yaml"]
