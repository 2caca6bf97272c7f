"""Messages between the supervisor and a worker: a handful of small frozen types over one socket.

A packet is one message; `Take` carries the client's socket beside it as a file descriptor.
"""

from __future__ import annotations

import os
import socket

import msgspec

from estiba.serving.options import ServerOptions

MAX_PACKET = 64 * 1024

IDLE, BUSY = 1, 2
"""What a connection is doing, one byte each in memory that supervisor and worker share: between requests, or within one
that began to arrive and is not answered yet."""

SLOTS = 16_384
"""Connections that one worker may hold."""

HEARTBEAT = 8
"""Bytes in front of the connections' states: the worker's monotonic clock, written ten times a second."""


class ServedModel(msgspec.Struct, frozen=True):
    """One version to serve.

    Args:
        ref: what was asked for, and is looked up again when the registry changes.
        path: of the artifact directory.
        error: why it cannot be served, where that is known before any worker tried.
    """

    ref: str
    name: str
    version: str
    path: str
    trust: bool = False
    error: str = ""


class WorkerSpec(msgspec.Struct, frozen=True):
    """What a worker is told when it starts.

    Args:
        folder: where the processes of this server keep what they share.
        metrics: the file of this worker's numbers.
        state: the file of memory shared with the supervisor.
        threads: threads of native libraries for one batch.
        channel: descriptor of the socket to the supervisor.
        ports: by port, the model that short paths ask there.
    """

    index: int
    folder: str
    metrics: str
    state: str
    models: tuple[ServedModel, ...]
    options: ServerOptions
    threads: int
    channel: int = -1
    ports: dict[int, str] = {}


class Message(msgspec.Struct, frozen=True, tag=True):
    """The root of all messages."""


class Take(Message, frozen=True, tag=True):
    """To a worker: serve this client, and keep its state at `slot`; or, where it is a `spare` one, only its probes."""

    slot: int
    spare: bool = False


class Load(Message, frozen=True, tag=True):
    """To a worker: load a version beside what is served; answered with Loaded."""

    served: ServedModel


class Switch(Message, frozen=True, tag=True):
    """To a worker: a loaded version becomes the current one; the old one finishes what it has."""

    name: str
    version: str


class Discard(Message, frozen=True, tag=True):
    """To a worker: forget a version that was loaded beside."""

    name: str
    version: str


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


class Loaded(Message, frozen=True, tag=True):
    """From a worker: a version is loaded beside, or why not."""

    name: str
    version: str
    error: str = ""


class Closed(Message, frozen=True, tag=True):
    """From a worker: that client is gone; or, `handed_over`, it is idle and another worker shall take it."""

    slot: int
    handed_over: bool = False


AnyMessage = Take | Load | Switch | Discard | Drain | Ready | Failed | Loaded | Closed

_decoder = msgspec.msgpack.Decoder(AnyMessage)
_encoder = msgspec.msgpack.Encoder()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep packets apart; neither blocks."""
    kind = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM) if os.uname().sysname == "Linux" else socket.SOCK_DGRAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def send(channel: socket.socket, message: AnyMessage, passed: socket.socket | None = None) -> None:
    """Sends one message, with a socket beside it if given.

    Raises:
        BlockingIOError: the other side is behind. OSError: it is gone.
    """
    socket.send_fds(channel, [_encoder.encode(message)], [passed.fileno()] if passed is not None else [])


def receive(channel: socket.socket) -> tuple[AnyMessage | None, socket.socket | None]:
    """The next message and the socket beside it; (None, None) once the other side is gone.

    Raises:
        BlockingIOError: there is none now.
    """
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, MAX_PACKET, 1)
    except ConnectionError:
        return None, None
    if not packet:
        return None, None
    return _decoder.decode(packet), socket.socket(fileno=descriptors[0]) if descriptors else None
