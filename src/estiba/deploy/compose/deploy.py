"""Delivery: a Compose project brought up to date, waited for, and taken back where it does not become healthy."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from estiba.core import shell
from estiba.core.cli_program import DOCKER
from estiba.core.errors import Conflict, EstibaError, NotFound
from estiba.core.stores.disk import explained, temporary
from estiba.deploy.compose.port_check import check_ports
from estiba.deploy.compose.project import Stack
from estiba.deploy.compose.render import GENERATED
from estiba.deploy.compose.reverse_proxy import KNOWN, NETWORK
from estiba.deploy.compose.stability_check import first_to_end
from estiba.deploy.output.files import Rendered, write
from estiba.deploy.plan.timing import STARTED_SECONDS

LAST_GOOD = ".last-good"
"""The folder, beside compose.yaml, of the files of the last deployment that became healthy."""

KEPT = ("compose.yaml", ".env", GENERATED)
HASH = "com.docker.compose.config-hash"
"""The label with what a container was made from."""

_PROGRESS = re.compile(r"^ *(Container|Network|Volume|Image) \S+ +\w+ *$")
"""A line in which Compose tells how far it is."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What a deployment does to one service.

    Args:
        became: `stopped` is to be started, `scaled` has another number of containers than it should, and a `task` has
            done its work and does it again.
    """

    service: str
    became: Literal["new", "changed", "same", "stopped", "scaled", "task", "removed"]
    before: str = ""
    after: str = ""


_REMEDIES = {
    "Operation not permitted": "It may not become another user: name the one of its program, such as user = 999.",
    "Read-only file system": "Name the folder that it writes to in `writable`.",
}


class NotHealthy(EstibaError):
    """A deployment that did not become healthy; the message says why, and what became of it."""


def propose(stack: Stack, files: Rendered) -> list[Change]:
    """What deploying these files would do. Nothing is changed.

    Raises:
        NotFound: no docker, or an image that was not built. Conflict: a port is taken. Unavailable: no engine answers.
        EstibaError: its complaint.
    """
    if (done := stack.docker("version", "--format", "{{.Server.Version}}")).code:
        raise DOCKER.failure(f"Docker does not answer: {done.said}", done.said)
    with temporary("draft") as draft:
        write(files, draft)
        return _compare(replace(stack, draft=draft))


def _compare(stack: Stack) -> list[Change]:
    hashes = _hashes(stack)
    there: dict[str, list[dict[str, Any]]] = {}
    rows = stack.containers()
    for row in rows:
        _check_owner(stack, row["Labels"].get("com.docker.compose.project.working_dir", ""))
        there.setdefault(row["Service"], []).append(row)
    changes = [_change(stack, name, hashes[name], there.get(name, [])) for name in stack.wanted]
    known = _known(stack)
    gone = [Change(name, "removed", rows[0]["Image"]) for name, rows in there.items() if name not in known]
    for change in changes:
        _need_image(stack, change)
    check_ports(stack.wanted, rows, stack.docker)
    return changes + gone


def carry_out(stack: Stack, files: Rendered, changes: Sequence[Change], say: Say) -> None:
    """Writes the files, applies them and waits until all is healthy; brings back what ran before where it is not.

    Args:
        say: is told each step, a line at a time.

    Raises:
        NotHealthy: something did not become healthy; what the last good deployment had runs again, if there was one.
    """
    began = time.monotonic()
    if not (stack.folder / LAST_GOOD).exists() and (stack.folder / "compose.yaml").exists():
        _keep(stack)  # it may run: that is what there is to go back to
    write(files, stack.folder)
    try:
        for change in changes:
            if change.service in stack.rolling and change.became in ("changed", "scaled"):
                _roll(stack, change, say)
        _up(stack)
    except NotHealthy as error:
        raise NotHealthy(f"{error.message}\n{_restore(stack, say)}", hint=error.hint) from None
    _keep(stack)
    say(f"All is healthy after {time.monotonic() - began:.0f} s.")


# What there is


def _hashes(stack: Stack) -> dict[str, str]:
    """By service, what the label HASH of its containers should say."""
    return dict(line.split() for line in stack.ask("config", "--hash", "*").splitlines())


def _check_owner(stack: Stack, folder: str) -> None:
    if folder and Path(folder).resolve() != stack.folder.resolve():
        hint = f"To change that one, say -o {folder}. To run another beside it, give this project another name."
        raise Conflict(f"A project of the same name runs from {folder}; nothing was changed.", hint=hint)


def _known(stack: Stack) -> set[str]:
    """Services of all profiles: what has a profile that was not chosen is not removed."""
    return set(stack.ask("--profile", "*", "config", "--services").split())


def _change(stack: Stack, name: str, wanted: str, rows: list[dict[str, Any]]) -> Change:
    service = stack.wanted[name]
    after = str(service["image"])
    if not rows:
        return Change(name, "new", "", after)
    before = rows[0]["Image"]
    networks = {stack.project["networks"][network]["name"] for network in service.get("networks", {})}
    if any(
        row["Labels"].get(HASH) != wanted
        or not networks <= set(row["Networks"].split(","))  # a deployment was cut off before the front knew it
        for row in rows
    ):
        return Change(name, "changed", before, after)
    if _is_task(service) and all(_well(row, service) for row in rows):
        return Change(name, "task", before, after)
    if any(row["State"] != "running" for row in rows):
        return Change(name, "stopped", before, after)
    if len(rows) != _count(service):
        return Change(name, "scaled", before, after)
    return Change(name, "same", before, after)


def _count(service: Mapping[str, Any]) -> int:
    return int(service.get("deploy", {}).get("replicas", 1))


def _is_task(service: Mapping[str, Any]) -> bool:
    """Whether it does its work once and ends."""
    return service.get("restart") == "no"


def _need_image(stack: Stack, change: Change) -> None:
    if stack.wanted[change.service].get("pull_policy") != "never":
        return
    if stack.docker("image", "inspect", change.after).code:
        hint = f"Make it with: estiba build {change.service}"
        raise NotFound(f"There is no image {change.after} for {change.service}; nothing was changed.", hint=hint)


# What is done


def _up(stack: Stack) -> None:
    until = time.monotonic() + stack.timeout
    ran = {row["ID"] for row in stack.containers() if row["State"] == "running"}
    done = stack.compose("up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", f"{stack.timeout:.0f}")
    # Compose takes a task that has done its work for a failure, and one that still works for a success.
    while unwell := _unwell(stack):
        if time.monotonic() > until or not all(_on_its_way(row, stack) for row in unwell):
            said = _reason(stack, unwell) or _complaint(done)
            raise NotHealthy(said, hint=next((hint for sign, hint in _REMEDIES.items() if sign in said), None))
        time.sleep(0.5)
    if done.code and not _as_written(stack):  # what runs is what ran before: an image that cannot be had, say
        raise NotHealthy(f"docker compose up: {_complaint(done)}")
    _see_them_stay(stack, ran)


def _see_them_stay(stack: Stack, ran: Container[str]) -> None:
    """What has just been started and has no health check has to stay up for a while."""
    wanted = {name: service for name, service in stack.wanted.items() if not _is_task(service)}
    fresh = {
        row["ID"]: row["Service"]
        for row in stack.containers()
        if row["Service"] in wanted and row["ID"] not in ran and not row["Health"]
    }
    if ended := first_to_end(list(fresh), STARTED_SECONDS, stack.docker):
        words = stack.last_words([ended])
        raise NotHealthy(
            f"{fresh[ended]} has no health check, and did not stay up for {STARTED_SECONDS} seconds.\n{words}"
        )


def _complaint(done: shell.Finished) -> str:
    """What Compose said, without how far it was."""
    lines = done.said.splitlines()
    return "\n".join(line for line in lines if not _PROGRESS.match(line)) or done.said


def _as_written(stack: Stack) -> bool:
    """Whether every service that takes part has containers, and all are made from what compose.yaml says now."""
    hashes = _hashes(stack)
    there = [(row["Service"], row["Labels"].get(HASH)) for row in stack.containers()]
    return set(stack.wanted) <= {name for name, _ in there} and all(
        made == hashes[name] for name, made in there if name in stack.wanted
    )


def _roll(stack: Stack, change: Change, say: Say) -> None:
    """Starts new containers of a service beside the old ones; changed ones replace those once they are healthy."""
    name = change.service
    there = [row for row in stack.containers() if row["Service"] == name]
    old = [row["ID"] for row in there if row["State"] == "running"]
    count = _count(stack.wanted[name]) + (len(old) if change.became == "changed" else 0)
    if not old or count <= len(old):
        return  # Compose does it
    if dead := [row["ID"] for row in there if row["State"] != "running"]:
        stack.docker("rm", "--force", *dead)  # else Compose would count them, and start them
    fresh: list[str] = []
    try:
        _start_beside(stack, name, count, old, fresh)
        _introduce(stack, name, fresh)
    except NotHealthy:
        stack.docker("rm", "--force", *fresh)
        raise
    if change.became == "changed":
        say(f"{name}: the new one is healthy; the old one ends")
        stack.docker("stop", *old)
        stack.docker("rm", *old)


def _start_beside(stack: Stack, name: str, count: int, old: Sequence[str], fresh: list[str]) -> None:
    """Starts containers until there are `count`, writes them to `fresh`, and waits for their health.

    The front does not see them yet: what it asked of them before they have loaded would be answered late.
    """
    done = stack.compose("up", "--no-start", "--no-deps", "--no-recreate", "--scale", f"{name}={count}", name)
    fresh += [row["ID"] for row in stack.containers() if row["Service"] == name and row["ID"] not in old]
    if done.code or not fresh:
        raise NotHealthy(f"{name}: {done.said}")
    for container in fresh:
        stack.docker("network", "disconnect", _front_network(stack), container)
    done = stack.docker("start", *fresh)
    if done.code:
        raise NotHealthy(f"{name}: {done.said}")
    if not _healthy(stack, fresh):
        raise NotHealthy(f"{name} did not become healthy beside the old one.\n{stack.last_words(fresh)}")


def _introduce(stack: Stack, name: str, fresh: Sequence[str]) -> None:
    """Brings new containers to the front's network, and waits until the front knows them."""
    aliases = [f"--alias={alias}" for alias in stack.wanted[name]["networks"][NETWORK]["aliases"]]
    for container in fresh:
        done = stack.docker("network", "connect", *aliases, _front_network(stack), container)
        if done.code:
            raise NotHealthy(f"{name}: {done.said}")
    time.sleep(KNOWN)


