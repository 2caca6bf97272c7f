"""Requests that are lost while a command runs, such as an update: asked at a constant pace, whether answered or not.

python bench/loss.py http://127.0.0.1:8000/models/iris/predict=iris.json -- estiba deploy compose --yes

asks every URL 100 times a second, each time on a connection of its own, with what is in the file as JSON. Lost is what
is not answered with 200 within a minute.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.01
REQUEST_TIMEOUT_SECONDS = 60.0


@dataclass
class Door:
    """A URL that is asked. `began` has the times at which lost requests began, in seconds."""

    url: str
    body: bytes
    asked: int = 0
    began: list[float] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def away(self) -> float:
        """Seconds between the first and the last request that was lost."""
        return max(self.began) - min(self.began) if self.began else 0.0

    async def ask(self) -> None:
        self.asked += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                right = await self._answer()
        except (OSError, EOFError):  # TimeoutError is an OSError
            right = False
        if right:
            self.slowest = max(self.slowest, time.monotonic() - began)
        else:
            self.began.append(began)

    async def _answer(self) -> bool:
        parts = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
            writer.write(head.encode() + self.body)
            status = await reader.readuntil(b"\r\n")
            await reader.read()
        finally:
            writer.close()
        return status.split()[1] == b"200"


async def during(doors: list[Door], command: list[str]) -> tuple[int, float]:
    """The exit code of a command, and the seconds that it took, while all doors are asked."""
    over = asyncio.Event()
    drivers = [asyncio.create_task(_drive(door, over)) for door in doors]
    await asyncio.sleep(1)
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command)
    code = await process.wait()
    took = time.monotonic() - began
    await asyncio.sleep(2)
    over.set()
    await asyncio.gather(*drivers)
    return code, took


async def _drive(door: Door, over: asyncio.Event) -> None:
    due = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while not over.is_set():
            group.create_task(door.ask())
            due += PAUSE_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def main() -> int:
    """Prints what became of each door; the exit code is the command's."""
    arguments = sys.argv[1:]
    if "--" not in arguments[1:]:
        sys.exit(__doc__)
    cut = arguments.index("--")
    pairs = [word.partition("=") for word in arguments[:cut]]
    doors = [Door(url, Path(file).read_bytes()) for url, _, file in pairs]
    code, took = asyncio.run(during(doors, arguments[cut + 1 :]))
    print(f"exit code {code} after {took:.0f} s")
    for door in doors:
        lost = len(door.began)
        print(f"{door.url}: {door.asked} asked, {lost} lost within {door.away:.1f} s, slowest {door.slowest:.2f} s")
    print(f"{sum(door.asked for door in doors)} asked, {sum(len(door.began) for door in doors)} lost")
    return code


if __name__ == "__main__":
    sys.exit(main())
