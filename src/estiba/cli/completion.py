"""Complete names of models, services and profiles in a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from estiba.project import Project

Command = TypeVar("Command", bound=Callable[..., Any])

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _quietly(names: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """A completion that offers nothing after an error: a shell would print it into the user's line."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            return [name for name in names(context, incomplete) if name.startswith(incomplete)]
        except Exception:
            return []

    return complete


def _refs(context: click.Context, incomplete: str) -> Iterable[str]:
    from estiba.cli.common_options import registry_location
    from estiba.model.registry.registry import open_registry

    store = open_registry(registry_location(context.params.get("registry")))
    name, at, _ = incomplete.partition("@")
    if not at:
        return store.list()
    versions = [str(version.version) for version in store.versions(name)]
    return [f"{name}@{selector}" for selector in (*store.aliases(name), *versions)]


def _project(context: click.Context) -> Project:
    from estiba import project

    given: Any = context.params.get("project")
    return project.load(Path(given) if given else None)


def _services(context: click.Context, incomplete: str) -> Iterable[str]:
    found = _project(context)
    return [*found.models, *found.services]


def _profiles(context: click.Context, incomplete: str) -> Iterable[str]:
    return sorted({service.profile for service in _project(context).services.values() if service.profile})


refs = _quietly(_refs)
"""Models of the registry; behind `@`, the aliases and versions of the model."""

services = _quietly(_services)
"""Models and services of the project."""

profiles = _quietly(_profiles)
"""Profiles of the project's services."""

project_models = _quietly(lambda context, incomplete: _project(context).models)
"""Models of the project."""


def profile_option(text: str) -> Callable[[Command], Command]:
    return click.option("--profile", "profiles", multiple=True, metavar="NAME", shell_complete=profiles, help=text)
