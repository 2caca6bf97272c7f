"""Stack: a Compose project as it is written and as it runs, asked by way of the program `docker`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from estiba.core import shell
from estiba.core.cli_program import DOCKER, MAX_REPORTED_LINES


@dataclass(frozen=True)
class Stack:
    """A Compose project.

    Args:
        folder: of compose.yaml. profiles: that take part. rolling: services that are replaced one beside the other.
        timeout: seconds in which all must become healthy.
        draft: a folder with the files that are to be, where they are not in `folder` yet.
    """

    folder: Path
    profiles: tuple[str, ...] = ()
    rolling: frozenset[str] = frozenset()
    timeout: float = 300.0
    draft: Path | None = None

    def compose(self, *words: str) -> shell.Finished:
        """Runs `docker compose` to its end; raises NotFound where docker is not installed."""
        chosen = [word for name in self.profiles for word in ("--profile", name)]
        files = [] if self.draft is None else ["--file", str(self.draft / "compose.yaml")]
        settings = self.folder / ".env"
        if self.draft is not None and not settings.exists():
            settings = self.draft / ".env"
        named = ["--project-directory", str(self.folder), *files, "--env-file", str(settings)]
        return self.docker("compose", *named, *chosen, *words)

    def docker(self, *words: str) -> shell.Finished:
        return DOCKER.run(*words)

    def ask(self, *words: str) -> str:
        """What `docker compose` answers; raises EstibaError with its own words where it fails."""
        done = self.compose(*words)
        if done.code:
            raise DOCKER.failure(f"docker compose {words[0]}: {done.said}", done.said)
        return done.output

    @cached_property
    def project(self) -> Mapping[str, Any]:
        """What compose.yaml has of the services that take part."""
        found: Mapping[str, Any] = json.loads(self.ask("config", "--format", "json"))
        return found

    @property
    def wanted(self) -> Mapping[str, Any]:
        """The services that take part."""
        found: Mapping[str, Any] = self.project.get("services", {})
        return found

    def containers(self) -> list[dict[str, Any]]:
        """What there is of it, running or not."""
        read = (json.loads(line) for line in self.ask("ps", "--all", "--format", "json").splitlines())
        rows = [row | {"Labels": _labels(row["Labels"])} for row in read]
        return [row for row in rows if row["Labels"].get("com.docker.compose.oneoff") != "True"]  # somebody's own

    def last_words(self, containers: Sequence[str]) -> str:
        """The end of the log of the first of them."""
        if not containers:
            return ""
        done = self.docker("logs", "--tail", str(MAX_REPORTED_LINES), containers[0])
        return "\n".join((done.output + done.errors).splitlines()[-MAX_REPORTED_LINES:])


def _labels(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {key: value for key, _, value in pairs}
