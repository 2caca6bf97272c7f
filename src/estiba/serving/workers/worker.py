"""A worker process: load models and serve the clients whose sockets the supervisor passes on.

Run as `python -m estiba.serving.workers.worker`, with a WorkerSpec as JSON on standard input and the channel to the
supervisor inherited.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import mmap
import platform
import signal
import socket
import struct
import sys
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import uvloop

import estiba
from estiba.core import cpus
from estiba.core.errors import EstibaError, NotTrusted
from estiba.core.log import Log
from estiba.model.artifact.artifact import read
from estiba.model.inference.load import Model, load_artifact
from estiba.serving.api.asgi_bridge import Bridge
from estiba.serving.api.management_routes import application
from estiba.serving.catalog import CurrentCatalog, Deployment, build, single
from estiba.serving.http.connection import Connection, Request
from estiba.serving.options import ServerOptions
from estiba.serving.pipeline import Pipeline
from estiba.serving.protocols.endpoint import Shared
from estiba.serving.server import Server
from estiba.serving.server_status import STATUS_FILE, Health
from estiba.serving.telemetry import tracing
from estiba.serving.telemetry.access_log import AccessLog
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.telemetry.tracing import Tracer
from estiba.serving.version_metrics import VersionMetrics
from estiba.serving.workers import messages
from estiba.serving.workers.messages import BUSY, HEARTBEAT, IDLE, SLOTS, ServedModel, WorkerSpec

BEAT = 0.1
"""Seconds between heartbeats."""

SWITCH = 0.0005
"""Seconds for which a thread with a large request may keep the interpreter's lock from the event loop."""

LARGE = 64 * 1024
"""Bytes of an answer that may take a slow client more than a moment to read."""

POLITE = 0.5
"""Seconds in which an idle connection may still bring a request once the server drains."""


