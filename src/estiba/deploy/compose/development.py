"""Render `compose.dev.yaml`: on top of compose.yaml, applications run the project's code, reloaded and debugged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from estiba.deploy.output import yaml
from estiba.deploy.plan.plan import Plan, Service

FILE = "compose.dev.yaml"
TOOLS = "dev"
"""The folder beside compose.yaml with the reloader."""

RELOADER = "reloader.py"
SOURCE = Path(__file__).parents[2] / "templates" / "reloader.py.txt"
"""The reloader is a program of containers, without Estiba: no module of it."""

INSIDE = "/dev-tools"
FIRST_PORT = 5678
"""The port at which editors look for debugpy; further services get the ports above it."""

MORE_MEMORY_BYTES = 256_000_000
"""Memory for debugpy and the reloader, beside that of the program."""

_HEAD = """\
# For development, on top of compose.yaml: applications run the code of this folder, and start again when it changes.
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
    services = {
        service.name: _service(plan.folder, output, service, FIRST_PORT + number, debugpy)
        for number, service in enumerate(applications)
    }
    head = _HEAD.format(file=FILE, port=FIRST_PORT)
    reloader = SOURCE.read_text("utf-8")
    return {FILE: head + yaml.render({"services": services}), f"{TOOLS}/{RELOADER}": reloader}


def _service(project: Path, output: Path, service: Service, port: int, debugpy: Path | None) -> dict[str, Any]:
    assert service.build is not None
    mounts = [_mount(f"./{TOOLS}/{RELOADER}", f"{INSIDE}/{RELOADER}")]
    if debugpy is not None:
        mounts.append(_mount(str(debugpy), f"{INSIDE}/debugpy"))
    for path in service.build.include:
        source = os.path.relpath(project / path, output)
        mounts.append(_mount(source, f"/app/{path.strip('/')}"))
    config: dict[str, Any] = {
        "entrypoint": ["python", f"{INSIDE}/{RELOADER}", "/app", str(port if debugpy else 0)],
        "volumes": mounts,
        "deploy": {"resources": {"limits": {"memory": str(service.memory + MORE_MEMORY_BYTES)}}},
    }
    if debugpy is not None:
        config["environment"] = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        config["ports"] = [{"host_ip": "127.0.0.1", "published": str(port), "target": port}]
        config["networks"] = ["frontend", "backend"]  # no port of an internal network can be published
    return config


def _mount(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}
