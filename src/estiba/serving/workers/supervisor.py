"""Supervisor: the process that listens, hands clients to workers, and keeps the workers alive and honest.

It accepts every connection (`door.py`) and passes the socket to the worker with the fewest, keeping a copy. So a death
costs only the requests that it was answering, and those get a 503 at once: clients between requests move
to another worker and notice nothing. The same moves them when workers are replaced on purpose, or fewer are wanted. It
knows nothing of requests, and imports neither NumPy nor a model's libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from estiba.core import cpus, termination
from estiba.core.addresses import http_url
from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.core.stores.disk import temporary
from estiba.serving.http.listen import listen
from estiba.serving.options import ServerOptions
from estiba.serving.server_status import STATUS_FILE, Status
from estiba.serving.telemetry import tracing
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.acceptor import Door, connections
from estiba.serving.workers.hot_swap import Resolve, Source, Stamp, Versions
from estiba.serving.workers.messages import WorkerSpec
from estiba.serving.workers.worker_process import TROUBLES, Process

TICK = 0.05
"""Seconds between looks at the workers."""

BACKOFF = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker is started again, by how many died within a minute."""


class Supervisor:
    """One server of several processes."""

    def __init__(
        self, options: ServerOptions, ports: Mapping[int, str], models: Versions, log: Log, metrics: Metrics
    ) -> None:
        """Starts nothing yet; raises EstibaError for more connections than there can be.

        Args:
            ports: by port, the model that short paths ask there.
            metrics: in a file, in the folder of what the processes share; the caller removes that.
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
        self._models = models
        self._door = Door(connections(options.max_connections), lambda: (*self._workers, *self._leaving), log, metrics)
        self._workers: list[Process] = []
        self._fresh: dict[int, Process] = {}
        self._leaving: list[Process] = []
        self._spare_files: list[str] = []  # metrics of workers that are gone, for others to count on in
        self._deaths: deque[float] = deque()
        self._restarts = 0
        self._made = 0
        self._draining = False
        self._status = b""
        for reason in TROUBLES:  # there at 0, or Prometheus would not see the first restart as a rise
            metrics.slot("estiba_worker_restarts_total", reason)

    async def run(self, listeners: Sequence[socket.socket], on_ready: Callable[[], None]) -> None:
        """Serves until SIGINT or SIGTERM, then drains.

        SIGHUP replaces the workers by fresh ones; SIGTTIN adds one, SIGTTOU lets one go.
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
        self._models.start()
        try:
            self._workers = [self._begin(index) for index in range(self._count)]
            await self._first_start(stop)
            self._door.open(listeners)
            if not stop.is_set():
                on_ready()
            await self._watch(stop)
            await self._stop()
        finally:
            for worker in (*self._workers, *self._fresh.values(), *self._leaving):
                worker.kill()

    async def _first_start(self, stop: asyncio.Event) -> None:
        """Waits until every worker is ready. One that cannot start now never will: its reason is the server's."""
        while not all(worker.ready for worker in self._workers) and not stop.is_set():
            for worker in self._workers:
                if reason := worker.trouble():
                    await asyncio.sleep(TICK)  # its last words may still be on the way
                    if stop.is_set():  # an init system told it to end too
                        return
                    raise worker.failure or self._cannot_start(worker, reason)
            await asyncio.sleep(0.005)
        self._publish()

    def _cannot_start(self, worker: Process, reason: str) -> EstibaError:
        if reason != "slow start":
            return EstibaError(f"A worker ended while starting: {worker.ending()}.")
        seconds = self._options.start_timeout
        hint = "Give it more time: start_timeout in [server]."
        return EstibaError(f"A worker did not load its models within {seconds:g} seconds.", hint=hint)

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._tick()
            self._models.look([w for w in self._workers if w.serving])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK)

    def _begin(self, index: int, start_at: float = 0.0, metrics: str = "") -> Process:
        """Starts a worker, which counts on in the metrics file given, or of one that is gone."""
        self._made += 1
        if not metrics and self._spare_files:
            metrics = self._spare_files.pop()
        spec = WorkerSpec(
            index=index,
            folder=str(self._folder),
            metrics=metrics or str(self._folder / f"{index}-{self._made}.metrics"),
            state=str(self._folder / f"{index}-{self._made}.state"),
            models=self._models.served,
            options=self._options,
            threads=self._threads,
            ports=self._ports,
        )
        return Process(spec, self._message, start_at)

    def _message(self, worker: Process, message: messages.AnyMessage) -> None:
        match message:
            case messages.Closed(slot, handed_over):
                client = worker.release(slot)
                if client is not None and handed_over:
                    self._door.place(client, time.monotonic())
                elif client is not None:
                    client.close()
            case messages.Loaded():
                self._models.told(worker, message)
                self._publish()  # whoever reads that it failed may ask why

    # Workers

    def _tick(self) -> None:
        for worker in (*self._workers, *self._leaving):
            worker.flush()
        for position, worker in enumerate(self._workers):
            reason = worker.trouble()
            if reason:
                self._workers[position] = self._succeed(worker, reason)
            elif worker.ready and worker.models != self._models.served and position not in self._fresh:
                # It was starting, or silent, while the others switched to another version.
                self._fresh[position] = self._begin(worker.index)
        for position, fresh in list(self._fresh.items()):
            self._take_over(position, fresh)
        for worker in [w for w in self._leaving if w.ended or w.overdue(self._options.drain + 1)]:
            self._leaving.remove(worker)
            self._end(worker)
            self._spare_files.append(worker.spec.metrics)
        self._models.go_on([w for w in self._workers if w.serving])
        self._door.look()
        self._publish()

    def _succeed(self, worker: Process, reason: str) -> Process:
        """Ends a dead or hung worker; its successor starts at once, or later where too many died lately."""
        now = time.monotonic()
        self._deaths.append(now)
        self._restarts += 1
        self._metrics.slot("estiba_worker_restarts_total", reason).add()
        ending = worker.failure.message if worker.failure else worker.ending()
        self._log.error("worker replaced", worker=worker.index, reason=reason, ending=ending)
        self._end(worker)
        recent = len([death for death in self._deaths if death > now - 60])
        return self._begin(worker.index, now + BACKOFF[min(recent, len(BACKOFF)) - 1], worker.spec.metrics)

    def _end(self, worker: Process) -> None:
        """Kills what is left of a worker. Its clients between requests go to another; the rest are told at once."""
        worker.kill()
        for slot in list(worker.clients):
            client = worker.release(slot)
            if client is None:
                continue
            if worker.busy(slot):
                self._door.refuse(client, "The process that was answering this request died.")
            else:
                self._door.place(client, time.monotonic())

    def _replace_all(self) -> None:
        """Starts a fresh worker beside each; the old one leaves once that is ready."""
        self._log.info("replacing workers", count=len(self._workers))
        for position, old in enumerate(self._workers):
            if position not in self._fresh:
                self._fresh[position] = self._begin(old.index)

    def _take_over(self, position: int, fresh: Process) -> None:
        if fresh.ready and fresh.models != self._models.served:
            fresh.kill()
            self._fresh[position] = self._begin(fresh.index)
        elif fresh.ready:
            old = self._workers[position]
            self._workers[position] = self._fresh.pop(position)
            self._let_go(old)
        elif fresh.trouble():
            reason = fresh.failure.message if fresh.failure else fresh.ending()
            self._log.error("a fresh worker cannot start; the old one stays", worker=fresh.index, reason=reason)
            self._fresh.pop(position).kill()

    def _add_worker(self) -> None:
        self._count += 1
        self._log.info("one worker more", count=self._count)
        self._workers.append(self._begin(len(self._workers)))

    def _remove_worker(self) -> None:
        """Lets the last worker go; its clients move to the others."""
        if self._count == 1:
            self._log.warning("the only worker stays")
            return
        self._count -= 1
        self._log.info("one worker less", count=self._count)
        worker = self._workers.pop()
        fresh = self._fresh.pop(len(self._workers), None)
        if fresh is not None:
            fresh.kill()
        self._let_go(worker)

    def _let_go(self, worker: Process) -> None:
        """It finishes what it has, and hands its other clients back."""
        self._leaving.append(worker)
        if worker.ready:
            worker.drain(hand_over=True)
        else:  # it has no clients yet
            worker.kill()

    def _publish(self) -> None:
        """Tells the workers how the whole server is."""
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
            failed=dict(self._models.failed),
        )
        content = msgspec.json.encode(status)
        if content != self._status:
            self._status = content
            fresh = self._folder / "status.new"
            fresh.write_bytes(content)
            fresh.replace(self._folder / STATUS_FILE)
            self._metrics.slot("estiba_workers", "ready").set(ready)
            self._metrics.slot("estiba_workers", "starting").set(self._count - ready)

    async def _stop(self) -> None:
        """Says that it is not ready, waits as announced, takes who is at the door, and lets the workers drain."""
        self._draining = True
        self._publish()
        until = time.monotonic() + self._options.shutdown_delay
        while time.monotonic() < until:
            self._tick()
            await asyncio.sleep(TICK)
        await self._door.close()
        for worker in self._workers:
            if worker.ready:
                worker.drain(hand_over=False)
            else:  # still loading, or waiting to be started: it has nothing to finish
                worker.kill()
        while any(not w.ended and not w.overdue(self._options.drain + 1) for w in (*self._workers, *self._leaving)):
            for worker in (*self._workers, *self._leaving):
                worker.flush()
            await asyncio.sleep(0.01)
        for worker in (*self._workers, *self._leaving):
            self._end(worker)
        self._door.refuse_all("The server is shutting down.")


