"""Find free TCP ports of this machine, and the process that listens on a port."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from estiba.core.errors import EstibaError

_FREE = range(20_000, 30_000)
"""Below what systems give to outgoing connections, and to the services of a Kubernetes cluster's nodes."""

_NEXT = itertools.count(random.randrange(len(_FREE)))

_LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""

_DOCKER_DNS = "0B00007F"
"""The address of Docker's name server in a container, 127.0.0.11, as /proc/net/tcp writes it."""


def free(host: str) -> int:
    """A port that is free at the moment; each call returns another one.

    It is not one that the system chooses, because those are also given to outgoing connections, one of which could take
    it before the server listens.

    Raises:
        EstibaError: `host` is not an address of this machine, or all ports are taken.
    """
    for number in itertools.islice(_NEXT, len(_FREE)):
        port = _FREE[number % len(_FREE)]
        with _socket(host) as listener:
            try:
                listener.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise EstibaError(f"Cannot listen on {host}: {error.strerror}.", hint="Check the host.") from error
            return port
    raise EstibaError(f"Cannot listen on {host}: all ports from {_FREE.start} to {_FREE.stop - 1} are taken.")


def conflict(host: str, port: int) -> str:
    """The reason why a server cannot listen there, such as `Address already in use, by process 812 (flask)`."""
    with _socket(host) as listener:
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            by = listening_process(port)
            return f"{error.strerror}{', by ' + by if by else ''}"
    return ""


def _socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def listening_process(port: int) -> str:
    """The process that listens on a TCP port, such as `process 812 (flask run --port 5000)`.

    Empty where it is unknown: another user's process, another container's, or a system without /proc.
    """
    sockets = {listener.link for listener in _listening() if listener.port == port}
    if not sockets:
        return ""
    for entry in sorted(Path("/proc").glob("[0-9]*")):
        if any(link in sockets for link in _open_files(entry)):
            return f"process {entry.name} ({_command(entry)})"
    return ""


def listening_ports(processes: Iterable[int]) -> list[int]:
    """The TCP ports that some processes listen on, sorted; empty where they are unknown."""
    links = {link for process in processes for link in _open_files(Path(f"/proc/{process}"))}
    return sorted({listener.port for listener in _listening() if listener.link in links})


def listening_elsewhere(address: str) -> set[int]:
    """The TCP ports of this machine that are listened on at any address but one of IPv4; empty where unknown."""
    number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
    return {listener.port for listener in _listening() if listener.address != f"{number:08X}"}


def listening_in_container(process: int, container: str) -> list[int] | None:
    """The TCP ports that are listened on in the network of a container, sorted.

    None where they are unknown: its engine runs on another machine or in a virtual one, where numbers of processes are
    others.

    Args:
        process: of the container. container: its whole identity, which is a part of the names of its control groups.
    """
    folder = Path(f"/proc/{process}")
    try:
        if container not in (folder / "cgroup").read_text():
            return None
        (folder / "net/tcp").read_bytes()
    except OSError:
        return None
    return sorted({listener.port for listener in _listening(folder / "net")})


class _Listener(NamedTuple):
    """A listening socket.

    Args:
        address: as /proc/net/tcp writes it. link: the target of the link to the socket in /proc/PID/fd.
    """

    address: str
    port: int
    link: str


def _listening(tables: Path = Path("/proc/net")) -> Iterator[_Listener]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (tables / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            address, _, port = cells[1].rpartition(":")
            if cells[3] == _LISTENING and address != _DOCKER_DNS:
                yield _Listener(address, int(port, 16), f"socket:[{cells[9]}]")


def _open_files(process: Path) -> Iterator[str]:
    try:
        for name in os.listdir(process / "fd"):  # noqa: PTH208 - much faster
            try:
                yield os.readlink(process / "fd" / name)  # noqa: PTH115
            except OSError:
                continue
    except OSError:
        return


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        text = b" ".join(words).decode(errors="replace")
        return (text if len(text) <= 80 else text[:77] + "...") or (process / "comm").read_text().strip()
    except OSError:
        return "has ended"
