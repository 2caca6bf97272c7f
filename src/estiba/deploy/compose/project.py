"""Run `docker compose` for one Compose project, and read its configuration and its containers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from estiba.core import shell
from estiba.core.cli_program import DOCKER, MAX_REPORTED_LINES

Container = dict[str, Any]
"""A row of `docker compose ps`, with its labels as a mapping."""


@dataclass(frozen=True)
class ComposeProject:
    """A Compose project on this machine's Docker.

    Args:
        folder: of compose.yaml. profiles: that are enabled.
        timeout_seconds: in which all services must become healthy.
        draft: a folder with rendered files that are not in `folder` yet.
    """

    folder: Path
    profiles: tuple[str, ...] = ()
    timeout_seconds: float = 300.0
    draft: Path | None = None

    def compose(self, *arguments: str, timeout: float | None = None) -> shell.Finished:
        """Run `docker compose` to its end, whatever its exit code; see `shell.run`.

        Raises:
            NotFound: docker is not installed. EstibaError: it took longer than `timeout` seconds.
        """
        profiles = [argument for name in self.profiles for argument in ("--profile", name)]
        files = [] if self.draft is None else ["--file", str(self.draft / "compose.yaml")]
        settings = self.folder / ".env"
        if self.draft is not None and not settings.exists():
            settings = self.draft / ".env"
        options = ["--project-directory", str(self.folder), *files, "--env-file", str(settings), *profiles]
        return self.docker("compose", *options, *arguments, timeout=timeout)

    def docker(self, *arguments: str, timeout: float | None = None) -> shell.Finished:
        """Run `docker` to its end, whatever its exit code. Raises as `compose` does."""
        return DOCKER.run(*arguments, timeout=timeout)

    def output(self, *arguments: str) -> str:
        """Return the output of a `docker compose` command; raises EstibaError with its complaint where it fails."""
        done = self.compose(*arguments)
        if done.code:
            raise DOCKER.failure(f"docker compose {arguments[0]}: {done.said}", done.said)
        return done.output

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration, resolved by Compose, of the services that are enabled."""
        config: Mapping[str, Any] = json.loads(self.output("config", "--format", "json"))
        return config

    @property
    def name(self) -> str:
        """The name of the Compose project."""
        return str(self.config["name"])

    @property
    def services(self) -> Mapping[str, Any]:
        """The configuration of each service that is enabled, by name."""
        services: Mapping[str, Any] = self.config.get("services", {})
        return services

    def config_hashes(self) -> dict[str, str]:
        """Return Compose's digest of the configuration of each service."""
        return dict(line.split() for line in self.output("config", "--hash", "*").splitlines())

    def containers(self) -> list[Container]:
        """List the containers of the project, running or not."""
        rows = (json.loads(line) for line in self.output("ps", "--all", "--format", "json").splitlines())
        containers = [row | {"Labels": _labels(row["Labels"])} for row in rows]
        # Those of `docker compose run` belong to a person.
        return [row for row in containers if row["Labels"].get("com.docker.compose.oneoff") != "True"]

    def log_tail(self, container: str) -> str:
        """Return the last lines of a container's log."""
        done = self.docker("logs", "--tail", str(MAX_REPORTED_LINES), container)
        return "\n".join((done.output + done.errors).splitlines()[-MAX_REPORTED_LINES:])


def _labels(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {key: value for key, _, value in pairs}
