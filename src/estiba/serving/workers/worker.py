"""Load models and serve the clients whose sockets the supervisor passes to this worker process.

Run as `python -m estiba.serving.workers.worker`, with a WorkerSpec as JSON on standard input and the channel to the
supervisor inherited.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import mmap
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from estiba.core.errors import EstibaError, NotTrusted
from estiba.model.artifact.artifact import read
from estiba.model.inference.load import Model, load_artifact
from estiba.serving.http import tls
from estiba.serving.http.connection import LINGER_SECONDS, Connection, Request
from estiba.serving.pipeline import Pipeline
from estiba.serving.server_status import STATUS_FILE
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.workers import messages
from estiba.serving.workers.messages import (
    BUSY,
    HEARTBEAT_BYTES,
    IDLE,
    MAX_CONNECTIONS,
    Configuration,
    ServedModel,
    WorkerSpec,
)
from estiba.serving.workers.serving import Serving

BEAT_SECONDS = 0.1
"""Interval of heartbeats."""

SWITCH_INTERVAL_SECONDS = 0.0005
"""Time for which a thread with a large request may keep the interpreter lock from the event loop."""

LARGE_ANSWER_BYTES = 64 * 1024
"""Size of a response that may take a slow client more than a moment to read."""

LAST_REQUEST_SECONDS = 0.5
"""Time in which an idle connection may still send a request once the server drains."""

BuildPipeline = Callable[[bytes, Metrics], Pipeline]
"""Build a pipeline from the content of the policy file, which is empty until it is known; in any thread."""


class Held(Connection):
    """A connection whose socket the supervisor holds too, so that it survives the death of this worker."""

    __slots__ = ("_released", "_slot", "_worker", "handed_over")

    def __init__(self, worker: Worker, slot: int, *, spare: bool = False) -> None:
        super().__init__(worker.server, spare=spare)
        self._worker = worker
        self._slot = HEARTBEAT_BYTES + slot
        self.handed_over = self._released = False

    @property
    def slot(self) -> int:
        """The number of the client."""
        return self._slot - HEARTBEAT_BYTES

    def on_message_begin(self) -> None:
        self._worker.memory[self._slot] = BUSY
        super().on_message_begin()

    def respond(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        super().respond(request, status, headers, body)
        if not self.idle or self._transport is None:
            return
        if len(body) < LARGE_ANSWER_BYTES:
            self._worker.memory[self._slot] = IDLE
        else:  # another worker must not take a client that is still reading this response
            self._worker.sending.add(self)

    def settle(self) -> bool:
        """Mark the connection as idle once all of its responses have left this process; True if they have."""
        if not self.sent:
            return False
        if self.idle and self._transport is not None:
            self._worker.memory[self._slot] = IDLE
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.release()

    def release(self) -> None:
        """Tell the supervisor, once, that the client is gone: after a failed TLS handshake it was never here."""
        if not self._released:
            self._released = True
            self._worker.tell(messages.Closed(self.slot, self.handed_over))

    @property
    def sent(self) -> bool:
        """True if nothing waits to be sent."""
        return self._transport is None or self._transport.get_write_buffer_size() == 0

    def hand_over(self) -> None:
        """Release an idle client, for another worker to take."""
        self.handed_over = True
        if self._transport is not None:
            self._transport.abort()


class PlainHttp(Held):
    """A client that speaks plain HTTP to a server of HTTPS."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self._refuse(400, "This port speaks HTTPS, and the request came as plain HTTP: use https:// in the URL.")


