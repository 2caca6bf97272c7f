"""Send constant load over real sockets, and count every request that is not answered correctly."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class LoadResults:
    """Results of the requests: counts by status, requests lost to a broken connection, seconds of the slowest."""

    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


class Load:
    """`connections` clients that each send one request after another, and open a new connection when told to."""

    def __init__(self, port: int, path: str, body: object, connections: int = 8) -> None:
        self._port = port
        self._results = LoadResults()
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        self._request = head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content
        self._connections = connections
        self._stopped = False

    async def __aenter__(self) -> LoadResults:
        self._clients = [asyncio.create_task(self._client()) for _ in range(self._connections)]
        return self._results

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await asyncio.wait_for(asyncio.gather(*self._clients), 30)

    async def _client(self) -> None:
        while not self._stopped:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self._results.lost.append(f"connect: {error!r}")
                await asyncio.sleep(0.05)
                continue
            try:
                while not self._stopped and await self._ask(reader, writer):
                    pass
            except (OSError, EOFError, ValueError) as error:
                self._results.lost.append(repr(error))
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one request; True if the connection can be used again."""
        began = time.monotonic()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self._results.slowest = max(self._results.slowest, time.monotonic() - began)
        self._results.statuses[int(head.split()[1])] += 1
        if "version" in body:
            self._results.versions[str(body["version"])] += 1
        return "connection: close" not in head
