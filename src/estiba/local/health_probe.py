"""Health checks of services that run on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from estiba.core.addresses import bracketed, http_url
from estiba.core.errors import EstibaError
from estiba.core.process_group import ProcessGroup
from estiba.deploy.plan.plan import Health, Http, Tcp
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_TIMEOUT_SECONDS

CLOSE_SECONDS = 1.5
"""The time in which a container engine closes a connection that nothing in the container takes: a second, when new."""


@dataclass(frozen=True)
class CommandProbe:
    """A health check that is a command: healthy with exit code 0."""

    argv: list[str]
    folder: Path
    environment: Mapping[str, str]


async def probe(
    health: Health, host: str, port: int | None, command: CommandProbe | None, *, published: bool = False
) -> str:
    """Check the health of a service once.

    Args:
        command: the command to run, where `health` is one.
        published: True for the port of a container, where the engine takes connections before the program does.

    Returns:
        An empty string if it is healthy, otherwise the reason.
    """
    if isinstance(health, Http):
        assert port is not None
        return await asyncio.to_thread(_get, host, port, health.path)
    if isinstance(health, Tcp):
        assert port is not None
        return await _connect(host, port, published)
    return await _run(command) if command else ""


def _get(host: str, port: int, path: str) -> str:
    """Send a GET request to the service itself: no redirect is followed and no proxy is used."""
    request = f"GET {http_url(host, port)}{path}"
    connection = HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
        return "" if status == 200 else f"{request} answered {status}, not 200"
    except (OSError, HTTPException) as error:
        return f"{request}: {_reason(error)}"
    finally:
        connection.close()


async def _connect(host: str, port: int, published: bool) -> str:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:  # TimeoutError is one
        return f"connect to {bracketed(host)}:{port}: {_reason(error)}"
    closed = published and await _closes(reader)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return f"connect to {bracketed(host)}:{port}: nothing listens there in the container" if closed else ""


async def _closes(reader: asyncio.StreamReader) -> bool:
    """Tell if the other end closes a new connection, as a container engine does for a port without a program."""
    try:
        return not await asyncio.wait_for(reader.read(1), CLOSE_SECONDS)
    except TimeoutError:
        return False
    except OSError:
        return True


async def _run(command: CommandProbe) -> str:
    lines: list[str] = []
    shown = " ".join(command.argv)
    try:
        group = ProcessGroup(command.argv, folder=command.folder, environment=command.environment, on_line=lines.append)
    except EstibaError as error:
        return error.message
    try:
        async with asyncio.timeout(HEALTH_COMMAND_TIMEOUT_SECONDS):
            code = await group.wait()
    except TimeoutError:
        return f"{shown}: no answer within {HEALTH_COMMAND_TIMEOUT_SECONDS} seconds"
    finally:
        await group.kill()
    last = next((f" ({line.strip()})" for line in reversed(lines) if line.strip()), "")
    return "" if code == 0 else f"{shown} ended with exit code {code}{last}"


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, TimeoutError):
        return f"no answer within {HEALTH_TIMEOUT_SECONDS} seconds"
    return str(error) or type(error).__name__
