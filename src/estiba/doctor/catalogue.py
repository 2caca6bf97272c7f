"""The faults that the doctor knows, from the gravest to the lightest, and what a finding of one says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Severity = Literal["error", "warning", "note"]


class Fault(NamedTuple):
    """One kind of fault: `title` says what is wrong in general."""

    code: str
    severity: Severity
    title: str


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fault that was found.

    Args:
        file: as the user would name it; for something running, the container's name.
        line: counted from 1; 0 where there is none.
        message: one sentence that says what is wrong.
        fix: one sentence that says what to do.
    """

    code: str
    severity: Severity
    file: str
    line: int
    message: str
    fix: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Location(NamedTuple):
    """A place in a file; line 0 where there is none."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


FAULTS = (
    # What was seen to happen.
    Fault("out-of-memory", "error", "The kernel killed the container because it used more memory than its limit."),
    # What cannot be read or built.
    Fault("dockerfile-syntax", "error", "The Dockerfile has an instruction that no builder knows, or no FROM."),
    Fault("comment-after-backslash", "error", "A comment after a `\\` ends the line, so that the rest is lost."),
    Fault("trailing-comment", "error", "A comment behind an instruction is taken as its arguments."),
    Fault("copy-shell", "error", "COPY or ADD with shell syntax such as `2>/dev/null || true`, which no shell reads."),
    Fault("json-quotes", "error", "An exec form in single quotes is no JSON and runs as a shell command."),
    Fault("exec-variable", "error", "A variable in an exec form stays as it is written, as no shell reads it."),
    Fault("compose-invalid", "error", "The compose file cannot be read, or names something that it does not define."),
    Fault("project-file", "error", "The project file estiba.toml has a mistake."),
    Fault("copy-missing", "error", "COPY names something that the build context, or the other stage, does not have."),
    # What starts and cannot work.
    Fault("model-missing", "error", "The model is not in the container at the path that the program loads."),
    Fault("module-missing", "error", "A Python module that the program imports is not installed."),
    Fault("system-library-missing", "error", "A wheel needs a system library that the slim base does not have."),
    Fault("pickle-version", "error", "The model was pickled by another version of the library than is installed."),
    Fault("permission-denied", "error", "The program reads or writes what its user has no right to."),
    Fault("crashed", "error", "The container ended with an error, or does so after each start."),
    Fault("loopback-host", "error", "The program listens on 127.0.0.1, which only its own container can reach."),
    Fault("port-mismatch", "error", "The published port leads to a port on which the program does not listen."),
    Fault("health-port", "error", "The health check asks a port on which the program does not listen."),
    Fault("curl-missing", "error", "The health check calls a program that the image does not have."),
    Fault("unhealthy", "error", "The health check of a running container fails."),
    Fault("depends-on-no-health", "error", "A service waits for the health of one that has no health check."),
    # What lets strangers in.
    Fault("secret-in-layer", "error", "A secret is kept in the image, where whoever has the image can read it."),
    Fault("default-password", "error", "A password that everybody knows, or none at all."),
    Fault("debug-mode", "error", "The debugger is on: it may run any code for whoever reaches the port."),
    # What works and will hurt.
    Fault("secret-in-compose", "warning", "A secret is written in the compose file."),
    Fault("development-server", "warning", "A server made for development answers in production."),
    Fault("root-user", "warning", "The program runs as root."),
    Fault("start-period-short", "warning", "The container is called unhealthy before the program can have started."),
    Fault("depends-on-order", "warning", "`depends_on` without a condition waits for the start, not for health."),
    Fault("bind-hides-code", "warning", "A folder of the host is mounted over the code in the image."),
    Fault("stale-volume", "warning", "A volume keeps the files of the first image over those of every later one."),
    Fault("threads-over-cpus", "warning", "More threads or workers than the container's processors."),
    Fault("shell-form", "warning", "A shell is process 1 and does not pass signals on, so a stop loses requests."),
    Fault("cache-order", "warning", "The code is copied before the dependencies are installed, again at every change."),
    Fault("missing-dockerignore", "warning", "There is no .dockerignore, and the whole folder is copied."),
    Fault("dockerignore-gaps", "warning", "The .dockerignore lets into the image what nobody needs there."),
    Fault("base-end-of-life", "warning", "The base image gets no security fixes any more."),
    Fault("unpinned-base", "warning", "The base image has no version: another one may come with the next build."),
    Fault("unpinned-requirements", "warning", "Requirements without versions: the next build may install others."),
    Fault("cuda-in-image", "warning", "Image too big: the CUDA build of a library, where nothing asks for a GPU."),
    Fault("full-base", "warning", "Image too big: a full base image with compilers and headers."),
    Fault("build-tools", "warning", "Image too big: compilers stay in the image that runs."),
    Fault("dev-requirements", "warning", "Image too big: tools for development or notebooks are installed."),
    Fault("image-too-big", "warning", "Image too big: over a gigabyte, measured."),
    # What would be better.
    Fault("pip-cache", "note", "pip's cache stays in the image."),
    Fault("expose-mismatch", "note", "EXPOSE names another port than the program listens on."),
    Fault("no-healthcheck", "note", "Nothing checks whether the program answers."),
    Fault("no-restart", "note", "A service that ends is not started again."),
    Fault("no-limits", "note", "A service may take all memory of the machine."),
    Fault("compose-version", "note", "`version:` means nothing in a compose file any more."),
)
"""The order is that in which findings are shown: severity first, then what stands in the way of the rest."""


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


_RANK = {fault.code: rank for rank, fault in enumerate(FAULTS)}


def finding(code: str, at: Location, message: str, fix: str) -> Finding:
    """A finding of a fault in the catalogue. `message` and `fix` are one sentence each."""
    return Finding(code, FAULTS[_RANK[code]].severity, at.file, at.line, message, fix)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The main fault first; what is said twice of one place, or alike of several lines, is said once."""
    kept = {(found.code, found.where, found.message): found for found in findings}
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for found in sorted(kept.values(), key=lambda found: (_RANK[found.code], found.file, found.line)):
        alike.setdefault((found.code, found.file, found.message), []).append(found)
    return [_one(group) for group in alike.values()]


def _one(group: list[Finding]) -> Finding:
    """The first of findings that say the same of several lines of a file, with the other lines named."""
    first, *others = group
    if not others:
        return first
    lines = listed(str(found.line) for found in others)
    message = f"{first.message.removesuffix('.')}; so too on line{'s' if len(others) > 1 else ''} {lines}."
    return msgspec.structs.replace(first, message=message)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in a sentence, such as `a, b and 3 more`."""
    every = list(names)
    if len(every) > most:
        return f"{', '.join(every[: most - 1])} and {len(every) - most + 1} more"
    return " and ".join([*([", ".join(every[:-1])] if every[1:] else []), *every[-1:]])
