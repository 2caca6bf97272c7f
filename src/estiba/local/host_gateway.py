"""Forward connections of containers to services of this machine, which listen on the loopback address only.

A container reaches this machine at the gateway of its network. No service listens there, so a listener on that address
takes each port of the run and forwards it. Docker Desktop and podman without root forward by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from functools import partial

from estiba.local.containers import HOST_GATEWAY

_IP_FREEBIND = 15
"""An option of Linux: bind to an address that this machine does not have yet. Podman makes its network late."""

CHUNK_BYTES = 65_536


class HostGateway:
    """Listeners at the gateway of the containers' network; opened when the first container starts."""

    def __init__(self, targets: Mapping[int, str]) -> None:
        """Listen on nothing yet.

        Args:
            targets: by port, the address of this machine that listens on it.
        """
        self._targets = targets
        self._listeners: list[asyncio.Server] = []
        self._address = ""
        self._opening = asyncio.Lock()

    async def open(self, address: str) -> str:
        """Listen at the address of a gateway, once; return what the name of this machine stands for in containers."""
        async with self._opening:
            if not self._address:
                self._address = address if address == HOST_GATEWAY else await self._listen(address)
        return self._address

    async def _listen(self, address: str) -> str:
        for port, host in self._targets.items():
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            try:
                listener.bind((address, port))
            except OSError:  # the service itself listens on all addresses
                listener.close()
                continue
            self._listeners.append(await asyncio.start_server(partial(_forward, host, port), sock=listener))
        return address

    def close(self) -> None:
        """Listen no more."""
        for listener in self._listeners:
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
