"""Health: whether a service that runs on this machine works yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from estiba.core.errors import EstibaError
from estiba.core.process_group import ProcessGroup
from estiba.deploy.plan.plan import Health, Http, Tcp
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_TIMEOUT_SECONDS

HOST = "127.0.0.1"


async def ask(health: Health, port: int | None, command: tuple[list[str], Path, Mapping[str, str]]) -> str:
    """Asks once.

    Args:
        command: where health is a command, its words, folder and environment.

    Returns:
        Empty where it is healthy, else why not.
    """
    if isinstance(health, Http):
        assert port is not None
        return await asyncio.to_thread(_get, port, health.path)
    if isinstance(health, Tcp):
        assert port is not None
        return await _connect(port)
    return await _run(*command) if health else ""


def _get(port: int, path: str) -> str:
    """No redirect is followed and no proxy asked: it is this service that has to answer."""
    url = f"GET http://{HOST}:{port}{path}"
    connection = HTTPConnection(HOST, port, timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
        return "" if status == 200 else f"{url} answered {status}, not 200"
    except (OSError, HTTPException) as error:
        return f"{url}: {_reason(error)}"
    finally:
        connection.close()


async def _connect(port: int) -> str:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(HOST, port)
    except OSError as error:  # TimeoutError is one
        return f"connect to {HOST}:{port}: {_reason(error)}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def _run(words: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    said: list[str] = []
    shown = " ".join(words)
    try:
        group = ProcessGroup(words, folder=folder, environment=environment, on_line=said.append)
    except EstibaError as error:
        return error.message
    try:
        async with asyncio.timeout(HEALTH_COMMAND_TIMEOUT_SECONDS):
            code = await group.wait()
    except TimeoutError:
        return f"{shown}: no answer within {HEALTH_COMMAND_TIMEOUT_SECONDS} seconds"
    finally:
        await group.kill()
    last = next((f" ({line.strip()})" for line in reversed(said) if line.strip()), "")
    return "" if code == 0 else f"{shown} ended with exit code {code}{last}"


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, TimeoutError):
        return f"no answer within {HEALTH_TIMEOUT_SECONDS} seconds"
    return str(error) or type(error).__name__
