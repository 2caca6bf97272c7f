"""Render `compose.dev.yaml`: on top of compose.yaml, applications run the project's code, reloaded and debugged."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from estiba.core import python_command
from estiba.deploy.output import yaml
from estiba.deploy.plan.plan import Plan, Service

FILE = "compose.dev.yaml"
TOOLS = "dev"
"""The folder beside compose.yaml with the reloader and its modules."""

RELOADER = "reloader.py"
SOURCE = Path(__file__).parents[2] / "templates" / "reloader.py.txt"
"""The reloader is a program of containers, without Estiba: no module of it."""

COMMAND_LINES = Path(python_command.__file__)
"""A module that the reloader imports."""

INSIDE = "/dev-tools"
FIRST_PORT = 5678
"""The port at which editors look for debugpy; further services get the ports above it."""

DEBUGPY_ENVIRONMENT = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
"""Keeps debugpy from warning that breakpoints in Python's own frozen modules are not met."""

MORE_MEMORY_BYTES = 256_000_000
"""Memory for debugpy and the reloader, beside that of the program."""

_HEAD = """\
# For development, on top of compose.yaml: applications run the code of this folder, and start again when it changes.
# Those that run once (restart = false) only run that code.
#
#   docker compose -f compose.yaml -f {file} up --detach --wait
#
# An editor attaches with debugpy at 127.0.0.1:{port} and the ports above it; /app is the project's folder.

"""


def render(plan: Plan, output: Path, debugpy: Path | None) -> dict[str, str]:
    """Render the files for development, by path.

    Args:
        output: the folder of compose.yaml. debugpy: its folder on this machine; None leaves the debugger out.
    """
    applications = [s for s in plan.services if s.build is not None and s.build.kind == "app" and s.build.include]
    debugger_ports = itertools.count(FIRST_PORT)
    services = {}
    for service in applications:
        code = _code(plan.folder, output, service)
        services[service.name] = {"volumes": code}
        if service.restart:
            services[service.name] = _reloaded(service, code, next(debugger_ports), debugpy)
    head = _HEAD.format(file=FILE, port=FIRST_PORT)
    tools = {f"{TOOLS}/{RELOADER}": SOURCE, f"{TOOLS}/{COMMAND_LINES.name}": COMMAND_LINES}
    texts = {path: source.read_text("utf-8") for path, source in tools.items()}
    return {FILE: head + yaml.render({"services": services}), **texts}


def _code(project: Path, output: Path, service: Service) -> list[dict[str, Any]]:
    """The mounts of the files of a service, as they are in the project's folder."""
    assert service.build is not None
    return [
        _mount(os.path.relpath(project / path, output), f"/app/{path.strip('/')}") for path in service.build.include
    ]


def _reloaded(service: Service, code: list[dict[str, Any]], port: int, debugpy: Path | None) -> dict[str, Any]:
    """The settings of a service that runs under the reloader and perhaps a debugger."""
    tools = [_mount(f"./{TOOLS}/{name}", f"{INSIDE}/{name}") for name in (RELOADER, COMMAND_LINES.name)]
    if debugpy is not None:
        tools.append(_mount(str(debugpy), f"{INSIDE}/debugpy"))
    config: dict[str, Any] = {
        "entrypoint": ["python", f"{INSIDE}/{RELOADER}", "/app", str(port if debugpy else 0)],
        "volumes": [*tools, *code],
        "deploy": {"resources": {"limits": {"memory": str(service.memory + MORE_MEMORY_BYTES)}}},
    }
    if debugpy is not None:
        config["environment"] = DEBUGPY_ENVIRONMENT
        config["ports"] = [{"host_ip": "127.0.0.1", "published": str(port), "target": port}]
        config["networks"] = ["frontend", "backend"]  # no port of an internal network can be published
    return config


def _mount(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}