def _check_telemetry(options: ServerOptions, log: Log) -> None:
    """Raises here what every worker would find, and says once what no worker says."""
    tracing.settings(options.telemetry)
    if reason := tracing.complaint(options.telemetry):
        log.warning("no spans are sent", reason=reason)


def supervise(
    options: ServerOptions,
    refs: Sequence[str],
    resolve: Resolve,
    stamp: Stamp,
    *,
    ports: Mapping[int, str],
    on_ready: Callable[[str, int, int], None],
) -> None:
    """Serves models in worker processes until a signal says stop.

    Args:
        refs: what to serve, one version each.
        resolve: the version that a reference means now. Once the server runs, called in threads.
        stamp: changes whenever `resolve` may say something else. Likewise.
        ports: further ports, each with the model that short paths such as `/predict` ask there.
        on_ready: called with the URL, the number of workers and their threads once the server answers.

    Raises:
        EstibaError: the address is taken, a model cannot be served, or nothing temporary can be written.
    """
    with contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(listen(options.host, port)) for port in (options.port, *ports)]
        host, port = listeners[0].getsockname()[:2]
        url = http_url(host, port)
        folder = opened.enter_context(temporary("server"))
        log, metrics = Log(options.log), Metrics(folder / "supervisor.metrics")
        _check_telemetry(options, log)
        versions = Versions(refs, Source(resolve, stamp, options.poll), log, metrics)
        supervisor = Supervisor(options, ports, versions, log, metrics)
        counts = (supervisor._count, supervisor._threads)
        asyncio.run(supervisor.run(listeners, lambda: on_ready(url, *counts)))
