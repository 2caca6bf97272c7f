"""Programs with a command line: what fails has a hint, and the type of error that callers tell apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.core.cli_program import DOCKER, CliProgram, Hint
from estiba.core.errors import EstibaError, NotFound, Unavailable

HINTS = (Hint("no space left", "Free the disk."), Hint("timed? out", "Try again.", Unavailable))


@pytest.fixture
def program(tmp_path: Path) -> CliProgram:
    """A program that prints its arguments and fails where the first is `fail`."""
    path = tmp_path / "program"
    path.write_text('#!/bin/sh\n[ "$2" = fail ] && { echo "$3" >&2; exit 3; }\necho "$NAME" "$@"\n')
    path.chmod(0o755)
    return CliProgram(str(path), HINTS, arguments=("--context=live",), environment={"NAME": "shop"})


def test_output_of_a_command(program: CliProgram) -> None:
    assert program.output("get", "pods") == "shop --context=live get pods\n"
    assert program.run("get", environment={"NAME": "other"}).output == "other --context=live get\n"


@pytest.mark.parametrize(
    ("stderr", "error", "hint"),
    [
        ("write: No space left on device", EstibaError, "Free the disk."),
        ("request time out", Unavailable, "Try again."),
        ("something else", EstibaError, None),
    ],
)
def test_a_failure_has_the_hint_that_its_output_calls_for(
    program: CliProgram, stderr: str, error: type[EstibaError], hint: str | None
) -> None:
    with pytest.raises(EstibaError, match=f"fail: {stderr}") as caught:
        program.output("fail", stderr)
    assert type(caught.value) is error
    assert caught.value.hint == hint


def test_a_program_that_is_not_installed() -> None:
    with pytest.raises(NotFound, match="no-such-program is not installed, or not on PATH") as caught:
        CliProgram("no-such-program", install_hint="Install it.").run("version")
    assert caught.value.hint == "Install it."


@pytest.mark.parametrize(
    "stderr",
    [
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "failed to connect to the docker API at unix:///nowhere/docker.sock; check if the daemon is running",
    ],
)
def test_docker_whose_daemon_does_not_run(stderr: str) -> None:
    assert isinstance(DOCKER.failure("docker", stderr), Unavailable)
    assert not isinstance(DOCKER.failure("docker", "no such image"), Unavailable)
