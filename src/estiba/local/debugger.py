"""Start Python services under debugpy, so that an editor can attach to them and stop at breakpoints."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from estiba.core import ports, python_command
from estiba.core.errors import EstibaError, MissingExtra, NotFound
from estiba.core.suggest import did_you_mean
from estiba.deploy.compose.development import DEBUGPY_ENVIRONMENT, FIRST_PORT
from estiba.local.target import LOOPBACK

_PYTHON = re.compile(r"python[\d.]*")
_MAX_HEAD_BYTES = 400


def allot(names: Sequence[str], services: Collection[str]) -> dict[str, int]:
    """The debugger's port of each named service.

    Raises:
        NotFound: an unknown service. MissingExtra: debugpy is not installed. EstibaError: a port is taken.
    """
    for name in names:
        if name not in services:
            hint = f"Applications that run: {', '.join(services) or 'none'}."
            raise NotFound(f"There is no application {name!r} to debug{did_you_mean(name, services)}", hint=hint)
    if names and folder() is None:
        raise MissingExtra("debugpy", "debug")
    allotted = {name: FIRST_PORT + number for number, name in enumerate(dict.fromkeys(names))}
    for name, port in allotted.items():
        if conflict := ports.conflict(LOOPBACK, port):
            hint = "Stop the program that listens there; it may be another debugger."
            raise EstibaError(f"The debugger of {name} cannot listen on {LOOPBACK}:{port}: {conflict}.", hint=hint)
    return allotted


def wrap(name: str, argv: Sequence[str], port: int) -> list[str]:
    """The command of a service that runs under debugpy, which listens on this machine only.

    debugpy is started from its folder in the environment of Estiba, so the service's own need not have it.

    Args:
        name: of the service. argv: its command; the first is the path of its program.

    Raises:
        EstibaError: the program is no Python program.
    """
    interpreter, target = _python(name, Path(argv[0]), argv[1:])
    package = folder()
    if package is None:
        raise MissingExtra("debugpy", "debug")
    return [*interpreter, str(package), "--listen", f"{LOOPBACK}:{port}", *target]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service under debugpy."""
    return {**DEBUGPY_ENVIRONMENT, **given}


def folder() -> Path | None:
    """The folder of debugpy; None where it is not installed."""
    spec = find_spec("debugpy")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _python(name: str, program: Path, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """An interpreter with its options, and the script or module that it runs with its arguments."""
    if _PYTHON.fullmatch(program.name):
        options, target = python_command.split(arguments)
        return [str(program), *options], target
    interpreter = program.parent / "python"  # a script that pip installed lies beside it
    if _is_python_script(program) and interpreter.exists():
        return [str(interpreter)], [str(program), *arguments]
    hint = f'Debug a service whose command is Python: command = "python ...", or a script that pip installs ({name}).'
    raise EstibaError(f"{program.name} is not a Python program, so debugpy cannot run it.", hint=hint)


def _is_python_script(program: Path) -> bool:
    with program.open("rb") as file:
        head = file.read(_MAX_HEAD_BYTES)
    return head.startswith(b"#!") and b"python" in head
