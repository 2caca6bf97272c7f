"""Options that several commands share: where the project and the registry are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from estiba.core.errors import NotFound
from estiba.model.registry.records import DEFAULT_REGISTRY

Command = TypeVar("Command", bound=Callable[..., Any])


def project_option(command: Command) -> Command:
    text = "Folder of the project, or its file; by default searched for from here upwards."
    return click.option("-C", "project", type=click.Path(path_type=Path), metavar="DIR", help=text)(command)


def registry_option(command: Command) -> Command:
    text = "Folder or URL; by default $ESTIBA_REGISTRY, else the project's around here, else .estiba/registry."
    return click.option("--registry", metavar="PLACE", help=text)(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def trust_option(command: Command) -> Command:
    text = "Allow a model whose file can run code when it is read (a pickle, or types unknown to skops)."
    return click.option("--trust", is_flag=True, help=text)(command)


def server_options(command: Command) -> Command:
    """The options of `up` and `serve`; None keeps what the project file says."""
    insecure = "Serve other machines, although nothing asks them who they are."
    delay = "Seconds to say 'not ready', and still answer, before stopping: what a load balancer needs to notice."
    for option in (
        click.option("--insecure", is_flag=True, default=None, help=insecure),
        click.option("--shutdown-delay", type=click.FloatRange(0), metavar="SECONDS", help=delay),
        click.option("--workers", type=click.IntRange(1), help="Processes that answer."),
        click.option("--port", type=click.IntRange(0, 65535), help="8000 unless the project says otherwise."),
        click.option("--host", metavar="ADDRESS", help="127.0.0.1 unless the project says otherwise."),
    ):
        command = option(command)
    return command


def registry_location(named: str | None) -> str:
    """The registry that a command means; see the help of --registry."""
    if place := named or os.environ.get("ESTIBA_REGISTRY"):
        return place
    from estiba import project

    try:
        file = project.find()
    except NotFound:
        return DEFAULT_REGISTRY
    return project.load(file).registry
