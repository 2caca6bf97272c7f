"""Forward connections of containers to services of this machine, which listen on the loopback address only.

A container reaches this machine at the gateway of its network. No service listens there, so a listener on that address
takes the ports of the run and forwards them. Docker Desktop and podman without root forward by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from functools import partial

from estiba.core import ports
from estiba.local.containers import HOST_GATEWAY

POLL_SECONDS = 0.2
"""The interval between looks at the ports that are listened on."""

_IP_FREEBIND = 15
"""An option of Linux: bind to an address that this machine does not have yet. Podman makes its network late."""

CHUNK_BYTES = 65_536


class HostGateway:
    """Listeners at the gateway of the containers' network, from the start of the first container on.

    A port is taken only while a service listens on it: otherwise a program that listens on all addresses, the gateway's
    among them, could not start.
    """

    def __init__(self, targets: Mapping[int, str]) -> None:
        """Listen on nothing yet.

        Args:
            targets: by port, the address of this machine that listens on it.
        """
        self.targets = targets
        """May be replaced at any time."""
        self._listeners: dict[int, asyncio.Server] = {}
        self._address = ""
        self._following: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def open(self, address: str) -> str:
        """Listen at the address of a gateway, which is the same in each call; return what containers are told.

        After it, all services that listen can be reached.
        """
        self._address = address
        if address != HOST_GATEWAY:
            await self._update()
            self._following = self._following or asyncio.create_task(self._follow())
        return address

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._update()

    async def _update(self) -> None:
        """Listen where a service does, and nowhere else."""
        async with self._changing:
            up = await asyncio.to_thread(ports.listening_elsewhere, self._address)
            targets = {port: host for port, host in self.targets.items() if port in up}
            for port in self._listeners.keys() - targets.keys():
                self._listeners.pop(port).close()
            for port in targets.keys() - self._listeners.keys():
                if listener := self._bound(port):
                    connected = partial(_forward, targets[port], port)
                    self._listeners[port] = await asyncio.start_server(connected, sock=listener)

    def _bound(self, port: int) -> socket.socket | None:
        """A socket at the gateway; None where the service listens there itself, as on all addresses."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            listener.bind((self._address, port))
        except OSError:
            listener.close()
            return None
        return listener

    def close(self) -> None:
        """Listen no more."""
        if self._following is not None:
            self._following.cancel()
        for listener in self._listeners.values():
            listener.close()


async def _forward(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connect to a service and copy in both directions until both ends are closed."""
    try:
        there, answer = await asyncio.open_connection(host, port)
    except OSError:  # it does not run at the moment: the container sees a closed connection
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, answer), _copy(there, writer))
    finally:
        writer.close()
        answer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction, and pass its end on."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(CHUNK_BYTES):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        return
    writer.transport.abort()
