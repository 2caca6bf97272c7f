"""Listen, pass clients to worker processes, and restart workers that die, hang or have to be replaced.

The supervisor accepts every connection (`acceptor.py`) and passes the socket to the least-loaded worker, keeping a
copy. So the death of a worker costs only the requests that it was answering, and those get a 503 at once; clients
between requests move to another worker and notice nothing. They move in the same way when workers are replaced on
purpose, or fewer are wanted. The supervisor does not parse requests, and loads no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from estiba.core import cpus, termination
from estiba.core.addresses import http_url
from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.core.stores.disk import owned_temporary
from estiba.serving.http.listen import listen, listen_unix
from estiba.serving.options import ServerOptions
from estiba.serving.route_spec import RouteHome
from estiba.serving.server_status import STATUS_FILE, Status
from estiba.serving.telemetry import tracing
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.acceptor import Acceptor, connections
from estiba.serving.workers.auxiliary_process import AuxiliaryProcess, AuxiliarySpec
from estiba.serving.workers.certificate_watch import CertificateWatch
from estiba.serving.workers.hot_swap import HotSwap, Source
from estiba.serving.workers.messages import WORKER_MODULE, WorkerSpec
from estiba.serving.workers.policy_follower import PolicyFollower, PolicySource
from estiba.serving.workers.worker_process import TROUBLES, Process

TICK_SECONDS = 0.05
"""Interval of checks of the workers."""

AUXILIARY_STOP_SECONDS = 2.0
"""Time for auxiliary processes to end after SIGTERM."""

BACKOFF_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Delay before a worker is restarted, by how many died within a minute."""


class Programs(NamedTuple):
    """The modules that the supervisor runs.

    Args:
        worker: the module of the workers; it calls `worker.main`.
        auxiliary: further processes to keep alive.
        policies: the source of the policies that the workers' module builds its pipeline from.
        routes: the registry of the routes, for workers.
    """

    worker: str = WORKER_MODULE
    auxiliary: tuple[AuxiliarySpec, ...] = ()
    policies: PolicySource | None = None
    routes: RouteHome | None = None


DEFAULT_PROGRAMS = Programs()


