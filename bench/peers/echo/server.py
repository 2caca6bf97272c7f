"""The least that an HTTP/1.1 server in Python can do: parse the request, read its body, send a fixed JSON answer."""

from __future__ import annotations

import asyncio
import json
import sys

import httptools
import uvloop

ANSWER = json.dumps(
    {
        "id": "01JD6Q8V7W9X0Y1Z2A3B4C5D6E",
        "model": "bankchurn",
        "version": "1",
        "predictions": [{"label": 0, "probabilities": {"0": 0.9134512186050415, "1": 0.08654878139495849}}],
        "warnings": [],
    },
    separators=(",", ":"),
).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = bytearray()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.body.clear()
        self.transport.write(HEAD + ANSWER)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
