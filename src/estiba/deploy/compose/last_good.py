"""Keep the files of the last healthy deployment in a volume of Docker, which no cleaned checkout takes away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import explained, temporary
from estiba.deploy.compose.project import ComposeProject
from estiba.deploy.compose.render import GENERATED

FILES = ("compose.yaml", ".env", GENERATED)
"""Files of a deployment, beside its secrets."""

_MOUNTED = "/last-good"


def volume(project: ComposeProject) -> str:
    """Return the name of the volume of a project."""
    return f"{project.name}_estiba-last-good"


def save(project: ComposeProject) -> None:
    """Keep the files in the project's folder, instead of those that were kept before.

    Raises:
        EstibaError: Docker cannot keep them.
    """
    name = volume(project)
    labels = f"--label=com.docker.compose.project={project.name}"  # as for the volumes of the services
    _ask(project, "volume", "create", labels, name)
    with temporary("last-good") as draft:
        copy(project.folder, draft)
        with _container(project, name) as container:
            _ask(project, "cp", f"{draft}/.", f"{container}:{_MOUNTED}")
    shutil.rmtree(project.folder / ".last-good", ignore_errors=True)  # where earlier versions of Estiba kept them


def fetch(project: ComposeProject, target: Path) -> bool:
    """Copy the files that were kept into a folder; return False if there are none.

    Raises:
        EstibaError: Docker cannot read them.
    """
    name = volume(project)
    if project.docker("volume", "inspect", name).code or not project.containers():
        return False
    with _container(project, name) as container:
        _ask(project, "cp", f"{container}:{_MOUNTED}/.", str(target))
    return (target / FILES[0]).exists()


def copy(source: Path, target: Path) -> None:
    """Copy the files of a deployment. Those in config/ are written in place, as containers have them mounted."""
    with explained("write", target):
        for name in FILES:
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, dirs_exist_ok=True)
            elif (source / name).exists():
                unfinished = target / f".fresh-{name}"
                shutil.copy2(source / name, unfinished)
                unfinished.replace(target / name)


@contextmanager
def _container(project: ComposeProject, name: str) -> Iterator[str]:
    """A container that mounts the volume and is never started: Docker copies files through containers only."""
    present = project.containers()
    if not present:
        raise EstibaError(f"{project.name} has no container, whose image Docker needs to reach the volume {name}.")
    image = _ask(project, "inspect", "--format", "{{.Image}}", present[0]["ID"])
    container = _ask(project, "create", f"--volume={name}:{_MOUNTED}", "--entrypoint=true", image)
    try:
        yield container
    finally:
        project.docker("rm", "--force", "--volumes", container)


def _ask(project: ComposeProject, *arguments: str) -> str:
    done = project.docker(*arguments)
    if done.code:
        raise EstibaError(f"docker {arguments[0]}: {done.said}")
    return done.output.strip()