class Supervisor:
    """One server of several processes."""

    def __init__(
        self,
        options: ServerOptions,
        ports: Mapping[int, str],
        hot_swap: HotSwap,
        log: Log,
        metrics: Metrics,
        *,
        programs: Programs = DEFAULT_PROGRAMS,
    ) -> None:
        """Start nothing yet; raises EstibaError for more connections than there can be.

        Args:
            ports: by port, the model that short paths ask there.
            metrics: in a file, in the folder that the processes share; the caller removes it.
        """
        assert metrics.folder is not None
        self._options = options
        self._ports = dict(ports)
        self._folder = metrics.folder
        self._log = log
        processors = cpus.available()
        self._count = options.workers or processors
        self._threads = options.threads or max(1, processors // self._count)
        self._metrics = metrics
        self._hot_swap = hot_swap
        self._module, self._routes = programs.worker, programs.routes
        source = programs.policies
        self._policies = None if source is None else PolicyFollower(source, self._folder, log, metrics)
        self._auxiliary = [AuxiliaryProcess(spec, self._folder, log) for spec in programs.auxiliary]
        self._certificate: CertificateWatch | None = None
        if options.certificate:
            self._certificate = CertificateWatch(options.certificate, options.certificate_key, log, metrics)
        self._acceptor = Acceptor(
            connections(options.max_connections),
            lambda: (*self._workers, *self._leaving),
            log,
            metrics,
            encrypted=self._certificate is not None,
        )
        self._workers: list[Process] = []
        self._fresh: dict[int, Process] = {}
        self._leaving: list[Process] = []
        self._spare_files: list[str] = []  # metrics of workers that are gone, for others to count on in
        self._deaths: deque[float] = deque()
        self._restarts = 0
        self._made = 0
        self._draining = False
        self._status = b""
        self._status_failed = False
        for reason in TROUBLES:  # present at 0, or Prometheus would not see the first restart as a rise
            metrics.slot("estiba_worker_restarts_total", reason)

    async def run(self, listeners: Sequence[socket.socket], on_ready: Callable[[], None]) -> None:
        """Serve until SIGINT or SIGTERM, then drain.

        SIGHUP replaces all workers; SIGTTIN adds one, SIGTTOU removes one.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        if termination.requested():
            stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        wishes = {
            signal.SIGHUP: self._replace_all,
            signal.SIGTTIN: self._add_worker,
            signal.SIGTTOU: self._remove_worker,
        }
        for wish, act in wishes.items():
            loop.add_signal_handler(wish, lambda act=act: self._draining or act())  # type: ignore[misc]
        self._hot_swap.start()
        if self._policies is not None:
            self._policies.start()
        try:
            self._workers = [self._begin(index) for index in range(self._count)]
            await self._first_start(stop)
            self._acceptor.open(listeners)
            if not stop.is_set():
                on_ready()
            await self._watch(stop)
            await self._stop()
        finally:
            for worker in (*self._workers, *self._fresh.values(), *self._leaving):
                worker.kill()
            for process in self._auxiliary:
                process.stop()
            for process in self._auxiliary:
                process.kill(AUXILIARY_STOP_SECONDS)
            termination.ignore(loop)

    async def _first_start(self, stop: asyncio.Event) -> None:
        """Wait until every worker is ready. If one cannot start, none will: raise its reason."""
        while not all(worker.ready for worker in self._workers) and not stop.is_set():
            for worker in self._workers:
                if reason := worker.trouble():
                    await asyncio.sleep(TICK_SECONDS)  # its last message may still be on the way
                    if stop.is_set():  # an init system may have signalled the worker too
                        return
                    failure = worker.failure or self._cannot_start(worker, reason)
                    if not self._hot_swap.without_routes(failure.message):
                        raise failure
                    self._begin_again()
                    break
            await asyncio.sleep(0.005)
        self._publish()

    def _begin_again(self) -> None:
        """Start all workers again, with the configuration in force by now."""
        for worker in self._workers:
            worker.kill()
        self._workers = [self._begin(index) for index in range(self._count)]

    def _cannot_start(self, worker: Process, reason: str) -> EstibaError:
        if reason != "slow start":
            return EstibaError(f"A worker ended while starting: {worker.ending()}.")
        seconds = self._options.start_timeout
        hint = "Raise start_timeout in [server]."
        return EstibaError(f"A worker did not load its models within {seconds:g} seconds.", hint=hint)

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._tick()
            self._hot_swap.poll([w for w in self._workers if w.serving])
            if self._policies is not None:
                self._policies.poll((*self._workers, *self._fresh.values(), *self._leaving))
            if self._certificate is not None:
                self._certificate.poll((*self._workers, *self._fresh.values(), *self._leaving))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_SECONDS)

    def _begin(self, index: int, start_at: float = 0.0, metrics: str = "") -> Process:
        """Start a worker that continues the given metrics file, or that of a worker that is gone."""
        self._made += 1
        if not metrics and self._spare_files:
            metrics = self._spare_files.pop()
        spec = WorkerSpec(
            index=index,
            folder=str(self._folder),
            metrics=metrics or str(self._folder / f"{index}-{self._made}.metrics"),
            state=str(self._folder / f"{index}-{self._made}.state"),
            generation=self._hot_swap.generation,
            options=self._options,
            threads=self._threads,
            ports=self._ports,
            module=self._module,
            routes=self._routes,
            certificate=b"" if self._certificate is None else self._certificate.pem,
        )
        return Process(spec, self._message, start_at)

    def _message(self, worker: Process, message: messages.AnyMessage) -> None:
        match message:
            case messages.Closed(slot, handed_over):
                client = worker.release(slot)
                if client is not None and handed_over:
                    self._acceptor.place(client, time.monotonic())
                elif client is not None:
                    client.close()
            case messages.Prepared():
                self._hot_swap.on_prepared(worker, message)
                self._publish()  # before the log line of a failure can be read

    # Workers

    def _tick(self) -> None:
        for worker in (*self._workers, *self._leaving):
            worker.flush()
        for position, worker in enumerate(self._workers):
            reason = worker.trouble()
            if reason:
                self._workers[position] = self._replace(worker, reason)
            elif worker.ready and worker.generation != self._hot_swap.generation and position not in self._fresh:
                # It was starting, or silent, while the others switched to another version.
                self._fresh[position] = self._begin(worker.index)
            elif worker in self._hot_swap.stuck and position not in self._fresh:
                self._fresh[position] = self._begin(worker.index)
        for position, fresh in list(self._fresh.items()):
            self._take_over(position, fresh)
        self._hot_swap.stuck.intersection_update(self._workers)
        for worker in [w for w in self._leaving if w.ended or w.overdue(self._options.drain + 1)]:
            self._leaving.remove(worker)
            self._end(worker)
            self._spare_files.append(worker.spec.metrics)
        self._hot_swap.advance([w for w in self._workers if w.serving])
        self._acceptor.tick()
        for process in self._auxiliary:
            process.tick()
        self._publish()

    def _replace(self, worker: Process, reason: str) -> Process:
        """Replace a dead or hung worker; its successor starts at once, or after a backoff where several died lately."""
        now = time.monotonic()
        self._deaths.append(now)
        self._restarts += 1
        self._metrics.slot("estiba_worker_restarts_total", reason).add()
        ending = worker.failure.message if worker.failure else worker.ending()
        self._log.error("worker replaced", worker=worker.index, reason=reason, ending=ending)
        self._hot_swap.on_death(worker, ending)
        self._end(worker)
        recent = len([death for death in self._deaths if death > now - 60])
        return self._begin(
            worker.index, now + BACKOFF_SECONDS[min(recent, len(BACKOFF_SECONDS)) - 1], worker.spec.metrics
        )

    def _end(self, worker: Process) -> None:
        """Kill what is left of a worker. Its clients between requests move to another; the others get a 503 at once."""
        worker.kill()
        for slot in list(worker.clients):
            client = worker.release(slot)
            if client is None:
                continue
            if worker.busy(slot):
                self._acceptor.refuse(client, "The process that was answering this request died.")
            elif self._certificate is not None:
                client.close()
            else:
                self._acceptor.place(client, time.monotonic())

    def _replace_all(self) -> None:
        """Start a fresh worker beside each one, which drains once the fresh one is ready."""
        self._log.info("replacing workers", count=len(self._workers))
        for position, old in enumerate(self._workers):
            if position not in self._fresh:
                self._fresh[position] = self._begin(old.index)

    def _take_over(self, position: int, fresh: Process) -> None:
        if fresh.ready and fresh.generation != self._hot_swap.generation:
            fresh.kill()
            self._fresh[position] = self._begin(fresh.index)
        elif fresh.ready:
            old = self._workers[position]
            self._workers[position] = self._fresh.pop(position)
            self._drain_worker(old)
        elif fresh.trouble():
            reason = fresh.failure.message if fresh.failure else fresh.ending()
            self._log.error(
                "a replacement worker cannot start; the old worker continues", worker=fresh.index, reason=reason
            )
            self._fresh.pop(position).kill()

    def _add_worker(self) -> None:
        self._count += 1
        self._log.info("worker added", count=self._count)
        self._workers.append(self._begin(len(self._workers)))

    def _remove_worker(self) -> None:
        """Remove the last worker; its clients move to the others."""
        if self._count == 1:
            self._log.warning("the last worker is not stopped")
            return
        self._count -= 1
        self._log.info("worker stopped", count=self._count)
        worker = self._workers.pop()
        fresh = self._fresh.pop(len(self._workers), None)
        if fresh is not None:
            fresh.kill()
        self._drain_worker(worker)

    def _drain_worker(self, worker: Process) -> None:
        """Let a worker finish its requests and hand its other clients back."""
        self._leaving.append(worker)
        if worker.ready:
            worker.drain(hand_over=True)
        else:  # it has no clients yet
            worker.kill()

    def _publish(self) -> None:
        """Write the status file for the workers, if it has changed."""
        ready = sum(worker.serving for worker in self._workers)
        while self._deaths and self._deaths[0] < time.monotonic() - 60:
            self._deaths.popleft()
        status = Status(
            workers=ready,
            wanted=self._count,
            threads=self._threads,
            restarts=self._restarts,
            draining=self._draining,
            failing=len(self._deaths) >= self._options.max_restarts,
            failed=dict(self._hot_swap.failed),
            policy_error="" if self._policies is None else self._policies.error,
            certificate_error="" if self._certificate is None else self._certificate.error,
        )
        content = msgspec.json.encode(status)
        if content != self._status:
            if not self._write_status(content):
                return
            self._metrics.slot("estiba_workers", "ready").set(ready)
            self._metrics.slot("estiba_workers", "starting").set(self._count - ready)

    def _write_status(self, content: bytes) -> bool:
        """Write the status; where the folder is full or gone, warn once, and try again at the next look."""
        fresh = self._folder / "status.new"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fresh.write_bytes(content)
            fresh.replace(self._folder / STATUS_FILE)
        except OSError as error:
            if not self._status_failed:
                text = "the status of the workers cannot be written; the server goes on"
                self._log.warning(text, folder=str(self._folder), reason=error.strerror)
            self._status_failed = True
            return False
        self._status, self._status_failed = content, False
        return True

    async def _stop(self) -> None:
        """Shut down: report not ready, wait `shutdown_delay`, stop accepting, drain the workers."""
        self._draining = True
        self._publish()
        until = time.monotonic() + self._options.shutdown_delay
        while time.monotonic() < until:
            self._tick()
            await asyncio.sleep(TICK_SECONDS)
        await self._acceptor.close()
        for worker in self._workers:
            if worker.ready:
                worker.drain(hand_over=False)
            else:  # still loading, or waiting for its start: nothing to finish
                worker.kill()
        while any(not w.ended and not w.overdue(self._options.drain + 1) for w in (*self._workers, *self._leaving)):
            for worker in (*self._workers, *self._leaving):
                worker.flush()
            await asyncio.sleep(0.01)
        for worker in (*self._workers, *self._leaving):
            self._end(worker)
        self._acceptor.refuse_all("The server is shutting down.")


def _check_telemetry(options: ServerOptions, log: Log) -> None:
    """Raise the errors of tracing once, before every worker would, and log once why no spans are sent."""
    tracing.settings(options.telemetry)
    if reason := tracing.complaint(options.telemetry):
        log.warning("no spans are sent", reason=reason)


def _open(options: ServerOptions, ports: Iterable[int], opened: contextlib.ExitStack) -> list[socket.socket]:
    """The sockets to listen on, closed with `opened`; raises EstibaError where an address is taken."""
    if options.unix:
        return [opened.enter_context(listen_unix(Path(options.unix)))]
    return [opened.enter_context(listen(options.host, port)) for port in (options.port, *ports)]


def _url(options: ServerOptions, listener: socket.socket) -> str:
    """The URL of a server; `unix:` and a path for a Unix socket."""
    if options.unix:
        return f"unix:{options.unix}"
    host, port = listener.getsockname()[:2]
    return http_url(host, port, "https" if options.certificate else "http")


def supervise(
    options: ServerOptions,
    refs: Sequence[str],
    source: Source,
    *,
    ports: Mapping[int, str],
    programs: Programs = DEFAULT_PROGRAMS,
    on_ready: Callable[[str, int, int], None],
) -> None:
    """Serve models in worker processes until a signal to stop. This process ignores further ones, as it is to end then.

    Args:
        refs: what to serve, one version each.
        source: the registry. Once the server runs, its functions are called in threads.
        ports: further ports, each with the model that short paths such as `/predict` ask there.
        programs: the modules to run.
        on_ready: called with the URL, the number of workers and their threads once the server answers.

    Raises:
        EstibaError: the address is taken, a model cannot be served, or nothing temporary can be written.
    """
    with contextlib.ExitStack() as opened:
        listeners = _open(options, ports, opened)
        url = _url(options, listeners[0])
        folder = opened.enter_context(owned_temporary("server"))
        log, metrics = Log(options.log), Metrics(folder / "supervisor.metrics")
        _check_telemetry(options, log)
        hot_swap = HotSwap(refs, source, folder, log, metrics, timeout=options.start_timeout)
        supervisor = Supervisor(options, ports, hot_swap, log, metrics, programs=programs)
        counts = (supervisor._count, supervisor._threads)
        asyncio.run(supervisor.run(listeners, lambda: on_ready(url, *counts)))
