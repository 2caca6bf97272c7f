"""Local watch: what a change of a file means while `estiba up --watch` runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from estiba.core.errors import EstibaError
from estiba.core.process_group import ProcessGroup, marked
from estiba.local.file_watcher import POLL, Watch
from estiba.local.session import Session, plan_again
from estiba.model.training import fingerprints
from estiba.project import Project

PROJECT = "the project file"
TRAINING = "training"
"""Names that no service can have."""


class _Trained(msgspec.Struct):
    """What `estiba train --json` says of a model."""

    ref: str
    trained: bool


def begin(session: Session) -> asyncio.Task[None]:
    """Looks for changes until it is cancelled."""
    return asyncio.create_task(_Reloading(session).run())


class _Reloading:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._watch = Watch(dict(self._places()))
        self._tasks: set[asyncio.Task[None]] = set()
        self._training = asyncio.Lock()

    def _places(self) -> Iterator[tuple[str, Sequence[Path]]]:
        project = self._session.start.project
        yield PROJECT, (project.file, self._session.start.env_file)
        if self._session.start.choice.models:
            yield TRAINING, _inputs(project)
        for service in self._session.start.services:
            yield service.name, [project.folder / entry for entry in service.watch]

    async def run(self) -> None:
        """Looks, and starts what follows from what it sees, so that it never waits for a service to stop."""
        try:
            while True:
                await asyncio.sleep(POLL)
                for name, paths in (await asyncio.to_thread(self._watch.changes)).items():
                    task = asyncio.create_task(self._act(name, paths))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _act(self, name: str, paths: Sequence[Path]) -> None:
        if name == PROJECT:
            await self._project_changed()
        elif name == TRAINING:
            self._note(f"{self._shown(paths)}; training what is made from it")
            await self._train()
        elif runner := self._session.runner(name):
            self._note(f"{self._shown(paths)}; starting {name} again")
            await runner.restart()

    def _note(self, text: str) -> None:
        self._session.observer.on_note(text)

    def _shown(self, paths: Sequence[Path]) -> str:
        folder = self._session.start.project.folder
        shown = str(paths[0].relative_to(folder) if paths[0].is_relative_to(folder) else paths[0])
        return f"{shown} changed" if len(paths) == 1 else f"{shown} and {len(paths) - 1} more changed"

    # Training

    async def _train(self) -> None:
        """Trains in a process of its own. The alias moves there, and the model server follows it."""
        async with self._training:
            session = self._session
            said: list[str] = []
            group = ProcessGroup(
                [sys.executable, "-m", "estiba", "train", "-C", str(session.start.project.file), "--json"],
                folder=session.start.project.folder,
                environment=marked(os.environ, session.guard.mark, ":train"),
                on_line=lambda line: session.observer.on_line(TRAINING, line),
                on_message=said.append,
            )
            session.guard.begin(group.pid)
            try:
                code = await group.wait()
            finally:
                await group.kill()
                session.guard.over(group.pid)
            if code == 0:
                self._take(msgspec.json.decode("\n".join(said), type=list[_Trained]))
            else:
                self._note("The training failed; what was served goes on.")
            self._watch.place(TRAINING, _inputs(session.start.project))

    def _take(self, trained: Sequence[_Trained]) -> None:
        fresh = [entry.ref for entry in trained if entry.trained]
        self._note(f"Trained {', '.join(fresh)}." if fresh else "Nothing that was trained depends on it.")

    # The project file

    async def _project_changed(self) -> None:
        session, before = self._session, self._session.start
        try:
            start = plan_again(before)
        except EstibaError as error:
            self._note(f"error: {error.message}")
            self._note("What runs stays as it was.")
            return
        if reasons := list(_needs_restart(before.project, start.project)):
            self._note(
                f"{', '.join(reasons)} changed in estiba.toml: what runs stays; end estiba up and start it again."
            )
            return
        changed = await session.change(start)
        for name, paths in self._places():
            if name in changed:
                self._watch.place(name, paths)
        if changed:
            self._note(f"estiba.toml changed; started again: {', '.join(changed)}")
        if start.choice.models and start.project.models != before.project.models:
            self._note("estiba.toml changed; training what is made from it")
            await self._train()


def _needs_restart(before: Project, now: Project) -> Iterator[str]:
    """What cannot change while everything runs."""
    ports = [{name: model.port for name, model in project.models.items()} for project in (before, now)]
    for name, differs in {
        "[project]": (before.name, before.registry) != (now.name, now.registry),
        "[server]": before.server != now.server,
        "[mlflow]": before.mlflow != now.mlflow,
        "the models and their ports": ports[0] != ports[1],
        "the services": before.services.keys() != now.services.keys(),
    }.items():
        if differs:
            yield name


def _inputs(project: Project) -> list[Path]:
    """The files that the models of a project were made from."""
    found: set[Path] = set()
    for name, model in project.models.items():
        found |= fingerprints.inputs(project.folder, fingerprints.read(project.folder, name), model.data)
    return sorted(found)