class Worker:
    """The worker's side of the channel to the supervisor."""

    def __init__(self, spec: WorkerSpec, build_pipeline: BuildPipeline) -> None:
        self.spec = spec
        self._tls = tls.context(spec.certificate) if spec.certificate else None
        self._build_pipeline = build_pipeline
        self._reloading = asyncio.Lock()
        self.channel = socket.socket(fileno=spec.channel)
        with Path(spec.state).open("r+b") as state:
            self.memory = memoryview(mmap.mmap(state.fileno(), HEARTBEAT_BYTES + MAX_CONNECTIONS))
        self.folder = Path(spec.folder)
        status_file = self.folder / STATUS_FILE
        self.serving = Serving(
            spec.options,
            ports=spec.ports,
            metrics_file=Path(spec.metrics),
            status_file=status_file,
            routes=spec.routes,
        )
        self.server, self.log = self.serving.server, self.serving.log
        self._prepared: dict[int, _Prepared] = {}  # by generation
        self._preparing: dict[int, bool] = {}  # by generation: False if it was discarded meanwhile
        self._taking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.sending: set[Held] = set()
        """Connections whose large responses may not have been sent yet."""
        self._end = asyncio.Event()
        self._hand_over = False

    async def run(self) -> None:
        """Load every model, serve until the supervisor ends it, and drain."""
        loop = asyncio.get_running_loop()
        try:
            self.serving.use(self._pipeline())
            self._apply(self._load(self.spec.generation))
        except EstibaError as error:
            self.tell(messages.Failed(error.message, error.hint, error.exit_code))
            return
        loop.add_reader(self.channel, self._read)
        gc.collect()
        gc.freeze()  # what was loaded stays; scanning it in every collection would delay requests
        self._beat()
        self.serving.health.ready = True
        self.tell(messages.Ready())
        sweeper = loop.create_task(self.server.sweep())
        await self._end.wait()
        await self._finish()
        sweeper.cancel()
        self.serving.close()

    @property
    def is_preparing(self) -> bool:
        """True while a thread loads the models of a configuration."""
        return bool(self._preparing)

    def _load(self, generation: int) -> _Prepared:
        """Read a configuration and load its models, except those that are served; in any thread."""
        configuration = Configuration.read(self.folder, generation)
        _check_routes(configuration)
        new = [served for served in configuration.models if served not in self.serving.deployments]
        models: dict[ServedModel, tuple[Model, float]] = {}
        try:
            for served in new:
                models[served] = self._load_model(served)
        except BaseException:
            _close(models)
            raise
        return _Prepared(configuration, models)

    def _load_model(self, served: ServedModel) -> tuple[Model, float]:
        """Load and prove a version; the seconds that it took."""
        started = time.perf_counter()
        artifact = read(Path(served.path))
        try:
            model = load_artifact(
                artifact, version=served.version, trust=served.trust, threads=self.spec.threads, isolated=True
            )
        except NotTrusted as error:
            hint = (
                f"If you trust it, serve it with: --trust-digest sha256:{artifact.digest}. `estiba up` trusts what "
                "`estiba train` makes in its project; with images, `estiba deploy` again trusts the new version."
            )
            raise NotTrusted(error.message, hint=hint) from None
        for note in model.notes:
            self.log.warning("model loaded with a note", model=model.name, version=model.version, note=note)
        return model, time.perf_counter() - started

    def _apply(self, prepared: _Prepared) -> None:
        self.serving.apply(*prepared)

    def tell(self, message: messages.AnyMessage) -> None:
        """Send a message to the supervisor, which reads all the time; wait where it is behind."""
        while True:
            try:
                messages.send(self.channel, message)
                return
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:  # the supervisor is gone
                self._end.set()
                return

    def _beat(self) -> None:
        self.memory[:HEARTBEAT_BYTES] = struct.pack("=d", time.monotonic())
        self.sending = {connection for connection in self.sending if not connection.settle()}
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

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
            case messages.Take(slot):  # no descriptor was free for the client's socket
                self.tell(messages.Closed(slot))
            case messages.Prepare(generation):
                self._prepare(generation)
            case messages.Apply(generation):
                self._apply(self._prepared.pop(generation))
            case messages.Discard(generation):
                self._discard(generation)
            case messages.Reload():
                self._start(self._reload())
            case messages.UseCertificate(pem):
                self._tls = tls.context(pem)
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
        self.memory[HEARTBEAT_BYTES + slot] = IDLE
        connection = Held(self, slot, spare=spare)
        try:
            if self._tls is None:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, client)
            else:
                connection = await self._take_encrypted(connection, client, self._tls)
        except OSError:
            client.close()
            connection.release()
        finally:
            self._taking -= 1

    async def _take_encrypted(self, connection: Held, client: socket.socket, context: ssl.SSLContext) -> Held:
        """Shake hands with a client; one that speaks plain HTTP gets a 400. Raises OSError where that fails."""
        loop, seconds = asyncio.get_running_loop(), self.spec.options.http.header_timeout
        first = await _first_byte(client, seconds)
        if first and first != tls.TLS_HANDSHAKE:
            plain = PlainHttp(self, connection.slot)
            await loop.connect_accepted_socket(lambda: plain, client)
            return plain
        await loop.connect_accepted_socket(
            lambda: connection,
            client,
            ssl=context,
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=LINGER_SECONDS,
        )
        return connection

    def _prepare(self, generation: int) -> None:
        """Prepare once. The supervisor may ask again, as it forgets workers that were silent for a while."""
        if generation in self._prepared:
            self.tell(messages.Prepared(generation))
        elif generation in self._preparing:
            self._preparing[generation] = True
        else:
            self._preparing[generation] = True
            self._start(self._prepare_in_thread(generation))

    def _discard(self, generation: int) -> None:
        if generation in self._preparing:
            self._preparing[generation] = False
        if generation in self._prepared:
            _close(self._prepared.pop(generation).models)

    async def _prepare_in_thread(self, generation: int) -> None:
        """Load and prove in a thread, while the current configuration stays in force."""
        error = ""
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(None, self._load, generation)
            if self._preparing[generation]:
                self._prepared[generation] = prepared
            else:
                _close(prepared.models)
        except NotTrusted as failure:
            error = f"{failure}"
        except EstibaError as failure:
            error = failure.message
        except Exception as failure:
            self.log.error("a configuration cannot be prepared", error=failure, generation=generation)
            error = f"{type(failure).__name__}: {failure}"
        if self._preparing.pop(generation):
            self.tell(messages.Prepared(generation, error))

    def _pipeline(self) -> Pipeline:
        """Build the pipeline from the policy file; in any thread."""
        try:
            content = (self.folder / messages.POLICY_FILE).read_bytes()
        except FileNotFoundError:
            content = b""
        return self._build_pipeline(content, self.serving.metrics)

    async def _reload(self) -> None:
        """Use the policies of the file from now on. One reload at a time, so that the newest file is the last one."""
        async with self._reloading:
            try:
                pipeline = await asyncio.get_running_loop().run_in_executor(None, self._pipeline)
            except Exception as error:
                self.log.error("the policies cannot be read; those before stay in force", error=error)
            else:
                self.serving.use(pipeline)

    def _drain(self, hand_over: bool) -> None:
        self._hand_over = hand_over
        self._end.set()

    async def _finish(self) -> None:
        """Finish requests in flight; hand idle clients over to another worker, or close them."""
        server = self.server
        if not self._hand_over:
            self.serving.drain()
        elif self._tls is not None:  # no other process can go on with an encrypted connection
            server.draining = True
        began = time.monotonic()
        # Clients that were just passed on are not lost either: their sockets become connections in a moment.
        while (server.connections or self._taking) and time.monotonic() < began + self.spec.options.drain:
            may_send = time.monotonic() < began + LAST_REQUEST_SECONDS
            for connection in [c for c in server.connections if c.idle]:
                if isinstance(connection, Held) and not connection.sent:
                    continue
                if self._hand_over and self._tls is None and isinstance(connection, Held):
                    connection.hand_over()
                elif not may_send:
                    connection.close()
            await asyncio.sleep(0.01)
        if server.connections:
            self.log.warning("stopped with requests in flight", connections=len(server.connections))


