"""Watch files while `estiba up --watch` runs: restart services, train models again, apply a changed project file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from estiba.core.errors import EstibaError
from estiba.core.process_group import ProcessGroup, marked
from estiba.local.file_watcher import POLL_SECONDS, FileWatcher
from estiba.local.run_plan import plan_again
from estiba.local.session import Session
from estiba.model.training import fingerprints
from estiba.project import Project

PROJECT = "the project file"
TRAINING = "training"
"""Names that no service can have."""


class _TrainedModel(msgspec.Struct):
    """An entry of the output of `estiba train --json`."""

    ref: str
    trained: bool


def start(session: Session) -> asyncio.Task[None]:
    """Watch files until the task is cancelled."""
    return asyncio.create_task(_Reloader(session).run())


class _Reloader:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._watcher = FileWatcher(dict(self._watched()))
        self._tasks: set[asyncio.Task[None]] = set()
        self._training = asyncio.Lock()

    def _watched(self) -> Iterator[tuple[str, Sequence[Path]]]:
        plan = self._session.plan
        yield PROJECT, (plan.project.file, plan.env_file)
        if plan.selection.models:
            yield TRAINING, _inputs(plan.project)
        for service in plan.applications:
            yield service.name, [plan.project.folder / entry for entry in service.watch]

    async def run(self) -> None:
        """Start a task for each change, so that watching goes on while a service stops."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                for name, paths in (await asyncio.to_thread(self._watcher.changes)).items():
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
        folder = self._session.plan.project.folder
        shown = str(paths[0].relative_to(folder) if paths[0].is_relative_to(folder) else paths[0])
        return f"{shown} changed" if len(paths) == 1 else f"{shown} and {len(paths) - 1} more changed"

    # Training

    async def _train(self) -> None:
        """Train in a child process. It moves the alias in the registry, and the model server follows that."""
        async with self._training:
            session, project = self._session, self._session.plan.project
            output: list[str] = []
            group = ProcessGroup(
                [sys.executable, "-m", "estiba", "train", "-C", str(project.file), "--json"],
                folder=project.folder,
                environment=marked(os.environ, session.guard.mark, ":train"),
                on_line=lambda line: session.observer.on_line(TRAINING, line),
                on_message=output.append,
            )
            session.guard.begin(group)
            try:
                code = await group.wait()
            finally:
                await group.kill()
                session.guard.over(group)
            if code == 0:
                self._report(msgspec.json.decode("\n".join(output), type=list[_TrainedModel]))
            else:
                self._note("The training failed; the server keeps the version that it has.")
            self._watcher.set_paths(TRAINING, _inputs(self._session.plan.project))

    def _report(self, models: Sequence[_TrainedModel]) -> None:
        refs = [model.ref for model in models if model.trained]
        self._note(f"Trained {', '.join(refs)}." if refs else "No model depends on it.")

    # The project file

    async def _project_changed(self) -> None:
        session, before = self._session, self._session.plan
        try:
            plan = plan_again(before)
        except EstibaError as error:
            self._note(f"error: {error.message}")
            self._note("The running services stay as they are.")
            return
        if reasons := list(_needs_new_run(before.project, plan.project)):
            self._note(
                f"{', '.join(reasons)} changed in estiba.toml, which takes effect at the next start: "
                "stop estiba up and start it again."
            )
            return
        changed = await session.change(plan)
        for name, paths in self._watched():
            if name in changed:
                self._watcher.set_paths(name, paths)
        if changed:
            self._note(f"estiba.toml changed; started again: {', '.join(changed)}")
        if plan.selection.models and plan.project.models != before.project.models:
            self._note("estiba.toml changed; training what is made from it")
            await self._train()


def _needs_new_run(before: Project, now: Project) -> Iterator[str]:
    """The sections that differ and cannot be applied while services run."""
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
    """The files that the models of a project are made from."""
    paths: set[Path] = set()
    for name, model in project.models.items():
        paths |= fingerprints.inputs(project.folder, fingerprints.read(project.folder, name), model.data)
    return sorted(paths)
