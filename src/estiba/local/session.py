"""Run a planned project, that is, its model server and applications as local processes, until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from estiba.core import termination
from estiba.core.child import Failed
from estiba.core.errors import EstibaError
from estiba.core.log import Format
from estiba.core.process_group import Guard, marked
from estiba.deploy.plan import secrets
from estiba.deploy.plan.plan import API_KEY, Service
from estiba.deploy.plan.service_options import MODELS
from estiba.gateway.options import gateway_of
from estiba.local import orchestrate
from estiba.local.host_gateway import HostGateway
from estiba.local.model_server import ModelServerSpec, Report
from estiba.local.orchestrate import Selection
from estiba.local.run_plan import RunPlan
from estiba.local.service_runner import ServiceRunner
from estiba.local.status import Launch, RestartPolicy, RunContext, State, Status
from estiba.local.target import LOOPBACK, LocalTarget
from estiba.local.up import model_ports
from estiba.serve import Running


@dataclass(frozen=True)
class Observer:
    """Receives what happens in a run.

    Args:
        on_status: called with each change of a service's status.
        on_line: called with the name of a service and a line of its output.
        on_ready: called once the model server answers. on_note: called with a message for the user.
        log_format: of the model server's log, where the project leaves it to `auto`.
    """

    on_status: Callable[[Status], None]
    on_line: Callable[[str, str], None]
    on_ready: Callable[[Running], None]
    on_note: Callable[[str], None]
    log_format: Format = "json"


def run(
    plan: RunPlan,
    observer: Observer,
    *,
    watching: Callable[[Session], asyncio.Task[None]] | None = None,
    restart_policy: RestartPolicy = RestartPolicy(),  # noqa: B008 - it is frozen
) -> bool:
    """Run the services of a complete plan until a signal stops them; a second signal kills them.

    Args:
        watching: starts a task that watches files.

    Returns:
        True if no service failed for good.

    Raises:
        EstibaError: the model server cannot start.
    """
    return asyncio.run(_run(plan, observer, watching, restart_policy))


async def _run(
    plan: RunPlan,
    observer: Observer,
    watching: Callable[[Session], asyncio.Task[None]] | None,
    restart_policy: RestartPolicy,
) -> bool:
    session = Session(plan, observer, Guard(), restart_policy)
    session.handle_signals()
    try:
        task = watching(session) if watching else None
        try:
            well = await orchestrate.run(session.runners, session.stopping, session.killing, forever=task is not None)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
    finally:
        session.gateway.close()
        session.guard.close()
    if session.failure is not None:
        raise session.failure
    return well


class Session:
    """One run of a project."""

    def __init__(self, plan: RunPlan, observer: Observer, guard: Guard, restart_policy: RestartPolicy) -> None:
        self.plan = plan
        self.observer = observer
        self.guard = guard
        self.gateway = HostGateway(plan.host_ports())
        self.stopping = asyncio.Event()
        self.killing = asyncio.Event()
        self.failure: EstibaError | None = None
        """The reason why the model server cannot start; nothing else can work without it."""
        self._announced = False
        self._context = RunContext(
            guard, self._guarded(observer.on_status), self._guarded(observer.on_line), restart_policy
        )
        self.runners = [ServiceRunner(*self._addresses(s), self._prepare, self._context) for s in plan.applications]
        if server := plan.model_server:
            addresses = (server, plan.target.server_host, plan.target.server_url)
            self.runners.insert(0, ServiceRunner(*addresses, self._prepare_server, self._context))

    def _addresses(self, service: Service) -> tuple[Service, str, str]:
        return service, LOOPBACK, self.plan.target.url(service)

    def handle_signals(self) -> None:
        """Stop at the first signal, kill at the second.

        SIGHUP stays ignored where it is: nohup relies on that. SIGINT does not: a shell without job control ignores it
        for what it starts in the background, and yet a script that sends it means it.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self.killing if self.stopping.is_set() else self.stopping).set()

        if termination.requested():
            stop()
        for number in termination.SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop)

    def _guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        """Stop when nothing reads the output any more, as in `estiba up | head`."""

        def guarded(*arguments: object) -> None:
            try:
                call(*arguments)
            except BrokenPipeError:
                self.stopping.set()

        return guarded

    def runner(self, name: str) -> ServiceRunner | None:
        return next((runner for runner in self.runners if runner.name == name), None)

    # The model server

    async def _prepare_server(self, runner: ServiceRunner) -> Launch:
        project, ready = self.plan.project, asyncio.Event()
        options = project.server
        if options.log == "auto":  # its own output is a pipe
            options = msgspec.structs.replace(options, log=self.observer.log_format)
        spec = ModelServerSpec(
            folder=str(project.folder),
            refs=list(project.models),
            options=options,
            registry=project.registry,
            trusted=sorted(self.plan.trusted),
            ports=model_ports(project),
            gateway=gateway_of(project.gateway, options, project.state, self._key_file()),
            drift=project.monitoring.drift,
        )
        return Launch(
            command=[sys.executable, "-m", "estiba.local.model_server"],
            folder=project.folder,
            environment=marked(os.environ, self.guard.mark, MODELS),
            message=msgspec.json.encode(spec),
            on_message=lambda line: self._receive(line, ready),
            ready=ready,
        )

    def _key_file(self) -> str:
        """The file of the key for services of the project; empty where keys are not needed."""
        return str(secrets.path_of(self.plan.project.folder, API_KEY)) if self.plan.needs_keys else ""

    def _receive(self, line: str, ready: asyncio.Event) -> None:
        report = msgspec.json.decode(line, type=Report)
        if isinstance(report, Failed):
            if not self._announced:
                self.failure = report.error()
                self.stopping.set()
            else:  # it served before, and is started again
                self._guarded(self.observer.on_note)(f"{MODELS}: {report.message}")
            return
        ready.set()
        if not self._announced:
            self._announced = True
            examples, ports = MappingProxyType(report.examples), model_ports(self.plan.project)
            running = Running(
                report.url, report.workers, report.threads, examples, ports, self.plan.needs_keys, self._key_file()
            )
            self._guarded(self.observer.on_ready)(running)

    # Applications

    async def _prepare(self, runner: ServiceRunner) -> Launch:
        running = {*self.plan.selection.services, MODELS}
        return await orchestrate.prepare(self.plan.target, runner, running, self.guard.mark, self.gateway)

    async def change(self, plan: RunPlan) -> list[str]:
        """Replace the plan by another one of the same services; return those that differ, which are restarted."""
        before, self.plan = self.plan, plan
        self.gateway.targets = plan.host_ports()
        changed: list[ServiceRunner] = []
        for service in plan.applications:
            runner = self.runner(service.name)
            if runner is not None and _settings(before.target, runner.service) != _settings(plan.target, service):
                runner.service, runner.url = service, plan.target.url(service)
                changed.append(runner)
        await asyncio.gather(*(runner.restart() for runner in changed))
        return [runner.name for runner in changed]


def _settings(target: LocalTarget, service: Service) -> object:
    """All values that decide how a service runs on this machine."""
    seen = service if target.in_container(service) else replace(service, image="")
    return seen, target.argv(service), target.environment(service, None)


def left_out(selection: Selection) -> Mapping[str, Status]:
    """The status of each service that is not started."""
    return {name: Status(name, State.LEFT_OUT, detail=reason) for name, reason in selection.left_out.items()}