class _Prepared(NamedTuple):
    """A configuration whose new models are loaded, each with the seconds that it took."""

    configuration: Configuration
    models: dict[ServedModel, tuple[Model, float]]


async def _first_byte(client: socket.socket, seconds: float) -> bytes:
    """The first byte that a client sends, left unread; raises OSError where it comes too late."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(client, readable.set)
    try:
        async with asyncio.timeout(seconds):
            await readable.wait()
    finally:
        loop.remove_reader(client)
    return client.recv(1, socket.MSG_PEEK)


def _check_routes(configuration: Configuration) -> None:
    """Raise EstibaError for a route to a version that is not among the models, or without any weight."""
    known = {(model.name, model.version) for model in configuration.models}
    for route in configuration.routes:
        for target in route.every:
            if (route.name, target.version) not in known:
                raise EstibaError(f"The route {route.name} names version {target.version}, which is not served.")
        weights = [target.weight for target in route.targets]
        if not sum(weights) > 0 or min(weights) < 0:
            raise EstibaError(f"The route {route.name} needs weights of 0 or more, and one above 0.")


def _close(models: dict[ServedModel, tuple[Model, float]]) -> None:
    for model, _ in models.values():
        model.engine.close()


def _no_policies(policy: bytes, metrics: Metrics) -> Pipeline:
    """The pipeline of a server without policies."""
    return Pipeline()


def main(build_pipeline: BuildPipeline = _no_policies) -> None:
    """Run a worker with the WorkerSpec on standard input. Other modules call this with a pipeline of their own."""
    # Signals that a terminal or an init system sends to the whole group are for the supervisor to handle.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec)

    async def work() -> None:
        worker = Worker(spec, build_pipeline)
        await worker.run()
        if worker.is_preparing:
            os._exit(0)  # a thread that loads a version cannot be stopped, and asyncio would wait for it

    uvloop.run(work())


if __name__ == "__main__":
    main()
