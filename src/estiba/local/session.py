"""Local services: a project's applications beside its model server, as processes of this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from estiba.core import ports, termination
from estiba.core.errors import EstibaError
from estiba.core.process_group import Guard, marked
from estiba.deploy.plan import dotenv
from estiba.deploy.plan.plan import Http, Service
from estiba.deploy.plan.service_options import MODELS
from estiba.local import orchestrate, up
from estiba.local.model_server import Failed, Report, Spec
from estiba.local.orchestrate import Choice
from estiba.local.service_runner import ServiceRunner
from estiba.local.status import Launch, RestartPolicy, RunContext, Status
from estiba.local.target import HOST, LocalTarget
from estiba.planning import SLACK, lower, lower_applications
from estiba.project import Project
from estiba.serve import Running


@dataclass(frozen=True)
class Wish:
    """What a user asked for.

    Args:
        load: reads the project file. names: of services; by default all without a profile.
        profiles: whose services take part too. env_file: instead of the project's `.env`.
    """

    load: Callable[[], Project]
    names: Sequence[str] = ()
    profiles: Sequence[str] = ()
    env_file: Path | None = None


@dataclass(frozen=True)
class Start:
    """What will run, once the models are trained."""

    wish: Wish
    project: Project
    target: LocalTarget
    choice: Choice

    @property
    def services(self) -> list[Service]:
        return [self.target.plan[name] for name in self.choice.services]

    @property
    def env_file(self) -> Path:
        return self.wish.env_file or self.project.folder / dotenv.FILE


@dataclass(frozen=True)
class Observer:
    """Who is told what happens.

    Args:
        on_status: how a service is now. on_line: the name of a service, and a line that it printed.
        on_ready: that the model server answers. on_note: what else a person should know.
    """

    on_status: Callable[[Status], None]
    on_line: Callable[[str, str], None]
    on_ready: Callable[[Running], None]
    on_note: Callable[[str], None]


def plan(wish: Wish) -> Start:
    """Decides what takes part, and looks at whether it can run, before anything is trained or started.

    Raises:
        NotFound: a service, profile, program or file that is not there. BadProject: a mistake in the project file or
            `.env`. EstibaError: a port is taken.
    """
    start = _planned(wish, 0)
    orchestrate.check_ports(start.services)
    return start


def plan_again(before: Start) -> Start:
    """The same wish with the project file as it is now, while the other runs; raises as `plan`."""
    start = _planned(before.wish, before.target.port)
    held = {service.port for service in before.services}
    orchestrate.check_ports([service for service in start.services if service.port not in held])
    serving = tuple(service for service in before.target.plan.services if service.models)
    whole = replace(start.target.plan, services=(*serving, *start.target.plan.services))
    return replace(start, target=replace(start.target, plan=whole))


def _planned(wish: Wish, port: int) -> Start:
    """`port` stands for one that the project leaves to chance; 0 means that chance has not fallen yet."""
    project = wish.load()
    port = project.server.port or port or (ports.free(project.server.host) if project.services else 0)
    project = replace(project, server=msgspec.structs.replace(project.server, port=port))
    target = LocalTarget(lower_applications(project), port, {**_variables(project, wish.env_file), **os.environ})
    start = Start(wish, project, target, orchestrate.choose(target, wish.names, wish.profiles, project.models))
    target.check(start.services)
    return start


def _variables(project: Project, env_file: Path | None) -> dict[str, str]:
    file = env_file or project.folder / dotenv.FILE
    return dotenv.read(file) if env_file or file.exists() else {}


def run(
    start: Start,
    trust: Collection[str],
    observer: Observer,
    *,
    watching: Callable[[Session], asyncio.Task[None]] | None = None,
    restart_policy: RestartPolicy = RestartPolicy(),  # noqa: B008 - it is frozen
) -> bool:
    """Runs services and the model server until a signal says stop; a second one ends them at once.

    Args:
        trust: digests of the artifacts that were made here.
        watching: begins to look for changes.

    Returns:
        Whether all went well: no service ended in failure for good.

    Raises:
        EstibaError: the model server cannot start.
    """
    return asyncio.run(_run(start, trust, observer, watching, restart_policy))


async def _run(
    start: Start,
    trust: Collection[str],
    observer: Observer,
    watching: Callable[[Session], asyncio.Task[None]] | None,
    restart_policy: RestartPolicy,
) -> bool:
    session = Session(start, observer, Guard(), restart_policy)
    session.listen()
    try:
        if start.choice.models:
            session.add_models(trust)
        session.add_services()
        task = watching(session) if watching else None
        try:
            well = await orchestrate.keep(session.runners, session.stopping, session.killing, forever=task is not None)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
    finally:
        session.guard.close()
    if session.failure is not None:
        raise session.failure
    return well


class Session:
    """One run of a project's services."""

    def __init__(self, start: Start, observer: Observer, guard: Guard, restart_policy: RestartPolicy) -> None:
        self.start = start
        self.observer = observer
        self.guard = guard
        self.stopping = asyncio.Event()
        self.killing = asyncio.Event()
        self.failure: EstibaError | None = None
        """Why the model server cannot start: then nothing else can work either."""
        self.runners: list[ServiceRunner] = []
        self._ready = False
        self._context = RunContext(
            guard, self._guarded(observer.on_status), self._guarded(observer.on_line), restart_policy
        )

    def listen(self) -> None:
        """Stops at the first signal, kills at the second."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self.killing if self.stopping.is_set() else self.stopping).set()

        if termination.requested():
            stop()
        for number in termination.SIGNALS:
            loop.add_signal_handler(number, stop)

    def _guarded(self, tell: Callable[..., None]) -> Callable[..., None]:
        """When nobody reads what is printed any more, as in `estiba up | head`, it is time to stop."""

        def told(*arguments: object) -> None:
            try:
                tell(*arguments)
            except BrokenPipeError:
                self.stopping.set()

        return told

    def runner(self, name: str) -> ServiceRunner | None:
        return next((runner for runner in self.runners if runner.name == name), None)

    def add_models(self, trust: Collection[str]) -> None:
        """Adds the model server. The plan gets its services, for files that tell of them."""
        start = self.start
        project, applications = start.project, start.target.plan
        # One server has all ports here: asked for its metrics at each of them, everything would count several times.
        every = [service for service in lower(project).services if service.models]
        serving = [service if service.name == MODELS else replace(service, metrics="") for service in every]
        whole = replace(applications, services=(*serving, *applications.services))
        self.start = replace(start, target=replace(start.target, plan=whole))
        grace = project.server.shutdown_delay + project.server.drain + SLACK
        service = Service(MODELS, "", health=Http("/health/ready"), port=project.server.port, stop_grace=grace)
        url = f"http://{HOST}:{project.server.port}"
        launch = self._server(project, trust)

        async def prepare(runner: ServiceRunner) -> Launch:
            return launch

        self.runners.append(ServiceRunner(service, url, prepare, self._context))

    def _server(self, project: Project, trust: Collection[str]) -> Launch:
        options = project.server
        if options.log == "auto":  # its output is a pipe here, but a person may be reading all the same
            options = msgspec.structs.replace(options, log="text" if sys.stdout.isatty() else "json")
        spec = Spec(
            folder=str(project.folder),
            refs=list(project.models),
            options=options,
            registry=project.registry,
            trust=sorted(trust),
            ports=up.own_ports(project),
        )
        return Launch(
            command=[sys.executable, "-m", "estiba.local.model_server"],
            folder=project.folder,
            environment=marked(os.environ, self.guard.mark, MODELS),
            message=msgspec.json.encode(spec),
            on_message=self._heard,
        )

    def _heard(self, line: str) -> None:
        report = msgspec.json.decode(line, type=Report)
        if not isinstance(report, Failed):
            if not self._ready:
                self._ready = True
                examples, ports = MappingProxyType(report.examples), up.own_ports(self.start.project)
                self._guarded(self.observer.on_ready)(
                    Running(report.url, report.workers, report.threads, examples, ports)
                )
        elif not self._ready:
            self.failure = EstibaError(report.message, hint=report.hint)
            self.failure.exit_code = report.exit_code
            self.stopping.set()

    def add_services(self) -> None:
        """Adds the services that take part."""
        for service in self.start.services:
            url = self.start.target.url(service)
            self.runners.append(ServiceRunner(service, url, self._prepare, self._context))

    async def _prepare(self, runner: ServiceRunner) -> Launch:
        running = {*self.start.choice.services, MODELS}
        return await orchestrate.prepare(self.start.target, runner, running, self.guard.mark)

    async def change(self, start: Start) -> list[str]:
        """Takes another plan of the same services; names of those that it changed, which are started again."""
        before, self.start = self.start, start
        changed: list[ServiceRunner] = []
        for service in start.services:
            runner = self.runner(service.name)
            if runner is not None and _told(before.target, runner.service) != _told(start.target, service):
                runner.service, runner.url = service, start.target.url(service)
                changed.append(runner)
        await asyncio.gather(*(runner.restart() for runner in changed))
        return [runner.name for runner in changed]


def _told(target: LocalTarget, service: Service) -> object:
    """All that decides how a service is run."""
    return replace(service, image=""), target.words(service), target.environment(service, None)


def left_out(choice: Choice) -> Mapping[str, Status]:
    """What is not started, as the status of each."""
    return {name: Status(name, "left out", detail=reason) for name, reason in choice.left_out.items()}
