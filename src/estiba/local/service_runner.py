"""ServiceRunner: one service as processes of this machine, from what it waits for to its end, again and again."""

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
from estiba.local.status import Launch, RunContext, State, Status

TAIL = 20
"""Lines of output that are shown of a service that will not start."""

LOOK = 0.1
"""Seconds between the first questions whether a service is healthy; later ones come more slowly."""

SLOWEST = 0.5


@dataclass(frozen=True)
class _Ending:
    """How one attempt ended. `code` is None where it never came to run, or was ended for being unhealthy."""

    detail: str
    hint: str = ""
    code: int | None = None
    output: tuple[str, ...] = ()
    seconds: float = 0.0


class ServiceRunner:
    """A service that is kept running."""

    def __init__(
        self, service: Service, url: str, prepare: Callable[[ServiceRunner], Awaitable[Launch]], context: RunContext
    ) -> None:
        """Starts nothing yet.

        Args:
            prepare: says how to start the program, each time anew; may raise EstibaError, and tell `installing`.
        """
        self.service = service
        self.url = url
        self.met: dict[Condition, asyncio.Event] = {
            "started": asyncio.Event(),
            "healthy": asyncio.Event(),
            "completed": asyncio.Event(),
        }
        self.over = asyncio.Event()
        """Set once it has ended and nothing but a change will start it again."""
        self.failed = False
        self.ended = asyncio.Event()
        """Set once it was stopped, or never ran."""
        self._prepare = prepare
        self._context = context
        self._group: ProcessGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._again = False
        self._restarts = 0
        self._failures = 0
        self._tail: deque[str] = deque(maxlen=TAIL)

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def broken(self) -> BaseException | None:
        """What went wrong in keeping it, which nobody foresaw."""
        ended = self._task is not None and self._task.done() and not self._task.cancelled()
        return self._task.exception() if ended and self._task is not None else None

    def begin(self, peers: Mapping[str, ServiceRunner]) -> None:
        """Starts it once what it needs is as it should be."""
        self._task = asyncio.create_task(self._run(peers), name=self.name)

    def say(self, line: str) -> None:
        """Passes on a line of its output."""
        self._tail.append(line)
        self._context.on_line(self.name, line)

    def installing(self) -> None:
        """Tells that packages are being installed for it."""
        self._report("installing")

    async def restart(self) -> None:
        """Stops what runs, if anything does, and starts it again at once."""
        self._again = True
        self._failures = 0
        self._wake.set()
        if self._group is not None and self._group.code is None:
            self._report("stopping")
            await self._end(self._group)

    async def stop(self) -> None:
        """Ends it: its signal, its grace, then SIGKILL for all that is left."""
        await self._leave()
        if self._group is not None:
            self._report("stopping")
            polite = await self._end(self._group)
            asked = self.service.stop_signal or "SIGTERM"
            late = f"{asked} did not end it within {self.service.stop_grace:g} s, so it was killed"
            if not self.ended.is_set():  # else it was killed meanwhile, and said so
                self._report("stopped", detail=_held(self._group) or ("" if polite else late))
        self.ended.set()

    async def kill(self) -> None:
        """Ends it at once, if it has not ended yet."""
        if self.ended.is_set():
            return
        self.ended.set()
        await self._leave()
        if self._group is not None:
            await self._group.kill()
            self._report("stopped", detail=_held(self._group))

    async def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _end(self, group: ProcessGroup) -> bool:
        polite = await group.stop(signal.Signals[self.service.stop_signal or "SIGTERM"], self.service.stop_grace)
        self._context.guard.over(group.pid)
        return polite

    # From here on: what runs in its own task

    async def _run(self, peers: Mapping[str, ServiceRunner]) -> None:
        if reason := await self._needs(peers):
            self._wake.clear()
            self._finish(_Ending(reason))
        while True:
            if not self.over.is_set():
                ending = await self._once()
                if not self._again:
                    await self._judge(ending)
            if self.over.is_set():
                await self._wake.wait()
            self._again = False
            self._wake.clear()
            self.over.clear()

    async def _needs(self, peers: Mapping[str, ServiceRunner]) -> str:
        """Waits for what it needs; why that will never be, or nothing."""
        for name, condition in self.service.needs.items():
            peer = peers[name]
            if not peer.met[condition].is_set():
                self._report("waiting", detail=f"for {name} to be {condition}")
            await _first(peer.met[condition].wait(), peer.over.wait())
            if not peer.met[condition].is_set():
                return f"it needs {name}, which will not be {condition}"
        return ""

    async def _judge(self, ending: _Ending) -> None:
        """What follows from an ending by itself: it is over, or there is a pause."""
        if ending.code == 0:
            self.met["completed"].set()
        if not self.service.restart:
            self._finish(ending)
            return
        self._failures = 1 if ending.seconds >= self._context.restart_policy.steady else self._failures + 1
        self._restarts += 1
        pause = self._context.restart_policy.pause(self._failures)
        detail = f"{ending.detail}; starting again in {pause:g} s"
        # Its last lines are shown once: those of further attempts are most often the same.
        first = self._failures == 1
        self._report(
            "restarting", detail=detail, hint=ending.hint * first, output=ending.output if first else (), ending=ending
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    def _finish(self, ending: _Ending) -> None:
        self.failed = ending.code != 0
        self.over.set()
        if self.failed:
            self._report("failed", detail=ending.detail, hint=ending.hint, output=ending.output, ending=ending)
        else:
            self._report("done", ending=ending)

    async def _once(self) -> _Ending:
        """One attempt, from its preparation to its end."""
        self._tail.clear()
        loop = asyncio.get_running_loop()
        try:
            launch = await self._prepare(self)
            group = ProcessGroup(
                launch.command,
                folder=launch.folder,
                environment=launch.environment,
                on_line=self.say,
                on_message=launch.on_message,
            )
        except EstibaError as error:
            return _Ending(
                error.message.rstrip("."), error.hint or "", output=tuple(getattr(error, "output", "").splitlines())
            )
        began = loop.time()
        self._group, self._again = group, False
        self._wake.clear()  # a wish to start again that came before this start is granted
        self._context.guard.begin(group.pid)
        if launch.message:
            group.tell(launch.message)
        self.met["started"].set()
        ending = await self._lived(group, launch, began)
        await group.kill()  # what it left behind
        self._context.guard.over(group.pid)
        self._group = None
        return ending

    async def _lived(self, group: ProcessGroup, launch: Launch, began: float) -> _Ending:
        self._report("starting")
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(group.wait())
        try:
            reason = await self._until_healthy(waiting, launch)
            seconds = loop.time() - began
            if reason:
                return await self._unhealthy(group, reason, seconds)
            if not waiting.done():
                self.met["healthy"].set()
                if self.service.health:
                    self._report("healthy", seconds=seconds)
                else:
                    self._report("running")
            code = await self._attended(waiting, launch)
        finally:
            waiting.cancel()
        return _Ending(_words(code), self._advice(code, launch), code, tuple(self._tail), loop.time() - began)

    async def _until_healthy(self, waiting: asyncio.Task[int], launch: Launch) -> str:
        """Asks until it is healthy or has ended; why it is not, once its time is over."""
        command = (launch.probe, launch.folder, launch.probe_environment)
        pause, reason = LOOK, ""
        try:
            async with asyncio.timeout(self.service.start_timeout):
                while not waiting.done():
                    reason = await health_probe.ask(self.service.health, self.service.port, command)
                    if not reason:
                        return ""
                    await asyncio.wait({waiting}, timeout=pause)
                    pause = min(SLOWEST, pause * 1.2)
        except TimeoutError:
            return reason or "it gave no answer"
        return ""

    async def _attended(self, waiting: asyncio.Task[int], launch: Launch) -> int:
        """Its exit code, once it has ended; until then it is asked now and then, and told of when that changes.

        It is not ended for its answers: Compose does not do so either, and somebody may be looking into it.
        """
        command = (launch.probe, launch.folder, launch.probe_environment)
        failures = 0
        while self.service.health and not waiting.done():
            await asyncio.wait({waiting}, timeout=self._context.restart_policy.look)
            reason = "" if waiting.done() else await health_probe.ask(self.service.health, self.service.port, command)
            before, failures = failures, failures + 1 if reason else 0
            if waiting.done() or self._again:
                break
            if failures == MAX_HEALTH_FAILURES:
                self._report("unhealthy", detail=reason)
            elif before >= MAX_HEALTH_FAILURES and not failures:
                self._report("healthy", detail="again")
        return await waiting

    async def _unhealthy(self, group: ProcessGroup, reason: str, seconds: float) -> _Ending:
        heard = [port for port in ports.listening_ports(group.members()) if port != self.service.port]
        hint = f"Give it more time: start_timeout in [services.{self.name}]; or check its health."
        if heard and not isinstance(self.service.health, Command):
            shown = ", ".join(map(str, heard))
            hint = f"It listens on {shown}: let it listen on {self.service.port} of 127.0.0.1, or change its port."
        await self._end(group)
        detail = f"not healthy within {self.service.start_timeout:g} s: {reason}"
        return _Ending(detail, hint, None, tuple(self._tail), seconds)

    def _advice(self, code: int, launch: Launch) -> str:
        if code == -signal.SIGKILL:
            return "SIGKILL is most often the system's answer to too little memory."
        return f"To try it by hand: cd {shlex.quote(str(launch.folder))} && {shlex.join(launch.command)}"

    def _report(
        self,
        state: State,
        *,
        detail: str = "",
        hint: str = "",
        output: tuple[str, ...] = (),
        seconds: float | None = None,
        ending: _Ending | None = None,
    ) -> None:
        alive = self._group is not None and self._group.code is None
        status = Status(
            service=self.name,
            state=state,
            url=self.url,
            pid=self._group.pid if alive and self._group else None,
            seconds=ending.seconds if ending else seconds,
            restarts=self._restarts,
            detail=detail,
            hint=hint,
            output=output,
        )
        self._context.on_status(status)


def _held(group: ProcessGroup) -> str:
    """What is to be said of processes that nobody could kill."""
    shown = ", ".join(map(str, sorted(group.left)))
    return f"the system does not let go of process {shown}, which was killed" if shown else ""


def _words(code: int) -> str:
    """How a program ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


async def _first(*waits: Awaitable[object]) -> None:
    """Returns when the first has."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
