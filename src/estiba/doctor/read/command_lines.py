"""Detect the server that a command line starts, with its host, port and workers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from posixpath import basename

from estiba.doctor.read.dockerfile_stages import substitute
from estiba.doctor.read.dockerfile_syntax import split

SHELLS = ("sh", "bash", "ash", "dash", "zsh")
_BEFORE = (
    "exec",
    "tini",
    "dumb-init",
    "gosu",
    "su-exec",
    "env",
    "nohup",
    "time",
    "sudo",
    "--",
    "-g",
    "-s",
    "catchsegv",
)
_RUNNERS = {("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("pdm", "run"), ("conda", "run"), ("rye", "run")}


@dataclass(frozen=True)
class Server:
    """A server that a command line starts.

    Args:
        kind: the program, such as `uvicorn`.
        host, port: empty and 0 if the command does not set them.
        target: the module, file or application that it serves.
        workers: processes; 0 if the command does not set them.
        for_development: reloads at changes, or is not made for production.
        debugs: runs with a debugger.
    """

    kind: str
    host: str = ""
    port: int = 0
    target: str = ""
    workers: int = 0
    for_development: bool = False
    debugs: bool = False


@dataclass(frozen=True)
class _Kind:
    """The options and environment variables that set the host and port of a kind of server, and their defaults."""

    host: str
    port: int
    host_options: tuple[str, ...] = ("--host",)
    port_options: tuple[str, ...] = ("--port",)
    bind_options: tuple[str, ...] = ()
    worker_options: tuple[str, ...] = ("--workers",)
    host_variable: str = ""
    port_variable: str = ""
    subcommands: tuple[str, ...] = ()


_KINDS = {
    "uvicorn": _Kind("127.0.0.1", 8000, host_variable="UVICORN_HOST", port_variable="UVICORN_PORT"),
    "gunicorn": _Kind(
        "127.0.0.1",
        8000,
        (),
        (),
        bind_options=("--bind", "-b"),
        worker_options=("--workers", "-w"),
        port_variable="PORT",
    ),
    "hypercorn": _Kind("127.0.0.1", 8000, (), (), bind_options=("--bind", "-b"), worker_options=("--workers", "-w")),
    "granian": _Kind("127.0.0.1", 8000, host_variable="GRANIAN_HOST", port_variable="GRANIAN_PORT"),
    "waitress-serve": _Kind("0.0.0.0", 8080, bind_options=("--listen",), worker_options=()),
    "flask": _Kind(
        "127.0.0.1",
        5000,
        ("--host", "-h"),
        ("--port", "-p"),
        host_variable="FLASK_RUN_HOST",
        port_variable="FLASK_RUN_PORT",
        subcommands=("run",),
    ),
    "fastapi": _Kind("0.0.0.0", 8000, subcommands=("run", "dev")),
    "streamlit": _Kind(
        "0.0.0.0",
        8501,
        ("--server.address",),
        ("--server.port",),
        host_variable="STREAMLIT_SERVER_ADDRESS",
        port_variable="STREAMLIT_SERVER_PORT",
        subcommands=("run",),
    ),
    "mlflow": _Kind(
        "127.0.0.1",
        5000,
        ("--host", "-h"),
        ("--port", "-p"),
        host_variable="MLFLOW_HOST",
        port_variable="MLFLOW_PORT",
        subcommands=("server", "ui"),
    ),
    "jupyter": _Kind(
        "127.0.0.1",
        8888,
        ("--ip", "--ServerApp.ip", "--NotebookApp.ip"),
        ("--port", "--ServerApp.port", "--NotebookApp.port"),
        port_variable="JUPYTER_PORT",
        subcommands=("lab", "notebook", "server"),
    ),
    "estiba": _Kind("", 0, subcommands=("serve", "up")),
}
"""The host and port of `estiba` are in its project file."""

_ALIASES = {"jupyter-lab": ("jupyter", "lab"), "jupyter-notebook": ("jupyter", "notebook")}


def unwrap(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the arguments of the program: without `exec`, init and runners; of a shell, with variables expanded.

    Of several commands in a shell, the last one counts.
    """
    argv = list(command)
    if len(argv) >= 3 and basename(argv[0]) in SHELLS and argv[1] in ("-c", "-lc", "-ec", "-exc", "-ce"):
        return shell(argv[2], environment)
    while argv and (argv[0] in _BEFORE or basename(argv[0]) in _BEFORE or re.match(r"[A-Za-z_]\w*=", argv[0])):
        argv = argv[1:]
    if tuple(argv[:2]) in _RUNNERS:
        argv = argv[2:]
        while argv and argv[0].startswith("-"):
            argv = argv[1:]
    if len(argv) >= 3 and re.fullmatch(r"python[\d.]*", basename(argv[0])) and argv[1] == "-m":
        argv = argv[2:]
    if argv and basename(argv[0]) in _ALIASES:
        argv = [*_ALIASES[basename(argv[0])], *argv[1:]]
    return argv


