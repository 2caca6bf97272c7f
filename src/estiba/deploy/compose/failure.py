"""Explain why a container did not become healthy: its exit code, its health check, the ports it listens on, its log."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estiba.core import ports
from estiba.deploy.compose.project import ComposeProject, Container

_HALF_DONE = (
    "A first start that was interrupted may have left its volume half made. If its data may be lost: docker compose "
    "--project-directory {folder} down --volumes, and deploy again."
)

_HINTS = {
    r'database "[^"]*" does not exist|role "[^"]*" does not exist|initdb: error: directory': _HALF_DONE,
    "Operation not permitted": "It may not change to another user: set `user` of the service to the one that its "
    "program runs as, such as user = 999.",
    "Read-only file system": "List the folder that it writes to in `writable`.",
}
"""Advice for what a container logs, by a regular expression of a part of the line."""

_EVENTS_SECONDS = 3600
"""Age of the oldest exit of a container that is looked for."""


class Failure(NamedTuple):
    message: str
    hint: str | None


def examine(project: ComposeProject, container: Container) -> Failure:
    """Explain the state of a container that is not healthy."""
    facts = _inspect(project, container["ID"])
    service, port = container["Service"], _port(project.services[container["Service"]])
    again = container["State"] == "restarting" or bool(facts.get("RestartCount"))
    code = _exit_code(project, container["ID"]) if again else None
    listening, check = _listening(facts), list(_health(facts))
    lines = [f"{service} is {_state(container, code)}.", *check]
    if check and code is None and listening is not None:
        lines.append(_where(listening, port))
    log = project.log_tail(container["ID"])
    message = "\n".join([*lines, log or "(it printed nothing)"])
    advice = next((text for sign, text in _HINTS.items() if re.search(sign, message)), None)
    hint = None if advice is None else advice.format(folder=shlex.quote(str(project.folder)))
    if hint is None and listening and port and port not in listening:
        hint = f"Let it listen on {port}, or change `port` in [services.{service}]."
    return Failure(message, hint)


def _where(listening: Sequence[int], port: int | None) -> str:
    """Return a sentence on the ports that a container listens on; `port` is the one that it should."""
    shown = f"port {', '.join(map(str, listening))}" if listening else "no port"
    expected = "" if port is None or port in listening else f", not on {port}"
    return f"It listens on {shown}{expected}."


def _state(container: Container, code: int | None) -> str:
    if container["State"] in ("exited", "restarting") or (code is not None and container["Health"] != "unhealthy"):
        state = "restarting" if container["State"] == "running" else container["State"]
        return f"{state} (exit code {container['ExitCode'] if code is None else code})"
    if container["Health"] == "starting":
        return "not healthy yet"
    return str(container["Health"] or f"still {container['State']}")


def _health(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the last answer of the health check, in one line where it has one."""
    log = facts.get("State", {}).get("Health", {}).get("Log") or []
    if not log or log[-1]["ExitCode"] == 0:
        return
    command = " ".join(facts["Config"]["Healthcheck"]["Test"][1:])
    said = str(log[-1]["Output"]).strip()
    last = said.splitlines()[-1] if said else "(it printed nothing)"
    shown = command if len(command) <= 80 else f"{command[:77]}..."
    yield f"The last health check ended with exit code {log[-1]['ExitCode']}: {last}\n  ({shown})"


def _exit_code(project: ComposeProject, container: str) -> int | None:
    """Return the exit code of the last time that the container ended; None if it has not ended lately.

    Docker forgets it when it starts the container again, but not in its events.
    """
    now = int(time.time())
    period = ("--since", str(now - _EVENTS_SECONDS), "--until", str(now + 1))
    chosen = ("--filter", f"container={container}", "--filter", "event=die")
    done = project.docker("events", *period, *chosen, "--format", "{{.Actor.Attributes.exitCode}}")
    codes = [line for line in done.output.split() if line.isdecimal()]
    return int(codes[-1]) if codes else None


def _listening(facts: Mapping[str, Any]) -> list[int] | None:
    """Return the ports that a container listens on; None where they are unknown."""
    process = facts.get("State", {}).get("Pid")
    return ports.listening_in_container(process, facts["Id"]) if process else None


def _port(service: Mapping[str, Any]) -> int | None:
    published = service.get("ports") or ()
    return next((int(entry["target"]) for entry in published), None)


def _inspect(project: ComposeProject, container: str) -> Mapping[str, Any]:
    done = project.docker("inspect", container)
    rows: list[Mapping[str, Any]] = json.loads(done.output or "[]")
    return rows[0] if rows else {}
