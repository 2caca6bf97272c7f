"""Messages between the supervisor and a worker: small frozen types over one socket pair, one packet a message.

`Take` carries the client's socket beside it as a file descriptor. What may be larger than a packet is in a file of the
shared folder: the configuration of each generation.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec

from estiba.serving.options import ServerOptions
from estiba.serving.route_spec import RouteHome, RouteSpec

MAX_PACKET_BYTES = 64 * 1024

IDLE, BUSY = 1, 2
"""State of a connection, one byte each in memory that supervisor and worker share: between requests, or within one that
began to arrive and is not answered yet."""

MAX_CONNECTIONS = 16_384
"""Connections that one worker may hold: the slots of the shared memory."""

HEARTBEAT_BYTES = 8
"""Size of the worker's monotonic clock, in front of the connections' states; written ten times a second."""

WORKER_MODULE = "estiba.serving.workers.worker"
"""The module of a worker without policies."""

POLICY_FILE = "policy.json"
"""Name of the file in the shared folder from which a worker's module builds its pipeline. The supervisor replaces it
whole; it is absent until its content is known."""

KEPT_GENERATIONS = 8
"""Configuration files that are kept, for workers that are still starting with an older one."""


class ServedModel(msgspec.Struct, frozen=True):
    """One version to serve.

    Args:
        ref: the reference it was resolved from, which is resolved again when the registry changes.
        path: of the artifact directory.
        error: why it cannot be served, where that is known before any worker tried.
        model_bytes: size of the file of the model, the least memory that loading it takes; 0 if unknown.
    """

    ref: str
    name: str
    version: str
    path: str
    trust: bool = False
    error: str = ""
    model_bytes: int = 0


class Configuration(msgspec.Struct, frozen=True):
    """The models and routes that every worker serves.

    Args:
        generation: counts up from 1.
        models: all versions to load. Without a route of their name, the last of each name answers for it.
    """

    generation: int
    models: tuple[ServedModel, ...]
    routes: tuple[RouteSpec, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the file of this generation whole, and remove old ones."""
        new = folder / "configuration.new"
        new.write_bytes(msgspec.json.encode(self))
        new.replace(_file(folder, self.generation))
        _file(folder, self.generation - KEPT_GENERATIONS).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path, generation: int) -> Configuration:
        """Read the file of a generation; raises OSError or msgspec.DecodeError."""
        return msgspec.json.decode(_file(folder, generation).read_bytes(), type=cls)


def _file(folder: Path, generation: int) -> Path:
    return folder / f"configuration-{generation}.json"


class WorkerSpec(msgspec.Struct, frozen=True):
    """The startup parameters of a worker.

    Args:
        folder: shared by the processes of this server.
        metrics: the file of this worker's metrics.
        state: the file of memory shared with the supervisor.
        generation: of the configuration to start with.
        threads: threads of native libraries for one batch.
        channel: descriptor of the socket to the supervisor.
        ports: by port, the model that short paths ask there.
        module: the Python module that runs as the worker.
        routes: the registry of the routes; None where there is none.
        certificate: the certificate chain and its private key as PEM; empty without TLS.
    """

    index: int
    folder: str
    metrics: str
    state: str
    generation: int
    options: ServerOptions
    threads: int
    channel: int = -1
    ports: dict[int, str] = {}
    module: str = WORKER_MODULE
    routes: RouteHome | None = None
    certificate: bytes = b""


class Message(msgspec.Struct, frozen=True, tag=True):
    """The root of all messages."""


class Take(Message, frozen=True, tag=True):
    """To a worker: serve this client and keep its state at `slot`; for a `spare` one answer probes only."""

    slot: int
    spare: bool = False


class Prepare(Message, frozen=True, tag=True):
    """To a worker: load the models of a generation beside those that are served. Answered with Prepared."""

    generation: int


class Apply(Message, frozen=True, tag=True):
    """To a worker: serve a generation that it has prepared; requests in flight finish with the old one."""

    generation: int


class Discard(Message, frozen=True, tag=True):
    """To a worker: forget a generation that it has prepared or is preparing."""

    generation: int


class Reload(Message, frozen=True, tag=True):
    """To a worker: build the pipeline again, from the policy file that was replaced."""


class UseCertificate(Message, frozen=True, tag=True):
    """To a worker: use another certificate, with its private key, for new connections."""

    pem: bytes


class Drain(Message, frozen=True, tag=True):
    """To a worker: end. `hand_over` gives idle connections back for another worker; otherwise they are closed."""

    hand_over: bool


class Ready(Message, frozen=True, tag=True):
    """From a worker: every model is loaded, proven and warm."""


class Failed(Message, frozen=True, tag=True):
    """From a worker: it cannot start, and why."""

    message: str
    hint: str | None
    exit_code: int


class Prepared(Message, frozen=True, tag=True):
    """From a worker: it can apply a generation, or why not."""

    generation: int
    error: str = ""


class Closed(Message, frozen=True, tag=True):
    """From a worker: that client is gone; or, `handed_over`, it is idle and another worker is to take it."""

    slot: int
    handed_over: bool = False


AnyMessage = Take | Prepare | Apply | Discard | Reload | UseCertificate | Drain | Ready | Failed | Prepared | Closed

_decoder = msgspec.msgpack.Decoder(AnyMessage)
_encoder = msgspec.msgpack.Encoder()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking sockets that keep packets apart."""
    kind = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM) if os.uname().sysname == "Linux" else socket.SOCK_DGRAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def send(channel: socket.socket, message: AnyMessage, passed: socket.socket | None = None) -> None:
    """Send one message, with a socket beside it if given.

    Raises:
        BlockingIOError: the other side is behind. OSError: it is gone.
    """
    socket.send_fds(channel, [_encoder.encode(message)], [passed.fileno()] if passed is not None else [])


def receive(channel: socket.socket) -> tuple[AnyMessage | None, socket.socket | None]:
    """The next message and the socket beside it; (None, None) once the other side is gone.

    Raises:
        BlockingIOError: none has arrived.
    """
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, MAX_PACKET_BYTES, 1)
    except ConnectionError:
        return None, None
    if not packet:
        return None, None
    return _decoder.decode(packet), socket.socket(fileno=descriptors[0]) if descriptors else None
