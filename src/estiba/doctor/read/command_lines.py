"""What a command line starts: which server, on which host and port, with how many workers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        host, port: where it listens; empty and 0 where the command does not tell.
        target: the module, file or application that it serves.
        workers: processes; 0 where nothing is said.
        for_development: reloads at changes, or is no server for production.
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
    """How a server is told where to listen: its options, its variables, and what it does when told nothing."""

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
"""Of `estiba` the project file tells the rest."""

_ALIASES = {"jupyter-lab": ("jupyter", "lab"), "jupyter-notebook": ("jupyter", "notebook")}


def unwrap(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The words of the program itself: variables filled in where a shell runs, without `exec`, init and runners.

    A shell's command that does more than start one program gives its last part that is no assignment.
    """
    words = list(command)
    if len(words) >= 3 and basename(words[0]) in SHELLS and words[1] in ("-c", "-lc", "-ec", "-exc", "-ce"):
        return shell(words[2], environment)
    while words and (words[0] in _BEFORE or basename(words[0]) in _BEFORE or re.match(r"[A-Za-z_]\w*=", words[0])):
        words = words[1:]
    if tuple(words[:2]) in _RUNNERS:
        words = words[2:]
        while words and words[0].startswith("-"):
            words = words[1:]
    if len(words) >= 3 and re.fullmatch(r"python[\d.]*", basename(words[0])) and words[1] == "-m":
        words = words[2:]
    if words and basename(words[0]) in _ALIASES:
        words = [*_ALIASES[basename(words[0])], *words[1:]]
    return words


def shell(text: str, environment: Mapping[str, str]) -> list[str]:
    """The program that a shell ends up running."""
    parts = [part.strip() for part in re.split(r"&&|;|\n", text) if part.strip()]
    words = split(substitute(parts[-1], environment)) if parts else []
    return unwrap(words, {})  # filled in already; once more might never end


def detect_server(command: Sequence[str], environment: Mapping[str, str]) -> Server | None:
    """The server that a command starts; None where it starts another program, or one that is not known.

    Args:
        command: the words that `unwrap` gives.
    """
    if not command:
        return None
    name = basename(command[0])
    kind = _KINDS.get(name)
    if kind is None:
        return None
    words = list(command[1:])
    if kind.subcommands:
        place = next((n for n, word in enumerate(words) if word in kind.subcommands), None)
        if place is None:
            return None
        before, words = words[:place], [words[place], *words[place + 1 :]]
    else:
        before = []
    host, port = _address(kind, name, words, environment)
    return Server(
        kind=" ".join([name, *words[:1]]) if kind.subcommands else name,
        host=host,
        port=port,
        target=_target(words[1:] if kind.subcommands else words, before, environment),
        workers=_number(_option(words, kind.worker_options) or environment.get("WEB_CONCURRENCY", "")),
        for_development=_develops(name, words),
        debugs=_debugs(name, [*before, *words], environment),
    )


def _address(kind: _Kind, name: str, words: list[str], environment: Mapping[str, str]) -> tuple[str, int]:
    host, port = kind.host, kind.port
    if name == "fastapi" and words[:1] == ["dev"]:
        host = "127.0.0.1"
    if name == "gunicorn":
        words = [*split(environment.get("GUNICORN_CMD_ARGS", "")), *words]
        if _option(words, ("-c", "--config")) is not None:
            host, port = "", 0
        elif environment.get("PORT", "").isdigit():
            host = "0.0.0.0"
    if kind.host_variable in environment:
        host = environment[kind.host_variable]
    if kind.port_variable in environment:
        port = _number(environment[kind.port_variable])
    if (bound := _option(words, kind.bind_options)) is not None:
        return _bound(bound)
    if (said := _option(words, kind.host_options)) is not None:
        host = said
    if (said := _option(words, kind.port_options)) is not None:
        port = _number(said)
    return ("" if "$" in host else host), port


def _bound(text: str) -> tuple[str, int]:
    """A host and port as gunicorn takes them: `0.0.0.0:8000`, `:8000`, `[::]:8000`; nothing of a socket's file."""
    host, colon, port = text.rpartition(":")
    if not colon or "/" in text:
        return "", 0
    return ("" if "$" in host else host.strip("[]") or "0.0.0.0"), _number(port)


def _option(words: Sequence[str], names: Sequence[str]) -> str | None:
    """The value of the last of some options, as `--name value`, `--name=value` or `-nvalue`."""
    found = None
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word in names:
            found = words[place + 1] if place + 1 < len(words) else None
        elif equals and name in names:
            found = value
        elif len(word) > 2 and word[:2] in names and word[0] == "-" != word[1]:
            found = word[2:]
    return found


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,6}", text) else 0


def _target(words: list[str], before: list[str], environment: Mapping[str, str]) -> str:
    named = _option([*before, *words], ("--app", "-A")) or environment.get("FLASK_APP", "")
    if named:
        return named
    for word in words:
        if re.fullmatch(r"[\w./-]+(?:\.py|:[\w.()]+)", word) and not word.startswith("-") and not word[0].isdigit():
            return word
    return ""


def _develops(name: str, words: list[str]) -> bool:
    if name in ("uvicorn", "gunicorn", "hypercorn", "granian"):
        return "--reload" in words
    return name == "flask" or (name == "fastapi" and words[:1] == ["dev"])


def _debugs(name: str, words: list[str], environment: Mapping[str, str]) -> bool:
    if name != "flask":
        return False
    on = ("1", "true", "yes", "on", "t", "y")
    return "--debug" in words or environment.get("FLASK_DEBUG", "").lower() in on
