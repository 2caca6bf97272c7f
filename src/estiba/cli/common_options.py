"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click

from estiba.core.errors import NotFound
from estiba.core.variables import STATE
from estiba.model.registry.records import DEFAULT_REGISTRY

Command = TypeVar("Command", bound=Callable[..., Any])


def project_option(command: Command) -> Command:
    text = "The project's folder or file; by default searched for in this folder and those above it."
    return click.option("-C", "project", type=click.Path(path_type=Path), metavar="DIR", help=text)(command)


def registry_option(command: Command) -> Command:
    text = "Folder or URL of the registry; by default $ESTIBA_REGISTRY, else the project's, else .estiba/registry."
    return click.option("--registry", metavar="URL", help=text)(command)


def csv_options(command: Command) -> Command:
    """Add the options that say how a CSV file is written."""
    for option in (
        click.option("--encoding", default="utf-8", help="Encoding of a CSV file: utf-8, latin-1, cp1252, utf-16, ..."),
        click.option("--decimal", default=".", metavar="CHARACTER", help="Decimal separator of a CSV file: . or ,"),
        click.option("--separator", default=",", metavar="CHARACTER",
                     help="Separator of the cells of a CSV file, such as ';', or: tab"),
    ):  # fmt: skip
        command = option(command)
    return command


def sheet_option(command: Command) -> Command:
    return click.option("--sheet", metavar="NAME", default="", help="Sheet of an .xlsx file; by default the first.")(
        command
    )


def state_option(command: Command) -> Command:
    text = "URL of the state store; by default $ESTIBA_STATE, else the project's, else sqlite:///.estiba/state.db."
    return click.option("--state", metavar="URL", help=text)(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def trust_option(command: Command) -> Command:
    text = "Allow a model whose file can run code when it is loaded (a pickle, or types unknown to skops)."
    return click.option("--trust", is_flag=True, help=text)(command)


def server_options(command: Command) -> Command:
    """Add the options of `up` and `serve`; None keeps the setting of the project file."""
    insecure = "Allow a host that other machines can reach without requiring keys."
    delay = "Seconds to report 'not ready' and still answer before stopping, so that a load balancer can notice."
    for option in (
        click.option("--insecure", is_flag=True, default=None, help=insecure),
        click.option("--shutdown-delay", type=click.FloatRange(0), metavar="SECONDS", help=delay),
        click.option("--workers", type=click.IntRange(1), help="Number of worker processes."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            help="Port to listen on; by default the project's, else 8000. 0 chooses a free one.",
        ),
        click.option(
            "--host", metavar="ADDRESS", help="Address to listen on; by default the project's, else 127.0.0.1."
        ),
    ):
        command = option(command)
    return command


def registry_location(named: str | None) -> str:
    """The folder or URL of the registry; see the help of --registry."""
    if location := named or os.environ.get("ESTIBA_REGISTRY"):
        return location
    from estiba import project

    try:
        file = project.find()
    except NotFound:
        return DEFAULT_REGISTRY
    return project.load(file).registry


def state_location(named: str | None) -> str:
    """The URL of the state store; see the help of --state."""
    from estiba.state.options import DEFAULT_STATE, location

    if named:
        return location(named, Path.cwd(), override=False)
    # An image that only serves has neither a project nor the code that reads one.
    if os.environ.get(STATE) or find_spec("estiba.deploy") is None:
        return location(DEFAULT_STATE, Path.cwd())
    from estiba import project

    try:
        file = project.find()
    except NotFound:
        return location(DEFAULT_STATE, Path.cwd())
    return project.load(file).state
