"""Container engines: docker, podman and buildah, each through its command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.core import shell
from estiba.core.cli_program import MAX_REPORTED_LINES, CliProgram, Hint
from estiba.core.errors import EstibaError, NotFound

PROGRAMS = ("docker", "podman", "buildah")

_HINTS = (
    Hint(
        "no space left",
        "A disk is full: the container engine's (docker system prune), or that of temporary files (TMPDIR).",
    ),
    Hint("buildx component is missing", "Install Docker's plugin buildx (docker-buildx), or pass --builder podman."),
    Hint(
        "error setting rlimit",
        "The container engine may not raise limits here: lower default_ulimits in containers.conf.",
    ),
    Hint(
        "slirp4netns",
        "Without root, podman publishes ports through slirp4netns: install it, and let it use /dev/net/tun.",
    ),
    Hint("unknown flag", "This container engine is too old: Docker 23 or podman 4 is needed."),
    Hint("denied while trying to connect", "This user may not use the container engine: add it to its group."),
    Hint("cannot connect", "Start the container engine, or build without one: estiba build --oci DIR."),
    Hint(
        "pull access denied",
        "The base image is not on this machine and cannot be pulled: load it, or build with --offline.",
    ),
    Hint(
        "failed to resolve|failed to do request",
        "The base image is not on this machine and the registry cannot be reached: load it, or build with --offline.",
    ),
)


class StepFailed(EstibaError):
    """A step of a build failed. `output` is what the builder said last."""

    def __init__(self, message: str, said: Sequence[str], *, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.output = "\n".join(said[-MAX_REPORTED_LINES:])


@dataclass(frozen=True)
class Engine:
    """One of PROGRAMS, found to work."""

    program: str

    @property
    def _cli(self) -> CliProgram:
        return CliProgram(self.program, _HINTS)

    @property
    def can_run(self) -> bool:
        """Whether it runs services with limits, as a deployment does; buildah only builds."""
        return self.program != "buildah"

    def build(self, folder: Path, *, network: bool, on_line: Callable[[str], None]) -> str:
        """Builds the image of a folder with a Dockerfile and returns its id; it gets no name yet.

        Args:
            network: whether steps may use the network. on_line: is told what the program says.

        Raises:
            EstibaError: a step failed; says which.
        """
        identity = folder.parent / f"{folder.name}.id"
        command = ["bud" if self.program == "buildah" else "build", "--iidfile", str(identity)]
        # In a chroot, buildah has no network of its own that it could leave out.
        chroot = self.program != "docker" and os.environ.get("BUILDAH_ISOLATION") == "chroot"
        command += ["--network", "host" if chroot else "none"] if chroot or not network else []
        if self.program == "docker":
            command += ["--pull=false", "--progress", "plain"]
        else:
            command += ["--pull=missing", "--format", "docker", "--timestamp", "0", "--layers"]
        done = self._cli.run(*command, str(folder), environment={"DOCKER_BUILDKIT": "1"}, on_line=on_line)
        if done.code:
            failure = self._failure("build the image", done.output)
            raise StepFailed(failure.message, done.output.splitlines(), hint=failure.hint)
        try:
            return identity.read_text().strip()
        finally:
            identity.unlink()

    def ask(self, *words: str, timeout: float | None = None) -> str:
        """What the program answers; raises EstibaError where it fails."""
        done = self._cli.run(*words, timeout=timeout)
        if done.code:
            raise self._failure(" ".join(word for word in words[:2] if not word.startswith("-")), done.said)
        return done.output.strip()

    def try_to(self, *words: str, timeout: float | None = None) -> shell.Finished:
        """Run the program, whatever its exit code; raises EstibaError after `timeout` seconds."""
        return self._cli.run(*words, timeout=timeout)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What it knows of an `image` or a `container`."""
        found: list[dict[str, Any]] = json.loads(self.ask(kind, "inspect", name))
        return found[0]

    def has(self, image: str) -> bool:
        words = ("inspect", "--type", "image", image) if self.program == "buildah" else ("image", "inspect", image)
        return self.try_to(*words).code == 0

    def digest(self, image: str) -> str:
        """The digest of an image, with its algorithm: of its manifest if that is known, and else of its configuration.

        Empty where the image is not here, as BuildKit does not keep what it pulls where `docker image` looks.
        """
        if not self.has(image):
            return ""
        if self.program == "buildah":
            found = json.loads(self.ask("inspect", "--type", "image", image))
            return str(found["FromImageDigest"])
        found = self.inspect("image", image)
        known = [name.rpartition("@")[2] for name in found.get("RepoDigests") or ()]
        return str(next(iter(known), found.get("Digest") or found["Id"]))

    def save(self, image: str, path: Path) -> None:
        """Writes an image as an archive that `docker load` reads."""
        if self.program == "buildah":
            self.ask("push", image, f"docker-archive:{path}")
        elif self.program == "podman":
            self.ask("save", "--format", "docker-archive", "-o", str(path), image)
        else:
            self.ask("save", "-o", str(path), image)

    def load(self, path: Path) -> None:
        """Takes in an image archive."""
        if self.program == "buildah":
            self.ask("pull", f"docker-archive:{path}")
        else:
            self.ask("load", "-i", str(path))

    def tag(self, image: str, name: str) -> None:
        """Gives an image, by its id, a name. What had that name before and has no other goes, unless it is in use."""
        before = self.inspect("image", name) if self.can_run and self.has(name) else {}
        self.ask("tag", image, name)
        if len(before.get("RepoTags") or ()) == 1 and _bare(before["Id"]) != _bare(image):
            self.remove(before["Id"])

    def remove(self, image: str) -> None:
        """Forgets an image that has no other name; one that is in use stays."""
        self.try_to("rmi", image)

    def _failure(self, deed: str, said: str) -> EstibaError:
        words = said.strip()
        last = (
            [line for line in words.splitlines() if "error" in line.lower()]
            or words.splitlines()
            or ["it said nothing"]
        )
        failed = f"{self.program} cannot {deed}" if " " in deed else f"{self.program} {deed} failed"
        return self._cli.failure(f"{failed}: {last[-1].strip()}", words)


def _bare(identity: str) -> str:
    return identity.removeprefix("sha256:")


def find(named: str | None = None) -> Engine:
    """A container engine that answers.

    Args:
        named: one of PROGRAMS; by default the first that works.

    Raises:
        NotFound: none is here, or none answers.
    """
    reasons: Mapping[str, str] = {}
    for program in [named] if named else PROGRAMS:
        reason = _trouble(program)
        if not reason:
            return Engine(program)
        reasons = {**reasons, program: reason}
    said = "; ".join(f"{program}: {reason}" for program, reason in reasons.items())
    hint = CliProgram("docker", _HINTS).find_hint(said)
    advice = "Install and start one of them, or build without: estiba build --oci DIR." if hint is None else hint.text
    raise NotFound(f"No container engine works here ({said}).", hint=advice)


def _trouble(program: str) -> str:
    if shutil.which(program) is None:
        return "not installed"
    done = CliProgram(program).run("info", timeout=60)
    if done.code == 0 and "Cannot connect" not in done.errors:
        return ""
    lines = [line.strip() for line in done.said.splitlines()] or ["does not answer"]
    # Docker says what is wrong first, and last that it cannot print the rest.
    return next((line for line in lines if line.lower().startswith("error:")), lines[-1])
