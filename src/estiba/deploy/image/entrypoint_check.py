"""Check that the entry point of an application is included in its image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from estiba.core.errors import BadProject
from estiba.deploy.plan.plan import Plan, Service

_MODULE = re.compile(r"([a-z_]\w*(?:\.[a-z_]\w*)*)(?::[a-z_][\w.]*(?:\(.*\))?)?", re.I)
"""A module, with an optional `:object`; a host with its port does not match."""


def check(plan: Plan, service: Service) -> None:
    """Raise BadProject if the command names a file of the project that the image does not get."""
    if service.build is None or service.models:
        return
    included = [PurePosixPath(entry) for entry in service.build.include]
    for path in _entry_points(service.command):
        inside = PurePosixPath(service.folder) / path
        if path.is_absolute() or any(inside.is_relative_to(entry) for entry in included):
            continue
        if (plan.folder / inside).is_file():
            section, entry = f"services.{service.name}", inside.parts[0]
            raise BadProject(
                f"{section}: the command starts {inside}, which would not be in the image.",
                hint=f'Add include = ["{entry}"] to [{section}], and list all other files that the command needs.',
            )


def _entry_points(command: tuple[str, ...]) -> Iterator[Path]:
    """Files that the arguments may name: scripts, and modules as `app.main:app`, `app.main:make()` or after -m."""
    for previous, argument in zip(("", *command), command, strict=False):
        module = _MODULE.fullmatch(argument)
        if argument.endswith(".py"):
            yield Path(argument)
        elif module and (":" in argument or previous == "-m"):
            bare = module[1].replace(".", "/")
            yield from (Path(f"{bare}.py"), Path(bare, "__init__.py"))
