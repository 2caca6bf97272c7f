"""Rules about the command that starts a server: debuggers, development servers, and shells as process 1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from estiba.doctor.finding import Finding
from estiba.doctor.read.command_lines import Server
from estiba.doctor.read.containers import Container, for_development
from estiba.doctor.read.dockerfile_stages import resolve_path
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_SHELLS = ("sh", "bash", "ash", "dash")
_EXEC = re.compile(r"(?:^|[;&\n]\s*)exec\s")
_NODE_SCRIPT = re.compile(
    r"(?:pnpm|npm|yarn|bun)(?: run)? (?:dev|start:dev|develop|watch)\b|"
    r"(?:npx )?(?:nodemon|next dev|ng serve|vite(?! build| preview))\b"
)
"""Commands of Node's servers for development."""

_FLASK_APP = 'from flask import Flask\n\napp = Flask(__name__)\n\nif __name__ == "__main__":\n'


def _production_server(container: Container) -> Server | None:
    """Return the server of a container, unless the container or its file is meant for development."""
    if container.for_development or for_development(container.server_location.file):
        return None
    return container.server


class DebugMode(Rule):
    code = "debug-mode"
    severity = "error"
    title = "The debugger is on: it may run any code for everyone who reaches the port."
    reason = "At each error, Flask's debugger shows a console in the browser that runs Python in the container."
    example: ClassVar = {
        "app/main.py": f'{_FLASK_APP}    app.run(host="0.0.0.0", port=8000, debug=True)\n',
        "Dockerfile": "FROM python:3.12-slim\nWORKDIR /app\nCOPY app/ app/\nUSER 10001\n"
        'CMD ["python", "app/main.py"]\n',
    }
    remedy = "Turn the debugger off, and start the application with a server for production, such as gunicorn."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        server = _production_server(container)
        if server is not None and server.debugs:
            message = f"{server.kind} runs with its debugger, which runs any code for everyone who reaches the port."
            fix = f"Turn the debugger off, and start the application with {_production_command(server)}."
            yield cls.finding(container.server_location, message, fix)


class DevelopmentServer(Rule):
    code = "development-server"
    severity = "warning"
    title = "A server made for development answers in production."
    reason = (
        "It is slow, answers few requests at a time and is not hardened. With `--reload` it also watches all files, "
        "and restarts in the middle of requests."
    )
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nWORKDIR /app\nCOPY models/ models/\nCOPY app/ app/\nUSER 10001\n"
        'CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000", "--reload"]\n',
    }
    remedy = "Start the application with gunicorn, uvicorn without `--reload`, or `fastapi run`."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        script = _NODE_SCRIPT.match(" ".join(container.program))
        if script is not None and not container.for_development:
            message = f"`{script[0]}` is a server for development: it watches its files, and is slow and not hardened."
            yield cls.finding(container.command_line[1], message, "Build it in an earlier stage, and serve the result.")
        server = _production_server(container)
        if server is None or server.debugs or not server.for_development:
            return
        if server.kind.partition(" ")[0] in ("flask", "fastapi"):
            message = f"{server.kind} is made for development: it is slow and not hardened."
            fix = f"Start the application with {_production_command(server)}."
        else:
            message = f"{server.kind} watches its files and restarts at each change."
            fix = "Remove --reload, or put it in a compose file for development."
        yield cls.finding(container.server_location, message, fix)


def _production_command(server: Server) -> str:
    return "fastapi run" if server.kind.startswith("fastapi") else "gunicorn --bind 0.0.0.0:8000 MODULE:app"


class WindowsLineEnds(Rule):
    code = "windows-line-ends"
    severity = "error"
    title = "The script that starts the container has the line ends of Windows."
    reason = (
        "The kernel looks for an interpreter `/bin/sh\\r`, and the container exits with `no such file or directory`, "
        "although the script exists. It works on the machine of its author, as Git changed the line ends elsewhere."
    )
    example: ClassVar = {"file run.sh": "run.sh: POSIX shell script, ASCII text, with CRLF line terminators\n"}
    remedy = "Convert it, `sed -i 's/\\r$//' run.sh`, and write `*.sh text eol=lf` into .gitattributes."
    shown_by = "test_an_entry_script_with_windows_line_ends"

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        image, final = container.image, container.final
        runs = [step.text for step in final.steps_of("RUN")] if final is not None else []
        if image is None or any("dos2unix" in text or "\\r" in text for text in runs):
            return
        for argument in container.command_line[0]:
            source = container.source_of(argument)
            path = resolve_path(container.folder, argument)
            content = (image.context.text(source) or "") if source and container.mount_of(path) is None else ""
            script = content.startswith("#!") or source.endswith((".sh", ".bash"))
            if script and content.partition("\n")[0].endswith("\r"):
                message = f"`{source}` has the line ends of Windows, so it cannot be started in the container."
                fix = f"Convert it: sed -i 's/\\r$//' {source}; and write `*.sh text eol=lf` into .gitattributes."
                yield cls.finding(image.context.at(source, 1), message, fix)


class ShellForm(Rule):
    code = "shell-form"
    severity = "warning"
    title = "A shell is process 1 and does not pass signals on, so a stop loses requests."
    reason = (
        "`docker stop` sends SIGTERM to process 1. The shell ignores it, so the program never drains its requests, and "
        "after ten seconds it is killed."
    )
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nWORKDIR /app\nCOPY models/ models/\nCOPY app/ app/\nUSER 10001\n"
        "CMD uvicorn app.main:app --host 0.0.0.0 --port 8000\n",
    }
    remedy = "Write the command as a list, or put `exec` before it."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        argv, at = container.command_line
        if container.image is not None and container.image.for_windows:
            return
        if len(argv) < 3 or argv[0].rpartition("/")[2] not in _SHELLS or argv[1] != "-c":
            return
        init = container.service is not None and container.service.text("init") == "true"
        job = container.image is None and container.server is None  # it ends by itself
        if job or init or _EXEC.search(argv[2]) or argv[2].startswith("["):
            return
        service = container.service
        key = "command" if service is not None and service.command is not None else "entrypoint"
        in_compose = service is not None and (service.command or service.entrypoint) is not None
        kind = "CMD" if container.final and container.final.last_step("CMD") else "ENTRYPOINT"
        program = " ".join(container.program[:2]) or argv[2].partition(" ")[0]
        message = f"{kind} in shell form: the shell is process 1 and passes no SIGTERM on to {program}."
        fix = f'Write a list, {kind} ["...", "..."], or put exec before the command.'
        if in_compose:
            message = f"`{key}` starts a shell as process 1, which passes no SIGTERM on to {program}."
            fix = f"Put exec before {program} in `{key}`, or set init: true for the service."
        yield cls.finding(at, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        argv = [str(container.part("Path") or ""), *(str(argument) for argument in container.listed("Args"))]
        shell = argv[0].rpartition("/")[2] in _SHELLS and argv[1:2] == ["-c"] and len(argv) > 2
        if shell and not _EXEC.search(argv[2]) and not container.part("HostConfig", "Init"):
            message = "It is started by a shell, which passes no SIGTERM on to the program."
            yield cls.finding(container.at, message, "Write CMD as a list, or put exec before the command.")
