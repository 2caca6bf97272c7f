"""Run Docker for tests, label all that a run creates, and remove it at the end."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Docker:
    """A Docker engine, and a name for one run of tests: `label` and `project` are the options that set it."""

    name: str = field(default_factory=lambda: f"estiba-test-{uuid.uuid4().hex[:8]}")

    @property
    def label(self) -> str:
        """An option of docker run, create, build, network create and volume create."""
        return f"--label=org.estiba.test={self.name}"

    @property
    def project(self) -> str:
        """An option of docker compose."""
        return f"--project-name={self.name}"

    def __call__(self, *arguments: str, text: str = "", folder: Path | None = None, seconds: float = 100) -> str:
        """Run `docker ARGUMENTS...` with `text` as input; return its output, or raise AssertionError with its error."""
        done = self.attempt(*arguments, text=text, folder=folder, seconds=seconds)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout.strip()

    def attempt(
        self, *arguments: str, text: str = "", folder: Path | None = None, seconds: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS...` and return the finished process, even if it failed."""
        command = ["docker", *arguments]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=folder, timeout=seconds, check=False
        )

    def need(self, *images: str) -> None:
        """Skip the test if an image is not on this machine: tests pull nothing."""
        for image in images:
            if self.attempt("image", "inspect", image).returncode:
                pytest.skip(f"The image {image} is not here: docker pull {image}, or scripts/lab/images {image}.")

    def forget(self) -> None:
        """Remove all containers, networks, volumes and images with this run's name."""
        for label in (f"org.estiba.test={self.name}", f"com.docker.compose.project={self.name}"):
            chosen = ["--quiet", "--filter", f"label={label}"]
            for listing, removal in (
                (["ps", "--all"], ["rm", "--force", "--volumes"]),
                (["network", "ls"], ["network", "rm"]),
                (["volume", "ls"], ["volume", "rm", "--force"]),
                (["image", "ls"], ["rmi", "--force"]),
            ):
                if found := set(self(*listing, *chosen).split()):
                    self.attempt(*removal, *found)
        # `docker compose down` leaves the volumes that `estiba deploy compose` makes beside those of the services.
        if left := self("volume", "ls", "--quiet", "--filter", f"name={self.name}").split():
            self.attempt("volume", "rm", "--force", *left)


@contextmanager
def docker_engine() -> Iterator[Docker]:
    """A Docker engine with Compose, cleaned up afterwards. Without one, the test is skipped with a reason."""
    found = Docker()
    for question in (["info"], ["buildx", "version"], ["compose", "version"]):
        if why := _refusal(found, *question):
            pytest.skip(f'docker {question[0]}: {why}; scripts/lab/docker helps; then: eval "$(scripts/lab/env)"')
    try:
        yield found
    finally:
        found.forget()


def _refusal(docker: Docker, *question: str) -> str | None:
    try:
        done = docker.attempt(*question, seconds=30)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or "no answer").splitlines()[0] if done.returncode else None