def _front_network(stack: Stack) -> str:
    return str(stack.project["networks"][NETWORK]["name"])


def _healthy(stack: Stack, containers: Sequence[str]) -> bool:
    until = time.monotonic() + stack.timeout
    while time.monotonic() < until:
        done = stack.docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", *containers)
        states = done.output.split("\n")[: len(containers)]
        if all(state == "running healthy" for state in states):
            return True
        if any("unhealthy" in state or not state.startswith("running") for state in states):
            return False
        time.sleep(0.25)
    return False


def _unwell(stack: Stack) -> list[dict[str, Any]]:
    """The containers that are not as they should be."""
    rows = [row for row in stack.containers() if row["Service"] in stack.wanted]
    return [row for row in rows if not _well(row, stack.wanted[row["Service"]])]


def _reason(stack: Stack, unwell: Sequence[dict[str, Any]]) -> str:
    """Which container is to blame, and its last words; empty where all of them only wait for something else."""
    begun = [row for row in unwell if row["State"] != "created"]
    if not begun:
        return ""
    first = min(begun, key=lambda row: _on_its_way(row, stack))
    return f"{first['Service']} is {_state(first)}.\n{stack.last_words([first['ID']])}"


def _state(row: Mapping[str, Any]) -> str:
    """How a container is, in words."""
    if row["State"] in ("exited", "restarting"):
        return f"{row['State']} (exit code {row['ExitCode']})"
    return str(row["Health"] or f"still {row['State']}")


