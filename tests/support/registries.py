"""Run container registries for tests: Debian's docker-registry on the loopback address, with or without users."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from estiba.core import ports

USER, PASSWORD = "me", "s3cret-push"

HTPASSWD = "me:$2b$04$dbE6OlkX7dt6M.xl1xrpEuuz7gt2BpbERo6vCy7YfMmFIvMMfVME6\n"
"""bcrypt of the above, the only form that the registry takes."""

_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Registry:
    """A registry that runs."""

    host: str

    def digest(self, image: str, reference: str) -> str | None:
        """The digest that the registry has for a tag or digest; None if it has none."""
        repository = image.removeprefix(f"{self.host}/").rpartition(":")[0]
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        headers = {"accept": _TYPES, "authorization": f"Basic {basic}"}
        try:
            with urlopen(Request(f"http://{self.host}/v2/{repository}/manifests/{reference}", None, headers)) as answer:
                return str(answer.headers["Docker-Content-Digest"])
        except HTTPError:
            return None

    def let_in(self, folder: Path, monkeypatch: pytest.MonkeyPatch, password: str = PASSWORD) -> None:
        """Log every client of this test in, as `login` does."""
        auths = {self.host: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}
        settings = _docker_settings() | {"auths": auths}
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings))
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(folder / "config.json"))


def _docker_settings() -> dict[str, object]:
    """The configuration of the docker client, which names the folders of its plugins."""
    path = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    with suppress(OSError):
        found: dict[str, object] = json.loads(path.read_text())
        return found
    return {}


@contextmanager
def registry(folder: Path, *, users: bool = False, read_only: bool = False) -> Iterator[Registry]:
    """Starts a registry that keeps its images in a folder, and ends it."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD)
    found = Registry(f"127.0.0.1:{ports.free('127.0.0.1')}")
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "images")},
            "maintenance": {"readonly": {"enabled": read_only}},
        },
        "http": {"addr": found.host, "secret": "of a test"},
    }
    if users:
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait(server, found, folder / "log")
        yield found
    finally:
        server.terminate()
        server.wait(20)


def _wait(server: subprocess.Popen[bytes], found: Registry, log: Path) -> None:
    for _ in range(200):
        assert server.poll() is None, log.read_text()
        with suppress(URLError):
            with suppress(HTTPError):  # it asks who we are, so it is there
                urlopen(f"http://{found.host}/v2/").close()
            return
        time.sleep(0.05)
    raise AssertionError(f"the registry did not come up: {log.read_text()}")
