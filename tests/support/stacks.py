"""Run the portfolio in containers, with its own project name and ports, for tests of stacks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from applications import clean, copied, registry
from lab import Docker


@dataclass(frozen=True)
class Stack:
    """A Compose project of the portfolio, with the services of these profiles."""

    folder: Path
    docker: Docker
    profiles: Sequence[str]
    offset: int

    def estiba(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "estiba", *words, "-C", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, env=clean(), timeout=800)

    def build(self, *services: str) -> None:
        done = self.estiba("build", "--no-verify", *services)
        assert done.returncode == 0, done.stderr

    def deploy(self) -> subprocess.CompletedProcess[str]:
        return self.estiba("deploy", "compose", "--yes", *(f"--profile={name}" for name in self.profiles))

    def change(self, old: str, new: str) -> None:
        file = self.folder / "estiba.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def compose(self, *words: str) -> str:
        chosen = [f"--profile={name}" for name in self.profiles]
        return self.docker("compose", *chosen, *words, folder=self.folder / "deploy" / "compose", seconds=600)

    def url(self, port: int) -> str:
        """The URL of the service with this port in the project file."""
        return f"http://127.0.0.1:{port + self.offset}"

    def ask(self, port: int, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(port) + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def containers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return next(row["ID"] for row in self.containers() if row["Service"] == service)

    def crash(self, container: str) -> None:
        """Kill the program of a container from outside of Docker, which restarts nothing after `docker kill`."""
        pid = self.docker("inspect", "--format={{.State.Pid}}", container)
        privileges = ["--rm", "--privileged", "--pid=host", self.docker.label]
        self.docker("run", *privileges, "debian:bookworm-slim", "sh", "-c", f"kill -9 {pid}")

    def ill(self) -> list[str]:
        """Services that do not run, or are not healthy; tasks that ended successfully are left out."""
        rows = [row for row in self.containers() if (row["State"], row["ExitCode"]) != ("exited", 0)]
        return [row["Service"] for row in rows if row["State"] != "running" or row["Health"] not in ("", "healthy")]


@contextmanager
def portfolio(docker: Docker, folder: Path, profiles: Sequence[str], head: str = "") -> Iterator[Stack]:
    """The portfolio with trained models, rendered and not up yet; all of it is removed at the end.

    Args:
        head: goes before its project file.
    """
    copied(folder)
    models = registry("iris", "bankchurn", "carvision", "telecom")
    text = (folder / "estiba.toml").read_text().replace('name = "portfolio"', f'name = "{docker.name}"', 1)
    (folder / "estiba.toml").write_text(head + text)
    (folder / ".estiba").mkdir(exist_ok=True)
    (folder / ".estiba" / "registry").symlink_to(models)
    found = Stack(folder, docker, profiles, 20000 + os.getpid() % 5000)
    try:
        done = found.estiba("compose")
        assert done.returncode == 0, done.stderr
        settings = folder / "deploy" / "compose" / ".env"
        moved = re.sub(
            r"# (ESTIBA_PORT_\w+=)(\d+)", lambda m: f"{m[1]}{int(m[2]) + found.offset}", settings.read_text()
        )
        settings.write_text(moved)
        yield found
    finally:
        if (folder / "deploy" / "compose" / "compose.yaml").exists():
            found.compose("down", "--volumes", "--timeout", "1")
        for image in docker("image", "ls", "--quiet", f"{docker.name}/*").split():
            docker.attempt("rmi", "--force", image)