def _well(row: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    if _is_task(service):
        return bool(row["State"] == "exited" and row["ExitCode"] == 0)
    return bool(row["State"] == "running" and row["Health"] in ("", "healthy"))


def _on_its_way(row: Mapping[str, Any], stack: Stack) -> bool:
    """Whether it may become well by itself."""
    return bool(row["State"] == "running" and (_is_task(stack.wanted[row["Service"]]) or row["Health"] == "starting"))


# What was before


def _keep(stack: Stack) -> None:
    _copy(stack.folder, stack.folder / LAST_GOOD)


def _restore(stack: Stack, say: Say) -> str:
    """Brings back the files and the containers of the last good deployment; returns what became of it."""
    good = stack.folder / LAST_GOOD
    if not (good / "compose.yaml").exists():
        return "There was no good deployment before, so all is left as it is."
    say("going back to what ran before")
    _copy(good, stack.folder)
    try:
        _up(replace(stack))
    except EstibaError as error:
        return f"What ran before does not become healthy either: {error.message}"
    return "What ran before runs again."


def _copy(source: Path, target: Path) -> None:
    """Copies the files of a deployment. A file takes its new content while it is in use: containers have it mounted."""
    with explained("write", target):
        target.mkdir(exist_ok=True)
        for name in KEPT:
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, dirs_exist_ok=True)
            elif (source / name).exists():
                fresh = target / f".fresh-{os.getpid()}"
                shutil.copy2(source / name, fresh)
                fresh.replace(target / name)
