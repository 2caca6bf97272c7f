"""Containers reach the services of this machine through listeners at their gateway; 127.0.0.2 stands for it here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import pytest

from estiba.core import ports
from estiba.local.host_gateway import HostGateway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Other systems have one loopback address.")

GATEWAY = "127.0.0.2"
LOOPBACK = "127.0.0.1"


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the letters of the request, in capitals."""
    writer.write((await reader.readline()).upper())
    writer.close()


async def asked(port: int) -> bytes:
    """The answer of what listens at the gateway."""
    reader, writer = await asyncio.open_connection(GATEWAY, port)
    writer.write(b"hello\n")
    answer = await reader.read()
    writer.close()
    return answer


async def refused(port: int) -> bool:
    try:
        await asked(port)
    except ConnectionRefusedError:
        return True
    return False


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.05)


def test_a_server_may_listen_on_all_addresses_after_a_container_has_started() -> None:
    async def check() -> None:
        port = ports.free(LOOPBACK)
        gateway = HostGateway({port: LOOPBACK})
        await gateway.open(GATEWAY)
        server = await asyncio.start_server(greet, "0.0.0.0", port)
        await asyncio.sleep(0.5)
        assert await asked(port) == b"HELLO\n"
        server.close()
        await until(lambda: refused(port))
        server = await asyncio.start_server(greet, "0.0.0.0", port)  # and again, once it has ended
        server.close()
        gateway.close()

    asyncio.run(check())


def test_a_service_is_reached_as_soon_as_it_listens() -> None:
    async def check() -> None:
        first, second = ports.free(LOOPBACK), ports.free(LOOPBACK)
        gateway = HostGateway({first: LOOPBACK, second: LOOPBACK})
        server = await asyncio.start_server(greet, LOOPBACK, first)
        await gateway.open(GATEWAY)
        assert await asked(first) == b"HELLO\n"
        assert await refused(second)
        late = await asyncio.start_server(greet, LOOPBACK, second)
        await gateway.open(GATEWAY)  # another container, which needs it
        assert await asked(second) == b"HELLO\n"
        server.close()
        await until(lambda: refused(first))  # a program may listen on all addresses there now
        late.close()
        gateway.close()

    asyncio.run(check())


def test_ports_that_change_while_it_runs_are_followed() -> None:
    async def check() -> None:
        before, now, other = (ports.free(LOOPBACK) for _ in range(3))
        servers = [await asyncio.start_server(greet, LOOPBACK, port) for port in (before, now, other)]
        gateway = HostGateway({before: LOOPBACK})
        await gateway.open(GATEWAY)
        gateway.targets = {now: LOOPBACK}
        await until(lambda: refused(before))
        assert await asked(now) == b"HELLO\n"
        assert await refused(other)
        for server in servers:
            server.close()
        gateway.close()

    asyncio.run(check())
