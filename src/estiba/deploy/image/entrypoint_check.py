"""Included: whether the image of an application gets the file of the project that its command starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from estiba.core.errors import BadProject
from estiba.deploy.plan.plan import Plan, Service

_MODULE = re.compile(r"([a-z_]\w*(?:\.[a-z_]\w*)*)(?::[a-z_][\w.]*(?:\(.*\))?)?", re.I)
"""A module, and behind a colon what is in it: not the port of a host."""


def check(plan: Plan, service: Service) -> None:
    """Raises BadProject where the command names a file of the project that the image does not get."""
    if service.build is None or service.models:
        return
    included = [PurePosixPath(entry) for entry in service.build.include]
    for path in _named(service.command):
        place = PurePosixPath(service.folder) / path
        if path.is_absolute() or any(place.is_relative_to(entry) for entry in included):
            continue
        if (plan.folder / place).is_file():
            section, entry = f"services.{service.name}", place.parts[0]
            raise BadProject(
                f"{section}: its command starts {place}, which its image would not get.",
                hint=f'Add include = ["{entry}"] to [{section}], with all else of the project that it needs.',
            )


def _named(command: tuple[str, ...]) -> Iterator[Path]:
    """Files that the words may mean: scripts, and modules as `app.main:app`, `app.main:make()` or behind -m."""
    for before, word in zip(("", *command), command, strict=False):
        module = _MODULE.fullmatch(word)
        if word.endswith(".py"):
            yield Path(word)
        elif module and (":" in word or before == "-m"):
            bare = module[1].replace(".", "/")
            yield from (Path(f"{bare}.py"), Path(bare, "__init__.py"))
