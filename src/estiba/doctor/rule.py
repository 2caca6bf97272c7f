"""Define a rule of the doctor: one class with its code, severity, reason, example, remedy and checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import ClassVar

from estiba.doctor.finding import Finding, Location, Severity
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.compose_file import Compose
from estiba.doctor.read.containers import Container, Image
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.requirement_files import Requirements


@dataclass(frozen=True)
class Dependencies:
    """Installed packages and model files: those of an image, or of a folder without a Dockerfile.

    Args:
        requirements: the requirements files that are installed.
        models: paths of model files in `context`.
        image: None for a folder without a Dockerfile.
        containers: those that run the image.
    """

    requirements: Sequence[Requirements]
    models: Sequence[str]
    context: BuildContext
    image: Image | None = None
    containers: Sequence[Container] = ()


class Rule:
    """One kind of fault, with its documentation. A subclass overrides the checks of the subjects that can show it.

    Attributes:
        title: one sentence on what is wrong.
        reason: why it is bad.
        example: texts that show the fault, by file name. They replace files of a working project, and the rule finds
            itself in the result. Only with `shown_by` they are something else, such as the output of a command.
        remedy: what to do, in general; a finding says it for its case.
        shown_by: the test that shows the fault, for one that no text file shows.
        explains_exit: a finding of this rule in a container that exited is the cause of its exit.
    """

    code: ClassVar[str]
    severity: ClassVar[Severity]
    title: ClassVar[str]
    reason: ClassVar[str]
    example: ClassVar[Mapping[str, str]]
    remedy: ClassVar[str]
    shown_by: ClassVar[str] = ""
    explains_exit: ClassVar[bool] = False

    @classmethod
    def finding(cls, at: Location, message: str, fix: str) -> Finding:
        return Finding(cls.code, cls.severity, at.file, at.line, message, fix)

    @classmethod
    def check_image(cls, image: Image, today: date) -> Iterable[Finding]:
        """Check a Dockerfile with its build context."""
        return ()

    @classmethod
    def check_dependencies(cls, dependencies: Dependencies) -> Iterable[Finding]:
        """Check the installed packages and the model files."""
        return ()

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterable[Finding]:
        """Check a compose file as a whole. `containers` are its services with the images that are built here."""
        return ()

    @classmethod
    def check_container(cls, container: Container) -> Iterable[Finding]:
        """Check one container: a service of a compose file, or an image by itself."""
        return ()

    @classmethod
    def check_mounts(cls, container: Container, folder: Path) -> Iterable[Finding]:
        """Check one container against the files of the host. Paths of its compose file are relative to `folder`."""
        return ()

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterable[Finding]:
        """Check a container of Docker, running or stopped."""
        return ()
