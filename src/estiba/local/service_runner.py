"""Run one service as a local process: wait for its dependencies, start it, check its health, restart it when it ends.

A runner is a state machine (`estiba.local.status.State`). `_enter` is the only function that changes its state.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from estiba.core import ports
from estiba.core.errors import EstibaError
from estiba.core.process_group import ProcessGroup
from estiba.deploy.plan.plan import Command, Service
from estiba.deploy.plan.service_options import Condition
from estiba.deploy.plan.timing import MAX_HEALTH_FAILURES
from estiba.local import health_probe
from estiba.local.endings import KILLED_IN_CONTAINER, ending, unkillable
from estiba.local.status import FINISHED, TRANSITIONS, Launch, RunContext, State, Status

SHOWN_LINES = 20
"""Lines of output that are shown of a service that failed."""

FIRST_PROBE_SECONDS = 0.1
"""The pause between the first health checks of a service that starts; later pauses grow."""

LONGEST_PROBE_SECONDS = 0.5


@dataclass(frozen=True)
class _Attempt:
    """The end of one attempt to run the program.

    Args:
        code: the exit code; None where it did not start, or was stopped because it did not become healthy.
    """

    detail: str
    hint: str = ""
    code: int | None = None
    output: tuple[str, ...] = ()
    seconds: float = 0.0


class ServiceRunner:
    """A service that is kept running."""

    def __init__(
        self,
        service: Service,
        host: str,
        url: str,
        prepare: Callable[[ServiceRunner], Awaitable[Launch]],
        context: RunContext,
    ) -> None:
        """Do not start anything yet.

        Args:
            host: the address at which its health is checked. url: the address that users are shown.
            prepare: called before each start; may raise EstibaError, and call `report_installing`.
        """
        self.service = service
        self.url = url
        self.state = State.WAITING
        self.reached: set[Condition] = set()
        """Conditions of other services' `needs` that have been met at some time."""
        self._host = host
        self._prepare = prepare
        self._context = context
        self._group: ProcessGroup | None = None
        self._stop_signal = "SIGTERM"
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._restart_requested = False
        self._killed = False
        self._restarts = 0
        self._failures = 0
        self._output: deque[str] = deque(maxlen=SHOWN_LINES)

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def finished(self) -> bool:
        """True once it has ended by itself and only a changed file can start it again."""
        return self.state in FINISHED

    @property
    def failed(self) -> bool:
        return self.state is State.FAILED

    @property
    def at_rest(self) -> bool:
        """True while none of its processes runs and none will."""
        return self.finished or self.state is State.STOPPED

    @property
    def crash(self) -> BaseException | None:
        """An exception of the runner itself, which is a fault of Estiba."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    # For its session

    def start(self, peers: Mapping[str, ServiceRunner]) -> None:
        """Start the service once its dependencies have met their conditions."""
        self._task = asyncio.create_task(self._run(peers), name=self.name)

    def forward_line(self, line: str) -> None:
        """Pass on a line of its output."""
        self._output.append(line)
        self._context.on_line(self.name, line)

    def report_installing(self) -> None:
        """Report that packages are being installed for it."""
        self._enter(State.INSTALLING)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition`, which depends on this runner's state, is true."""
        while not condition():
            await self._changed.wait()

    async def restart(self) -> None:
        """Stop its processes, if any, and start it again without a pause."""
        self._restart_requested = True
        self._failures = 0
        self._notify()
        if self._group is not None and self._group.code is None:
            self._enter(State.STOPPING)
            await self._end(self._group)

    async def stop(self) -> None:
        """Send its stop signal, and SIGKILL to what is left after its grace period."""
        await self._cancel()
        if self._group is not None and not self.at_rest:
            self._enter(State.STOPPING)
            graceful = await self._end(self._group)
            late = f"{self._stop_signal} did not end it within {self.service.stop_grace:g} s, so it was killed"
            detail = "" if graceful or self._killed else late
            self._finish_stop(unkillable(self._group) or detail, report=True)
        else:
            self._finish_stop()

    async def kill(self) -> None:
        """Send SIGKILL to all its processes."""
        self._killed = True
        await self._cancel()
        if self._group is not None and not self.at_rest:
            await self._group.kill()
            self._finish_stop(unkillable(self._group), report=True)
        else:
            self._finish_stop()

    def _finish_stop(self, detail: str = "", *, report: bool = False) -> None:
        if not self.at_rest:  # `kill` may come while `stop` waits for the grace period
            self._enter(State.STOPPED, report=report, detail=detail)

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _end(self, group: ProcessGroup) -> bool:
        graceful = await group.stop(signal.Signals[self._stop_signal], self.service.stop_grace)
        self._context.guard.over(group)
        return graceful

    # The state machine, in its own task

    async def _run(self, peers: Mapping[str, ServiceRunner]) -> None:
        if reason := await self._wait_for_dependencies(peers):
            self._restart_requested = False
            self._finish(_Attempt(reason))
            await self._wait_for_restart()
        while True:
            self._restart_requested = False
            self._enter(State.WAITING, report=False)
            attempt = await self._attempt()
            if not self._restart_requested:
                await self._wait_for_restart(self._conclude(attempt))

    async def _wait_for_dependencies(self, peers: Mapping[str, ServiceRunner]) -> str:
        """Wait for all conditions in `needs`; return the reason if one can no longer be met, else an empty string."""
        for name, condition in self.service.needs.items():
            peer = peers[name]
            if condition not in peer.reached:
                self._enter(State.WAITING, detail=f"for {name} to be {condition}")
            await peer.wait_until(lambda peer=peer, condition=condition: condition in peer.reached or peer.finished)  # type: ignore[misc]
            if condition not in peer.reached:
                return f"it needs {name}, which will not be {condition}"
        return ""

    async def _wait_for_restart(self, pause_seconds: float | None = None) -> None:
        """Wait for the end of the pause, or for a request to restart; without a pause, only for the request."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait_until(lambda: self._restart_requested), pause_seconds)

    def _conclude(self, attempt: _Attempt) -> float | None:
        """Decide what follows an attempt: a pause in seconds before the next one, or None for the end."""
        if attempt.code == 0:
            self.reached.add("completed")
        if not self.service.restart:
            self._finish(attempt)
            return None
        policy = self._context.restart_policy
        self._failures = 1 if attempt.seconds >= policy.reset_seconds else self._failures + 1
        self._restarts += 1
        pause = policy.pause_seconds(self._failures)
        first = self._failures == 1  # the last lines are shown once: those of further attempts are mostly the same
        self._enter(
            State.RESTARTING,
            detail=f"{attempt.detail}; starting again in {pause:g} s",
            hint=attempt.hint if first else "",
            output=attempt.output if first else (),
            seconds=attempt.seconds,
        )
        return pause

    def _finish(self, attempt: _Attempt) -> None:
        if attempt.code == 0:
            self._enter(State.DONE, seconds=attempt.seconds)
        else:
            self._enter(
                State.FAILED,
                detail=attempt.detail,
                hint=attempt.hint,
                output=attempt.output,
                seconds=attempt.seconds,
            )

    async def _attempt(self) -> _Attempt:
        """Prepare and start the program, and wait for its end."""
        self._output.clear()
        loop = asyncio.get_running_loop()
        try:
            launch = await self._prepare(self)
            group = ProcessGroup(
                launch.command,
                folder=launch.folder,
                environment=launch.environment,
                on_line=self.forward_line,
                on_message=launch.on_message,
                removal=launch.removal,
            )
        except EstibaError as error:
            output = tuple(getattr(error, "output", "").splitlines())
            return _Attempt(error.message.rstrip("."), error.hint or "", output=output)
        started_at = loop.time()
        self._group = group
        self._stop_signal = self.service.stop_signal or launch.stop_signal or "SIGTERM"
        self._restart_requested = False  # a request that came before this start is fulfilled by it
        self._context.guard.begin(group)
        if launch.message:
            group.tell(launch.message)
        attempt = await self._supervise(group, launch, started_at)
        await group.kill()  # processes that the program left behind
        self._context.guard.over(group)
        self._group = None
        return attempt

    async def _supervise(self, group: ProcessGroup, launch: Launch, started_at: float) -> _Attempt:
        self.reached.add("started")
        self._enter(State.STARTING)
        loop = asyncio.get_running_loop()
        exited = asyncio.create_task(group.wait())
        try:
            reason = await self._wait_until_healthy(exited, launch)
            seconds = loop.time() - started_at
            if reason and not self._restart_requested:
                return await self._stop_unhealthy(group, reason, seconds)
            if not exited.done() and not self._restart_requested:
                self.reached.add("healthy")
                if self.service.health:
                    self._enter(State.HEALTHY, seconds=seconds)
                else:
                    self._enter(State.RUNNING)
            code = await self._watch_health(exited, launch)
        finally:
            exited.cancel()
        seconds = loop.time() - started_at
        return _Attempt(ending(code), self._advice(code, launch), code, tuple(self._output), seconds)

    async def _wait_until_healthy(self, exited: asyncio.Task[int], launch: Launch) -> str:
        """Check until it is healthy or has exited; return the reason if it is not healthy in time."""
        pause, reason = FIRST_PROBE_SECONDS, ""
        try:
            async with asyncio.timeout(self.service.start_timeout):
                if launch.ready is not None:
                    await _first(asyncio.shield(exited), launch.ready.wait())
                while not exited.done():
                    reason = await self._probe(launch)
                    if not reason:
                        return ""
                    await asyncio.wait({exited}, timeout=pause)
                    pause = min(LONGEST_PROBE_SECONDS, pause * 1.2)
        except TimeoutError:
            return reason or "it gave no answer"
        return ""

    async def _watch_health(self, exited: asyncio.Task[int], launch: Launch) -> int:
        """Return its exit code; until it exits, check its health now and then and report changes.

        An unhealthy service is not stopped: Compose does not do so either, and somebody may be debugging it.
        """
        failures = 0
        while self.service.health and not exited.done():
            await asyncio.wait({exited}, timeout=self._context.restart_policy.probe_seconds)
            reason = "" if exited.done() else await self._probe(launch)
            before, failures = failures, failures + 1 if reason else 0
            if exited.done() or self._restart_requested:
                break
            if failures == MAX_HEALTH_FAILURES:
                self._enter(State.UNHEALTHY, detail=reason)
            elif before >= MAX_HEALTH_FAILURES and not failures:
                self._enter(State.HEALTHY, detail="again")
        return await exited

    async def _probe(self, launch: Launch) -> str:
        health, port, published = self.service.health, self.service.port, bool(launch.removal)
        return await health_probe.probe(health, self._host, port, launch.probe, published=published)

    async def _stop_unhealthy(self, group: ProcessGroup, reason: str, seconds: float) -> _Attempt:
        others = [port for port in ports.listening_ports(group.members()) if port != self.service.port]
        hint = f"Give it more time: start_timeout in [services.{self.name}]; or check its health."
        if others and not isinstance(self.service.health, Command):
            shown = ", ".join(map(str, others))
            hint = f"It listens on {shown}: let it listen on {self.service.port} of {self._host}, or change its port."
        await self._end(group)
        detail = f"not healthy within {self.service.start_timeout:g} s: {reason}"
        return _Attempt(detail, hint, None, tuple(self._output), seconds)

    def _advice(self, code: int, launch: Launch) -> str:
        if code == -signal.SIGKILL:
            return "SIGKILL mostly means that the system ran out of memory."
        if launch.removal and code == KILLED_IN_CONTAINER:
            return f"It was killed, mostly as it needs more memory: memory in [services.{self.name}]."
        return f"To try it by hand: cd {shlex.quote(str(launch.folder))} && {shlex.join(launch.command)}"

    def _enter(
        self,
        state: State,
        *,
        report: bool = True,
        detail: str = "",
        hint: str = "",
        output: tuple[str, ...] = (),
        seconds: float | None = None,
    ) -> None:
        """Change the state, wake up all that wait for a change, and report it."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.name}: {state} cannot follow {self.state}")
        self.state = state
        self._notify()
        if not report:
            return
        alive = self._group is not None and self._group.code is None
        status = Status(
            service=self.name,
            state=state,
            url=self.url,
            pid=self._group.pid if alive and self._group else None,
            seconds=seconds,
            restarts=self._restarts,
            detail=detail,
            hint=hint,
            output=output,
        )
        self._context.on_status(status)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _first(*waits: Awaitable[object]) -> None:
    """Return when the first of several has."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