def shell(text: str, environment: Mapping[str, str]) -> list[str]:
    """Return the arguments of the last program that a shell runs."""
    parts = [part.strip() for part in re.split(r"&&|;|\n", text) if part.strip()]
    argv = split(substitute(parts[-1], environment)) if parts else []
    return unwrap(argv, {})  # filled in already; once more might never end


def detect_server(command: Sequence[str], environment: Mapping[str, str]) -> Server | None:
    """Return the server that a command starts; None for another program.

    Args:
        command: the arguments that `unwrap` returns.
    """
    if not command:
        return None
    name = basename(command[0])
    kind = _KINDS.get(name)
    if kind is None:
        return None
    argv = list(command[1:])
    if kind.subcommands:
        position = next((n for n, argument in enumerate(argv) if argument in kind.subcommands), None)
        if position is None:
            return None
        before, argv = argv[:position], [argv[position], *argv[position + 1 :]]
    else:
        before = []
    host, port = _address(kind, name, argv, environment)
    return Server(
        kind=" ".join([name, *argv[:1]]) if kind.subcommands else name,
        host=host,
        port=port,
        target=_target(argv[1:] if kind.subcommands else argv, before, environment),
        workers=_number(_option(argv, kind.worker_options) or environment.get("WEB_CONCURRENCY", "")),
        for_development=_develops(name, argv),
        debugs=_debugs(name, [*before, *argv], environment),
    )


def without_defaults(server: Server, command: Sequence[str], environment: Mapping[str, str]) -> Server:
    """Clear the host and the port that only come from the defaults of the server: an argument may still set them."""
    given = " ".join([*command, *environment.values()])
    host = server.host if server.host and server.host in given else ""
    return replace(server, host=host, port=server.port if str(server.port) in given else 0)


def _address(kind: _Kind, name: str, argv: list[str], environment: Mapping[str, str]) -> tuple[str, int]:
    host, port = kind.host, kind.port
    if name == "fastapi" and argv[:1] == ["dev"]:
        host = "127.0.0.1"
    if name == "gunicorn":
        argv = [*split(environment.get("GUNICORN_CMD_ARGS", "")), *argv]
        if _option(argv, ("-c", "--config")) is not None:
            host, port = "", 0
        elif environment.get("PORT", "").isdigit():
            host = "0.0.0.0"
    if kind.host_variable in environment:
        host = environment[kind.host_variable]
    if kind.port_variable in environment:
        port = _number(environment[kind.port_variable])
    if (bound := _option(argv, kind.bind_options)) is not None:
        return _bound(bound)
    if (value := _option(argv, kind.host_options)) is not None:
        host = value
    if (value := _option(argv, kind.port_options)) is not None:
        port = _number(value)
    return ("" if "$" in host else host), port


def _bound(text: str) -> tuple[str, int]:
    """Parse a host and port of gunicorn: `0.0.0.0:8000`, `:8000` or `[::]:8000`; nothing for the path of a socket."""
    host, colon, port = text.rpartition(":")
    if not colon or "/" in text:
        return "", 0
    return ("" if "$" in host else host.strip("[]") or "0.0.0.0"), _number(port)


def _option(argv: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the value of the last of some options, as `--name value`, `--name=value` or `-nvalue`."""
    last = None
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if argument in names:
            last = argv[position + 1] if position + 1 < len(argv) else None
        elif equals and name in names:
            last = value
        elif len(argument) > 2 and argument[:2] in names and argument[0] == "-" != argument[1]:
            last = argument[2:]
    return last


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,6}", text) else 0


def _target(argv: list[str], before: list[str], environment: Mapping[str, str]) -> str:
    named = _option([*before, *argv], ("--app", "-A")) or environment.get("FLASK_APP", "")
    if named:
        return named
    for argument in argv:
        if (
            re.fullmatch(r"[\w./-]+(?:\.py|:[\w.()]+)", argument)
            and not argument.startswith("-")
            and not argument[0].isdigit()
        ):
            return argument
    return ""


def _develops(name: str, argv: list[str]) -> bool:
    if name in ("uvicorn", "gunicorn", "hypercorn", "granian"):
        return "--reload" in argv
    return name == "flask" or (name == "fastapi" and argv[:1] == ["dev"])


def _debugs(name: str, argv: list[str], environment: Mapping[str, str]) -> bool:
    if name != "flask":
        return False
    on = ("1", "true", "yes", "on", "t", "y")
    return "--debug" in argv or environment.get("FLASK_DEBUG", "").lower() in on
