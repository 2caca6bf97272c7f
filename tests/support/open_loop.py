"""Generate an open-loop load, with requests sent on schedule even if earlier ones have not been answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Made = Callable[[int], bytes]


@dataclass
class Answered:
    """One answer: its number, status, header in lower case, and the seconds that it took."""

    number: int
    status: int
    head: str
    seconds: float


@dataclass
class LoadResults:
    """Results of the requests."""

    answers: list[Answered] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def of(self, status: int) -> list[Answered]:
        return [answer for answer in self.answers if answer.status == status]


class OpenLoop:
    """Send `make(number)` at a steady rate, each request on a connection that is not busy."""

    def __init__(self, port: int, make: Made, rate: float) -> None:
        self.results = LoadResults()
        self._port = port
        self._make = make
        self._rate = rate
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self, seconds: float) -> LoadResults:
        """Send requests for `seconds`, and wait until each is answered or lost."""
        began, tasks = time.monotonic(), []
        for number in range(int(seconds * self._rate)):
            await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            tasks.append(asyncio.create_task(self._ask(number)))
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        for _, writer in self._idle:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return self.results

    async def _ask(self, number: int) -> None:
        began = time.monotonic()
        try:
            pair = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            pair[1].write(self._make(number))
            head = (await pair[0].readuntil(b"\r\n\r\n")).decode().lower()
            await pair[0].readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
            self.results.answers.append(Answered(number, int(head.split()[1]), head, time.monotonic() - began))
            self._idle.append(pair)
        except (OSError, EOFError, ValueError) as error:
            self.results.lost.append(repr(error))
