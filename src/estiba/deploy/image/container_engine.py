"""Run the container engines docker, podman and buildah through their command lines."""

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
    Hint(
        "buildx component is missing",
        "Install Docker's plugin buildx (docker-buildx), pass --builder podman, or build without an engine: --oci DIR.",
    ),
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
    """A step of a build failed. `output` is the end of the builder's output."""

    def __init__(self, message: str, lines: Sequence[str], *, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.output = "\n".join(lines[-MAX_REPORTED_LINES:])


@dataclass(frozen=True)
class Engine:
    """A container engine that works, one of PROGRAMS."""

    program: str

    @property
    def _cli(self) -> CliProgram:
        return CliProgram(self.program, _HINTS)

    @property
    def can_run(self) -> bool:
        """True if it runs containers with the limits of a deployment; buildah only builds."""
        return self.program != "buildah"

    def build(self, folder: Path, *, network: bool, on_line: Callable[[str], None]) -> str:
        """Build the image of a folder with a Dockerfile, and return its id; it gets no name yet.

        Args:
            network: let steps use the network. on_line: called with each line of the program's output.

        Raises:
            EstibaError: a step failed; the message names it.
        """
        identity = folder.parent / f"{folder.name}.id"
        command = ["bud" if self.program == "buildah" else "build", "--iidfile", str(identity)]
        # In a chroot, buildah shares the network of the host and cannot switch it off.
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

    def ask(self, *arguments: str, timeout: float | None = None) -> str:
        """Run the program and return its output; raise EstibaError if it fails."""
        done = self._cli.run(*arguments, timeout=timeout)
        if done.code:
            command = " ".join(argument for argument in arguments[:2] if not argument.startswith("-"))
            raise self._failure(command, done.said)
        return done.output.strip()

    def try_to(self, *arguments: str, timeout: float | None = None) -> shell.Finished:
        """Run the program, whatever its exit code; raise EstibaError after `timeout` seconds."""
        return self._cli.run(*arguments, timeout=timeout)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """Return the description of an `image` or a `container`."""
        descriptions: list[dict[str, Any]] = json.loads(self.ask(kind, "inspect", name))
        return descriptions[0]

    def has(self, image: str) -> bool:
        """Return True if the image is on this machine."""
        argv = ("inspect", "--type", "image", image) if self.program == "buildah" else ("image", "inspect", image)
        return self.try_to(*argv).code == 0

    def digest(self, image: str) -> str:
        """The digest of an image, with its algorithm: of its manifest if that is known, else of its configuration.

        Empty if the engine does not have the image: BuildKit keeps pulled images where `docker image` does not look.
        """
        if not self.has(image):
            return ""
        if self.program == "buildah":
            return str(json.loads(self.ask("inspect", "--type", "image", image))["FromImageDigest"])
        description = self.inspect("image", image)
        known = [name.rpartition("@")[2] for name in description.get("RepoDigests") or ()]
        return str(next(iter(known), description.get("Digest") or description["Id"]))

    def save(self, image: str, path: Path) -> None:
        """Write an image as an archive that `docker load` reads."""
        if self.program == "buildah":
            self.ask("push", image, f"docker-archive:{path}")
        elif self.program == "podman":
            self.ask("save", "--format", "docker-archive", "-o", str(path), image)
        else:
            self.ask("save", "-o", str(path), image)

    def load(self, path: Path) -> None:
        """Load the images of an archive."""
        if self.program == "buildah":
            self.ask("pull", f"docker-archive:{path}")
        else:
            self.ask("load", "-i", str(path))

    def tag(self, image: str, name: str) -> None:
        """Give an image, named by its id, a name. An unused image that had only this name is removed."""
        before = self.inspect("image", name) if self.can_run and self.has(name) else {}
        self.ask("tag", image, name)
        if len(before.get("RepoTags") or ()) == 1 and _bare(before["Id"]) != _bare(image):
            self.remove(before["Id"])

    def remove(self, image: str) -> None:
        """Remove an image that has no other name; one that is in use stays."""
        self.try_to("rmi", image)

    def _failure(self, action: str, output: str) -> EstibaError:
        lines = output.strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines or ["it printed nothing"]
        failed = f"{self.program} cannot {action}" if " " in action else f"{self.program} {action} failed"
        return self._cli.failure(f"{failed}: {errors[-1].strip()}", output.strip())


def _bare(identity: str) -> str:
    return identity.removeprefix("sha256:")


def find(program: str | None = None) -> Engine:
    """Find a container engine that works.

    Args:
        program: one of PROGRAMS; by default the first that works.

    Raises:
        NotFound: none is installed, or none works.
    """
    reasons: Mapping[str, str] = {}
    for name in [program] if program else PROGRAMS:
        reason = trouble(name)
        if not reason:
            return Engine(name)
        reasons = {**reasons, name: reason}
    summary = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    hint = CliProgram("docker", _HINTS).find_hint(summary)
    advice = (
        "Install and start one of them, or build without a container engine: estiba build --oci DIR."
        if hint is None
        else hint.text
    )
    raise NotFound(f"No container engine works here ({summary}).", hint=advice)


def trouble(program: str) -> str:
    """The reason why a container engine does not work, in a few words; empty if it works."""
    if shutil.which(program) is None:
        return "not installed"
    done = CliProgram(program).run("info", timeout=60)
    if done.code == 0 and "Cannot connect" not in done.errors:
        return ""
    lines = [line.strip() for line in done.said.splitlines()] or ["does not answer"]
    # Docker prints the cause first, and at the end that it cannot print the rest.
    return next((line for line in lines if line.lower().startswith("error:")), lines[-1])