class Held(Connection):
    """A connection of which the supervisor holds the socket too, so that it outlives a dead worker."""

    __slots__ = ("_slot", "_worker", "handed_over")

    def __init__(self, worker: Worker, slot: int, *, spare: bool = False) -> None:
        super().__init__(worker.server, spare=spare)
        self._worker = worker
        self._slot = HEARTBEAT + slot
        self.handed_over = False

    def on_message_begin(self) -> None:
        self._worker.memory[self._slot] = BUSY
        super().on_message_begin()

    def respond(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        super().respond(request, status, headers, body)
        if not self.idle or self._transport is None:
            return
        if len(body) < LARGE:
            self._worker.memory[self._slot] = IDLE
        else:  # another worker must not take a client that is still reading this answer
            self._worker.sending.add(self)

    def settle(self) -> bool:
        """Whether all of its answers have left this process; if so, it counts as idle."""
        if not self.sent:
            return False
        if self.idle and self._transport is not None:
            self._worker.memory[self._slot] = IDLE
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._worker.tell(messages.Closed(self._slot - HEARTBEAT, self.handed_over))

    @property
    def sent(self) -> bool:
        """Whether nothing waits to be sent."""
        return self._transport is None or self._transport.get_write_buffer_size() == 0

    def hand_over(self) -> None:
        """Lets go of an idle client, for another worker to take."""
        self.handed_over = True
        if self._transport is not None:
            self._transport.abort()


class Telemetry:
    """Metrics, access log and spans of one worker."""

    def __init__(self, options: ServerOptions, metrics_file: Path | None = None) -> None:
        self.log = Log(options.log)
        self.metrics = Metrics(metrics_file)
        self.metrics.slot("estiba_build_info", estiba.__version__, platform.python_version()).set(1)
        skipped = self.metrics.slot("estiba_log_lines_skipped_total")
        self.access = AccessLog(self.log, options.access_log, options.access_log_limit, skipped)
        self.tracer: Tracer | None = None
        settings = tracing.settings(options.telemetry)
        if settings is not None:
            self._export(settings)

    def _export(self, settings: tracing.Settings) -> None:
        from estiba.serving.telemetry.otlp_exporter import Exporter

        dropped, lost = (self.metrics.slot("estiba_spans_dropped_total", reason) for reason in ("full", "failed"))
        self.tracer = Tracer(settings, dropped)
        self._exporter = Exporter(self.tracer, lost, self.log)

    def close(self) -> None:
        """Write and send what is queued, within a second."""
        self.access.close()
        if self.tracer is not None:
            self._exporter.close()


class Serving:
    """The parts of one worker's server, assembled: requests go to `server`, catalogs to `serve`."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        ports: Mapping[int, str] = MappingProxyType({}),
        metrics_file: Path | None = None,
        status_file: Path | None = None,
    ) -> None:
        self._options = options
        self._ports = ports
        self.telemetry = telemetry = Telemetry(options, metrics_file)
        self.log, self.metrics = telemetry.log, telemetry.metrics
        self._executor = ThreadPoolExecutor(max_workers=max(1, cpus.available()), thread_name_prefix="large")
        self.shared = Shared(options, self.metrics, self.log, telemetry.access, self._executor, telemetry.tracer)
        self.health = Health(status_file)
        self.current = CurrentCatalog()
        self._versions = VersionMetrics(self.metrics)
        app = application(self.current, self.health, self.metrics)
        management = Bridge(app, self.log, telemetry.access, telemetry.tracer)
        self.server = Server(self.current, management, self.shared, ports=ports)

    def serve(self, model: Model, load_seconds: float = 0.0, pipeline: Pipeline | None = None) -> None:
        """Serve a loaded model as the only version of its name."""
        catalog = self.current.catalog
        deployment = Deployment(model, self.shared)
        for old in catalog.deployments.get(model.name, ()):
            self._versions.retire(old)
        routes = {**catalog.routes, model.name: single(deployment)}
        pipeline = pipeline or catalog.pipeline
        deployment.batcher.pipeline = pipeline
        default, ports = self._options.default, self._ports
        self.current.catalog = build(list(routes.values()), default=default, ports=ports, pipeline=pipeline)
        self._versions.serve(deployment, load_seconds)

    def drain(self) -> None:
        """Close connections with their responses, and report that the worker is not ready."""
        self.server.draining = self.health.draining = True

    def close(self) -> None:
        """Stop threads and engines."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for batcher in self.current.catalog.batchers():
            batcher.close()
        self.telemetry.close()


class Worker:
    """The worker's side of the channel to the supervisor."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.channel = socket.socket(fileno=spec.channel)
        with Path(spec.state).open("r+b") as state:
            self.memory = memoryview(mmap.mmap(state.fileno(), HEARTBEAT + SLOTS))
        folder = Path(spec.folder)
        self.serving = Serving(
            spec.options, ports=spec.ports, metrics_file=Path(spec.metrics), status_file=folder / STATUS_FILE
        )
        self.server, self.log = self.serving.server, self.serving.log
        self._beside: dict[tuple[str, str], tuple[Model, float]] = {}
        self._loading: dict[tuple[str, str], bool] = {}  # and whether it is wanted still
        self._taking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.sending: set[Held] = set()
        """Connections whose large answers may not have left yet."""
        self._end = asyncio.Event()
        self._hand_over = False

    async def run(self) -> None:
        """Loads every model, serves until told to end, and drains."""
        loop = asyncio.get_running_loop()
        try:
            for served in self.spec.models:
                self.serving.serve(*self._load(served))
        except EstibaError as error:
            self.tell(messages.Failed(error.message, error.hint, error.exit_code))
            return
        loop.add_reader(self.channel, self._read)
        gc.collect()
        gc.freeze()  # what was loaded stays; to look through it again and again would hold up requests
        self._beat()
        self.serving.health.ready = True
        self.tell(messages.Ready())
        sweeper = loop.create_task(self.server.sweep())
        await self._end.wait()
        await self._finish()
        sweeper.cancel()
        self.serving.close()

    def _load(self, served: ServedModel) -> tuple[Model, float]:
        started = time.perf_counter()
        artifact = read(Path(served.path))
        model = load_artifact(
            artifact, version=served.version, trust=served.trust, threads=self.spec.threads, isolated=True
        )
        for note in model.notes:
            self.log.warning("model loaded with a note", model=model.name, version=model.version, note=note)
        return model, time.perf_counter() - started

    def tell(self, message: messages.AnyMessage) -> None:
        """Sends to the supervisor, which reads all the time; where it is behind, this waits for it."""
        while True:
            try:
                messages.send(self.channel, message)
                return
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:  # the supervisor is gone, and nobody brings clients any more
                self._end.set()
                return

    def _beat(self) -> None:
        self.memory[:HEARTBEAT] = struct.pack("=d", time.monotonic())
        self.sending = {connection for connection in self.sending if not connection.settle()}
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _read(self) -> None:
        while True:
            try:
                message, passed = messages.receive(self.channel)
            except BlockingIOError:
                return
            if message is None:
                asyncio.get_running_loop().remove_reader(self.channel)
                self._end.set()
                return
            self._act(message, passed)

    def _act(self, message: messages.AnyMessage, passed: socket.socket | None) -> None:
        match message:
            case messages.Take(slot, spare) if passed is not None:
                self._taking += 1
                self._start(self._take(slot, passed, spare))
            case messages.Take(slot):  # no descriptor was left for the client's socket
                self.tell(messages.Closed(slot))
            case messages.Load(served):
                self._load_once(served)
            case messages.Switch(name, version):
                self.serving.serve(*self._beside.pop((name, version)))
            case messages.Discard(name, version):
                self._discard((name, version))
            case messages.Drain(hand_over):
                self._drain(hand_over)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, slot: int, client: socket.socket, spare: bool) -> None:
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.memory[HEARTBEAT + slot] = IDLE
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: Held(self, slot, spare=spare), client)
        except OSError:
            self.tell(messages.Closed(slot))
        finally:
            self._taking -= 1

    def _load_once(self, served: ServedModel) -> None:
        """The supervisor may ask again, as it forgets who was asked while this process was silent."""
        key = served.name, served.version
        if key in self._beside:
            self.tell(messages.Loaded(*key))
        elif key in self._loading:
            self._loading[key] = True
        else:
            self._loading[key] = True
            self._start(self._load_beside(served))

    def _discard(self, key: tuple[str, str]) -> None:
        if key in self._loading:
            self._loading[key] = False
        if key in self._beside:
            self._beside.pop(key)[0].engine.close()

    async def _load_beside(self, served: ServedModel) -> None:
        """Loads and proves in a thread, while the current version goes on answering."""
        error, key = "", (served.name, served.version)
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(None, self._load, served)
            if self._loading[key]:
                self._beside[key] = loaded
            else:
                loaded[0].engine.close()
        except NotTrusted as failure:
            error = f"{failure.message} Serve it with --trust; estiba up trusts what estiba train makes in its project."
        except EstibaError as failure:
            error = failure.message
        except Exception as failure:
            self.log.error("a version cannot be loaded", error=failure, model=served.name)
            error = f"{type(failure).__name__}: {failure}"
        if self._loading.pop(key):
            self.tell(messages.Loaded(*key, error))

    def _drain(self, hand_over: bool) -> None:
        self._hand_over = hand_over
        self._end.set()

    async def _finish(self) -> None:
        """Answers what is in flight; idle clients go to another worker, or are let go politely."""
        server = self.server
        if not self._hand_over:
            self.serving.drain()
        began = time.monotonic()
        # Clients on their way in are not lost either: their sockets become connections in a moment.
        while (server.connections or self._taking) and time.monotonic() < began + self.spec.options.drain:
            polite = time.monotonic() < began + POLITE
            for connection in [c for c in server.connections if c.idle]:
                if isinstance(connection, Held) and not connection.sent:
                    continue
                if self._hand_over and isinstance(connection, Held):
                    connection.hand_over()
                elif not polite:
                    connection.close()
            await asyncio.sleep(0.01)
        if server.connections:
            self.log.warning("stopped with requests in flight", connections=len(server.connections))


def main() -> None:
    # What a terminal or an init system sends to the whole group is for the supervisor to act on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH)
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec)

    async def work() -> None:
        await Worker(spec).run()

    uvloop.run(work())


if __name__ == "__main__":
    main()
