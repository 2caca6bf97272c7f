"""`estiba deploy compose` reports errors before anything changes. Successful deployments are in test_stack.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Docker
from projects import stack

from estiba.cli.main import run
from estiba.core.ports import free

pytestmark = pytest.mark.slow


def test_without_docker_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 4
    assert "docker is not installed, or not on PATH." in capsys.readouterr().err
    assert not (tmp_path / "deploy").exists()


def test_without_an_engine_it_says_so(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 6
    assert "Start Docker" in capsys.readouterr().err


def test_an_image_that_was_not_built_is_named_before_anything_changes(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(tmp_path)
    file = tmp_path / "estiba.toml"
    file.write_text(file.read_text().replace('name = "shop"', f'name = "{docker.name}-d"'))
    monkeypatch.setenv("KEY", "x")
    assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 4
    said = capsys.readouterr().err
    assert "nothing was changed" in said
    assert "estiba build" in said
    assert not (tmp_path / "deploy").exists()


SMALL = """
[project]
name = "{name}"

[services.web]
image = "debian:bookworm-slim"
command = ["sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]
health = ["true"]

[services.setup]
image = "debian:bookworm-slim"
command = ["sh", "-c", "{task}"]
restart = false
"""


@pytest.fixture
def small(docker: Docker, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Deploys a service and a task that does what it is told."""
    docker.need("debian:bookworm-slim")

    def deploy(task: str, *words: str) -> int:
        (tmp_path / "estiba.toml").write_text(SMALL.format(name=f"{docker.name}-t", task=task))
        return run(["deploy", "compose", "-C", str(tmp_path), "--yes", *words])

    yield deploy
    docker("compose", "down", "--timeout", "1", folder=tmp_path / "deploy" / "compose")


def test_a_task_is_waited_for(small: Callable[..., int], capsys: pytest.CaptureFixture[str], docker: Docker) -> None:
    began = time.monotonic()
    assert small("sleep 4; echo done") == 0
    assert time.monotonic() - began > 4
    assert "All services are ready" in capsys.readouterr().out
    assert small("sleep 4; echo done") == 0
    assert "task     setup" in capsys.readouterr().out
    assert docker("compose", "logs", "setup", folder=deployed(docker)).count("done") == 2


def test_a_task_that_fails_is_named_and_taken_back(
    small: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert small("true") == 0
    assert small("sleep 2; echo no such table; exit 3") == 1
    said = capsys.readouterr().err
    assert "setup is exited (exit code 3).\nno such table" in said
    assert "The last healthy deployment runs again." in said


@pytest.mark.parametrize(("script", "remedy"), [("chown 5 /tmp", "user = 999"), ("mkdir /new", "`writable`")])
def test_what_a_hardened_container_may_not_do_has_a_remedy(
    small: Callable[..., int], capsys: pytest.CaptureFixture[str], script: str, remedy: str
) -> None:
    assert small(script) == 1
    assert remedy in capsys.readouterr().err.partition("hint: ")[2]


def test_a_task_that_does_not_end_is_named(small: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert small("echo counting; sleep 600", "--timeout", "4") == 1
    assert "setup is still running.\ncounting" in capsys.readouterr().err


def test_an_image_that_nobody_has_is_no_success(
    small: Callable[..., int], capsys: pytest.CaptureFixture[str], docker: Docker
) -> None:
    """The container of before runs on, and is healthy."""
    assert small("true") == 0
    file = deployed(docker) / "../../estiba.toml"  # the same project by another path
    file.write_text(file.read_text().replace("debian:bookworm-slim", "localhost:1/nobody/has:this", 1))
    assert run(["deploy", "compose", "-C", str(file.parent), "--yes"]) == 1
    said = capsys.readouterr().err
    assert "localhost:1" in said
    assert "The last healthy deployment runs again." in said
    assert "localhost:1" not in (deployed(docker) / "compose.yaml").read_text()


def deployed(docker: Docker) -> Path:
    """The folder that the small project was deployed from."""
    label = "com.docker.compose.project.working_dir"
    question = [
        "--filter",
        f"label=com.docker.compose.project={docker.name}-t",
        "--format",
        f'{{{{.Label "{label}"}}}}',
    ]
    return Path(docker("ps", "--all", *question).splitlines()[0])


SICK = """
[project]
name = "{name}"

[services.db]
image = "debian:bookworm-slim"
command = ["sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]
port = {port}
health = ["sh", "-c", "echo {port} - no response; exit 2"]

[services.web]
image = "debian:bookworm-slim"
command = ["sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]
health = ["true"]
needs = ["db"]
"""


def test_the_time_limit_holds_where_others_wait_and_the_health_check_is_quoted(
    docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.need("debian:bookworm-slim")
    (tmp_path / "estiba.toml").write_text(SICK.format(name=f"{docker.name}-h", port=free("127.0.0.1")))
    began = time.monotonic()
    try:
        assert run(["deploy", "compose", "-C", str(tmp_path), "--yes", "--timeout", "8"]) == 1
        seconds = time.monotonic() - began
    finally:
        docker("compose", "down", "--timeout", "1", folder=tmp_path / "deploy" / "compose")
    said = capsys.readouterr().err
    assert "db is not healthy yet." in said
    assert "The last health check ended with exit code 2: " in said
    assert "- no response" in said
    assert "It listens on no port, not on" in said
    assert seconds < 20
